"""Whether a configuration can run: what must divide what, on how many processes. Pure; each problem is a
sentence.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from megatron_aquila.errors import ConfigError
from megatron_aquila.kernels import BY_LENGTH, REFERENCE_FREE, WITH_LABEL_SMOOTHING, WITH_MARGIN
from megatron_aquila.schedule import decay_steps, warmup_steps

if TYPE_CHECKING:
    from megatron_aquila.config import PreferenceConfig, RunConfig
    from megatron_aquila.shapes import ModelShape


# Their batches are dialogues or pairs, of which a sequence holds as many as fit.
_STAGES_OF_SAMPLES = ("sft", "dpo")


def check_layout(config: RunConfig, world_size: int) -> list[str]:
    """What keeps ``config`` from running on ``world_size`` processes, one sentence each; empty when nothing
    does.

    Beyond the checks made on loading: those that need the world's size, and, for a shape taken from weights,
    those that need its ``config.json`` (ConfigError when that cannot be read).
    """
    parallel = config.parallel
    sizes = parallel.sizes
    problems = shape_problems(config, config.model.resolve())
    if world_size % parallel.model_parallel:
        return [*problems, f"{world_size} processes cannot be divided into replicas of {sizes}"]
    replicas = world_size // parallel.model_parallel
    if parallel.data_parallel not in (None, replicas):
        needed = parallel.model_parallel * (parallel.data_parallel or 1)
        return [
            *problems,
            f"{sizes} x data_parallel {parallel.data_parallel} needs {needed} processes, not {world_size}",
        ]
    return problems + batch_problems(config, replicas) + sharding_problems(config, replicas)


def require_layout(config: RunConfig, world_size: int) -> None:
    """Raise ConfigError with every problem that :func:`check_layout` finds."""
    problems = check_layout(config, world_size)
    if problems:
        raise ConfigError("\n".join(problems))


def length_problems(config: RunConfig) -> list[str]:
    """Whether the stage can count its length in what is given."""
    training = config.training
    if config.stage == "cpt":
        problems = []
        if training.epochs is not None:
            problems.append("training.epochs is for sft and dpo: cpt draws from a blend; give steps or tokens")
        if config.evaluation.every and config.evaluation.batches is None:
            problems.append("evaluation.batches must be given for cpt")
        return problems
    if config.stage in _STAGES_OF_SAMPLES and training.tokens is not None:
        return [f"training.tokens is for cpt: {config.stage} counts samples; give epochs or steps"]
    return []


def precision_problems(config: RunConfig) -> list[str]:
    """What keeps ``training.fp8`` from working, whatever the machine."""
    training, parallel = config.training, config.parallel
    if training.fp8 is None:
        return []
    problems = []
    if training.precision != "bf16":
        problems.append(f"training.fp8 goes with training.precision bf16, not {training.precision}")
    if training.layers == "own":
        problems.append("training.fp8 is Transformer Engine's, and training.layers is own: set layers=auto")
    if parallel.context_parallel > 1:
        problems.append("training.fp8 does not go with parallel.context_parallel, whose layers are our own")
    if config.evaluation.questions:
        problems.append(
            "training.fp8 does not go with evaluation.questions, which are scored in packs of any length: ask them of "
            "the checkpoints with `aquila eval`"
        )
    # Transformer Engine multiplies matrices whose sides are multiples of 16 only
    multiple = 16 * (parallel.tensor_parallel if parallel.sequence_parallel else 1)
    lengths = {
        "data.sequence_length": config.data.sequence_length,
        "preference.reference_sequence_length": config.preference.reference_sequence_length,
    }
    for name, length in lengths.items():
        if length is not None and length % multiple:
            problems.append(f"training.fp8 needs {name} {length} to be a multiple of {multiple}")
    return problems


def preference_problems(preference: PreferenceConfig) -> list[str]:
    """Constants that mean nothing in the chosen loss."""
    loss, problems = preference.loss, []
    if preference.label_smoothing and loss not in WITH_LABEL_SMOOTHING:
        problems.append(f"label_smoothing has no meaning in the loss {loss}")
    if preference.length_normalised and loss in BY_LENGTH:
        problems.append(f"length_normalised changes nothing in the loss {loss}, which is per token already")
    if preference.margin and loss not in WITH_MARGIN:
        problems.append(f"margin has no meaning in the loss {loss}")
    if loss in REFERENCE_FREE and preference.reference_weights is not None:
        problems.append(f"the loss {loss} has no reference model; remove reference_weights")
    return problems


def schedule_problems(config: RunConfig, total: int | None = None) -> list[str]:
    """Whether warm-up and decay fit into `total` steps; unknown for epochs until the data are read."""
    schedule = config.optimizer.schedule
    total = config.total_steps if total is None else total
    if total is None:
        return []
    warmup = warmup_steps(schedule, total)
    decay = decay_steps(schedule, total) if schedule.kind == "wsd" else 0
    if warmup >= total and schedule.kind != "constant":
        return [f"optimizer.schedule warms up for {warmup} of {total} steps, which leaves none for the decay"]
    if warmup + decay > total:
        return [f"optimizer.schedule warms up for {warmup} and decays for {decay} steps, but the run has {total}"]
    return []


def batch_problems(config: RunConfig, replicas: int | None) -> list[str]:
    """Whether the batch divides, when the number of replicas is known.

    Batches of samples need not: what is missing to whole micro-batches on every replica is filled with padding.
    """
    if replicas is None or config.stage in _STAGES_OF_SAMPLES:
        return []
    training, parallel = config.training, config.parallel
    micro_batches, rest = divmod(training.global_batch_size, training.micro_batch_size * replicas)
    if rest:
        return [
            f"training.global_batch_size {training.global_batch_size} is not a multiple of "
            f"training.micro_batch_size {training.micro_batch_size} x {replicas} data-parallel replicas"
        ]
    # Megatron-core 0.16's interleaved schedule runs micro-batches in groups of the pipeline's length
    if parallel.virtual_pipeline and micro_batches % parallel.pipeline_parallel:
        return [
            f"parallel.virtual_pipeline needs the {micro_batches} micro-batches per step to be a multiple of "
            f"parallel.pipeline_parallel {parallel.pipeline_parallel}"
        ]
    return []


def sharding_problems(config: RunConfig, replicas: int | None) -> list[str]:
    """What keeps ``parallel.sharding: full`` from working; ``replicas`` are counted where they are known."""
    problems: list[str] = []
    if config.parallel.sharding != "full":
        return problems
    # Its ranks may hold nothing of a parameter, and the loss scaler of Megatron-core 0.16 asks each for a gradient
    if config.training.precision == "fp16":
        problems.append("parallel.sharding full does not go with training.precision fp16: use bf16 or fp32")
    # Megatron-FSDP 0.16 with one rank adds its gradient buffer to itself after every micro-batch
    if replicas is not None and replicas * config.parallel.context_parallel == 1:
        problems.append(
            "parallel.sharding full divides the weights among data-parallel replicas, and here is one: set "
            "parallel.data_parallel=2 or more, or sharding=optimizer"
        )
    return problems


def context_problems(config: RunConfig) -> list[str]:
    """Whether a pack can be cut into parts of one length for the context-parallel ranks."""
    parallel = config.parallel
    if parallel.context_parallel == 1:
        return []
    parts, why = 2 * parallel.context_parallel, "2 x parallel.context_parallel"
    if parallel.sequence_parallel:  # a rank's two parts lie end to end, and are split together
        parts = math.lcm(parts, parallel.context_parallel * parallel.tensor_parallel)
        why += " and of context_parallel x tensor_parallel"
    lengths = [
        ("data.sequence_length", config.data.sequence_length),
        ("preference.reference_sequence_length", config.preference.reference_sequence_length or parts),
    ]
    return [
        f"{key} {length} is not a multiple of {why}, hence of {parts}: packs are cut into parts of one length"
        for key, length in lengths
        if length % parts
    ]


def shape_problems(config: RunConfig, shape: ModelShape) -> list[str]:
    """Whether the model divides among the ranks, and a sample fits into it."""
    parallel = config.parallel
    chunks = parallel.pipeline_parallel * (parallel.virtual_pipeline or 1)
    length = config.data.sequence_length
    tensor = ("parallel.tensor_parallel", parallel.tensor_parallel)
    divisions = [
        ("the model's num_attention_heads", shape.num_attention_heads, *tensor),
        ("the model's num_query_groups", shape.num_query_groups, *tensor),
        ("the model's ffn_hidden_size", shape.ffn_hidden_size, *tensor),
        ("the model's num_layers", shape.num_layers, "parallel.pipeline_parallel x virtual_pipeline", chunks),
    ]
    if parallel.sequence_parallel:
        divisions.append(("data.sequence_length", length, *tensor))
    if config.training.fp8:
        sixteenths = ("16 x parallel.tensor_parallel, as training.fp8 needs:", 16 * parallel.tensor_parallel)
        divisions.append(("the model's hidden_size", shape.hidden_size, *sixteenths))
        divisions.append(("the model's ffn_hidden_size", shape.ffn_hidden_size, *sixteenths))
    problems = [
        f"{what} {size} is not a multiple of {by} {parts}" for what, size, by, parts in divisions if size % parts
    ]
    problems += context_problems(config)
    # Positions restart at every sample: a pack may be longer, and the stage looks at the samples.
    if length > shape.max_position_embeddings and config.stage not in _STAGES_OF_SAMPLES:
        problems.append(
            f"data.sequence_length {length} is more than the model's max_position_embeddings "
            f"{shape.max_position_embeddings}"
        )
    return problems
