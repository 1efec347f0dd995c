"""The whole configuration of a run: one frozen tree of pydantic models, checked before anything starts.

Read a recipe with :func:`megatron_aquila.config_loader.load_config`. Relative paths are relative to the
working directory of the process, not to the recipe.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from megatron_aquila.config_base import Section as Section
from megatron_aquila.config_base import refuse
from megatron_aquila.config_evaluation import EvaluationConfig
from megatron_aquila.config_resilience import ResilienceConfig
from megatron_aquila.kernels import Loss
from megatron_aquila.layout import (
    batch_problems,
    length_problems,
    precision_problems,
    preference_problems,
    schedule_problems,
    shape_problems,
    sharding_problems,
)
from megatron_aquila.layout import check_layout as check_layout
from megatron_aquila.layout import require_layout as require_layout
from megatron_aquila.schedule import minimum_learning_rate
from megatron_aquila.shapes import SHAPES, ModelShape, read_shape

FROM_WEIGHTS = "from-weights"
# pydantic puts these into the location of an error; the loader takes them out again
SHAPE_TAGS = ("shape by name", "shape by fields")

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]


def _shape_tag(value: Any) -> str:
    return SHAPE_TAGS[0] if isinstance(value, str) else SHAPE_TAGS[1]


def _split_commas(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


class ModelConfig(Section):
    """Which model, and where its weights come from."""

    shape: Annotated[
        Annotated[str, Tag(SHAPE_TAGS[0])] | Annotated[ModelShape, Tag(SHAPE_TAGS[1])],
        Discriminator(_shape_tag),
    ] = Field(description="a shape's name, 'from-weights' (that of the model in `weights`), or the sizes themselves")
    vocab_size: PositiveInt | None = Field(default=None, description="replaces the shape's vocabulary; null: keep it")
    weights: Path | None = Field(
        default=None,
        description="a Hugging Face directory, a run or a checkpoint to start from; null: random numbers",
    )
    init_std: PositiveFloat = Field(default=0.02, description="standard deviation of random initialisation")
    vocab_divisible_by: PositiveInt = Field(
        default=128, description="the vocabulary is padded to a multiple of this times tensor_parallel"
    )
    attention_dropout: Probability = Field(default=0.0, description="dropout on attention probabilities")
    hidden_dropout: Probability = Field(default=0.0, description="dropout on the residual branches")

    @field_validator("shape")
    @classmethod
    def _known_name(cls, shape: str | ModelShape) -> str | ModelShape:
        if isinstance(shape, str) and shape not in SHAPES and shape != FROM_WEIGHTS:
            raise ValueError(f"there is no shape '{shape}'; known are {', '.join([*SHAPES, FROM_WEIGHTS])}")
        return shape

    @model_validator(mode="after")
    def _weights_given(self) -> "ModelConfig":
        if self.shape == FROM_WEIGHTS and self.weights is None:
            raise ValueError(
                f"shape is {FROM_WEIGHTS}, so weights must name a Hugging Face directory, a run or a checkpoint"
            )
        return self

    def resolve(self) -> ModelShape:
        """The shape with ``vocab_size`` applied; from-weights reads what lies at ``weights`` (ConfigError)."""
        shape = self.shape
        if isinstance(shape, str):
            shape = read_shape(self.weights) if self.weights and shape == FROM_WEIGHTS else SHAPES[shape]
        if self.vocab_size in (None, shape.vocab_size):
            return shape
        # another vocabulary: the shape's own token ids mean nothing in it
        ids = dict.fromkeys(("bos_id", "eos_id", "pad_id"))
        return shape.model_copy(update={"vocab_size": self.vocab_size, **ids})


class Corpus(Section):
    """One indexed dataset of a blend."""

    path: Path = Field(description="prefix of the .bin and .idx files")
    weight: PositiveFloat = Field(default=1.0, description="share of the blend; weights need not sum to one")


class DataConfig(Section):
    """What is read, and how it becomes samples."""

    train: tuple[Corpus, ...] = Field(min_length=1, description="the blend to train on")
    valid: Annotated[tuple[Corpus, ...], Field(min_length=1)] | None = Field(
        default=None, description="the blend to evaluate on; null: the second part of `split`"
    )
    split: Annotated[tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat], BeforeValidator(_split_commas)] = (
        Field(
            default=(99.0, 1.0, 0.0),
            description="shares of `train` for training, validation and test; `valid` replaces the second",
        )
    )
    sequence_length: PositiveInt = Field(description="tokens per sequence: a row of text, or a pack of samples")
    reset_attention: bool = Field(
        default=True, description="cpt: attention and positions restart at every document end within a sample"
    )
    packing: bool = Field(
        default=True,
        description="sft, dpo: several samples share a sequence; attention stays within each",
    )
    tokenizer: Path = Field(description="tokenizer directory or file; must be the one the data was indexed with")
    cache: Path | None = Field(default=None, description="index cache; null: <output>/cache")

    @model_validator(mode="after")
    def _something_to_train(self) -> "DataConfig":
        if self.valid is None and self.split[0] == 0.0:
            raise ValueError("split leaves nothing to train on; its first number must be above zero")
        return self


class ParallelConfig(Section):
    """How the model and the batch are divided among processes."""

    tensor_parallel: PositiveInt = Field(default=1, description="ranks that share every layer")
    pipeline_parallel: PositiveInt = Field(default=1, description="ranks that share the stack of layers")
    virtual_pipeline: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="model chunks per pipeline rank (interleaved schedule); null: one"
    )
    context_parallel: PositiveInt = Field(
        default=1, description="ranks that share the tokens of a micro-batch, for long sequences"
    )
    data_parallel: PositiveInt | None = Field(
        default=None, description="replicas; null: whatever the world size leaves (one, on CPU)"
    )
    sequence_parallel: bool = Field(
        default=False, description="split norms and dropout along the sequence over the tensor-parallel ranks"
    )
    sharding: Literal["none", "optimizer", "full"] = Field(
        default="optimizer",
        description="what is split over data-parallel ranks: nothing, optimizer state (ZeRO-1), or weights and "
        "gradients too (ZeRO-3, Megatron-FSDP)",
    )
    overlap_grad_reduce: bool = Field(default=False, description="reduce gradients during the backward pass")
    overlap_param_gather: bool = Field(default=False, description="gather parameters during the forward pass")

    @model_validator(mode="after")
    def _options_combine(self) -> "ParallelConfig":
        problems = []
        if self.sequence_parallel and self.tensor_parallel == 1:
            problems.append("sequence_parallel needs tensor_parallel above 1")
        if self.virtual_pipeline and self.pipeline_parallel == 1:
            problems.append("virtual_pipeline needs pipeline_parallel above 1")
        if self.overlap_param_gather and self.sharding == "none":
            problems.append("overlap_param_gather needs sharding optimizer or full")
        if self.overlap_param_gather and not self.overlap_grad_reduce:
            problems.append("overlap_param_gather needs overlap_grad_reduce")
        if self.sharding == "full" and self.pipeline_parallel > 1:
            problems.append(
                "sharding full does not go with pipeline_parallel: Megatron-FSDP wants every rank of the world in its "
                "mesh of data and tensor parallelism; set pipeline_parallel=1, or sharding=optimizer"
            )
        refuse(problems)
        return self

    @property
    def model_parallel(self) -> int:
        """Processes that compute one micro-batch together."""
        return self.tensor_parallel * self.context_parallel * self.pipeline_parallel

    @property
    def sizes(self) -> str:
        """What divides a micro-batch among processes, by name, for messages."""
        context = f" x context_parallel {self.context_parallel}" if self.context_parallel > 1 else ""
        return f"parallel.tensor_parallel {self.tensor_parallel} x pipeline_parallel {self.pipeline_parallel}{context}"


class TrainingConfig(Section):
    """How long, in what batches, in what arithmetic."""

    steps: PositiveInt | None = Field(default=None, description="optimizer steps; give this, tokens or epochs")
    tokens: PositiveInt | None = Field(
        default=None, description="cpt: tokens; rounded up to whole steps; give this or steps"
    )
    epochs: PositiveInt | None = Field(
        default=None, description="sft, dpo: passes over the training samples; give this or steps"
    )
    global_batch_size: PositiveInt = Field(
        description="samples per optimizer step, over all replicas: sequences in cpt, dialogues in sft, pairs in dpo"
    )
    micro_batch_size: PositiveInt = Field(default=1, description="sequences per forward pass of one replica")
    precision: Literal["fp32", "bf16", "fp16"] = Field(default="bf16", description="arithmetic of the model")
    recompute: Literal["none", "selective", "full"] = Field(
        default="none",
        description="activations computed again in the backward pass: attention's, or whole layers",
    )
    logits_mib: NonNegativeInt = Field(
        default=1024,
        description="memory for a micro-batch's output logits on a rank, MiB; what exceeds it is computed again",
    )
    deterministic: bool = Field(default=False, description="bit-equal repetition on the same layout, at some cost")
    layers: Literal["auto", "own"] = Field(
        default="auto",
        description="auto: Transformer Engine's layers where it is installed on a GPU; own: this project's there too",
    )
    fp8: Literal["hybrid", "e4m3"] | None = Field(
        default=None,
        description="format of the layers' matrix products, beside bf16: e4m3, or hybrid with e5m2 for gradients; "
        "needs Transformer Engine and a GPU of compute capability 8.9",
    )
    fp8_recipe: Literal["tensorwise", "delayed"] = Field(
        default="tensorwise",
        description="fp8: scaled by each tensor's present maximum, or by that of the step before, which no checkpoint "
        "keeps",
    )
    compile: bool | None = Field(
        default=None,
        description="SwiGLU, and dropout with its residual, as compiled kernels; null: on a GPU that has triton",
    )

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingConfig":
        if [self.steps, self.tokens, self.epochs].count(None) != 2:
            raise ValueError("give exactly one of steps, tokens and epochs (an override `key=` clears a key)")
        return self


class ScheduleConfig(Section):
    """The learning rate over the steps; formulas in :mod:`megatron_aquila.schedule`."""

    kind: Literal["cosine", "linear", "constant", "wsd"] = Field(default="cosine", description="form of the decay")
    warmup_ratio: Ratio | None = Field(default=None, description="warm-up as a share of all steps")
    warmup_steps: NonNegativeInt | None = Field(default=None, description="warm-up in steps")
    min_lr_ratio: Ratio | None = Field(default=None, description="floor of the decay as a share of lr; default 0")
    min_lr: NonNegativeFloat | None = Field(default=None, description="floor of the decay")
    decay_ratio: Ratio | None = Field(default=None, description="wsd: length of the decay as a share of all steps")
    decay_steps: PositiveInt | None = Field(default=None, description="wsd: length of the decay in steps")
    decay_style: Literal["linear", "cosine", "exponential", "minus_sqrt"] | None = Field(
        default=None, description="wsd: form of the decay; null: linear"
    )

    @model_validator(mode="after")
    def _one_of_each(self) -> "ScheduleConfig":
        problems = []
        for one, other in (
            ("warmup_ratio", "warmup_steps"),
            ("min_lr_ratio", "min_lr"),
            ("decay_ratio", "decay_steps"),
        ):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                problems.append(f"give {one} or {other}, not both (an override `key=` clears a key)")
        decay_given = [key for key in ("decay_ratio", "decay_steps", "decay_style") if getattr(self, key) is not None]
        if self.kind == "wsd" and not self.decay_ratio and not self.decay_steps:
            problems.append("wsd needs decay_ratio or decay_steps above zero")
        if self.kind != "wsd" and decay_given:
            problems.append(f"{', '.join(decay_given)} belongs to wsd, and kind is {self.kind}")
        refuse(problems)
        return self


class OptimizerConfig(Section):
    """AdamW and its learning rate."""

    lr: PositiveFloat = Field(description="peak learning rate")
    weight_decay: NonNegativeFloat = Field(default=0.1, description="decoupled; not applied to norms and biases")
    betas: tuple[Probability, Probability] = Field(default=(0.9, 0.95), description="Adam's two decay rates")
    eps: PositiveFloat = Field(default=1e-8, description="Adam's epsilon")
    clip_grad: NonNegativeFloat = Field(default=1.0, description="largest global gradient norm; 0: no clipping")
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig, description="the learning rate over the steps")

    @model_validator(mode="after")
    def _floor_below_peak(self) -> "OptimizerConfig":
        if minimum_learning_rate(self) > self.lr:
            raise ValueError(f"schedule.min_lr {self.schedule.min_lr:g} is above lr {self.lr:g}")
        return self


class CheckpointConfig(Section):
    """When the run is saved, and how it starts again. The last step is always saved."""

    every: PositiveInt = Field(description="steps between checkpoints")
    keep: PositiveInt = Field(default=3, description="newest checkpoints kept")
    best: bool = Field(
        default=False,
        description="also save and keep the checkpoint of the lowest validation loss; others start from it",
    )
    resume: Literal["auto", "never", "required"] = Field(
        default="auto",
        description="go on from the newest sound checkpoint: if there is one, never, or fail without",
    )
    verify: Literal["full", "sizes", "off"] = Field(
        default="full", description="on load: SHA-256 of every file, sizes only, or nothing"
    )
    asynchronous: bool = Field(
        default=False,
        description="write while training goes on, from a copy in host memory; the save of the last step is waited for",
    )


class PreferenceConfig(Section):
    """The loss on pairs of answers, and the reference model it compares with (dpo)."""

    loss: Loss = Field(default="sigmoid", description="which loss; simpo and orpo have no reference model")
    beta: PositiveFloat = Field(default=0.1, description="strength of the reference; ipo's tau, orpo's lambda")
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = Field(
        default=0.0, description="share of pairs taken to be labelled the wrong way round (sigmoid, robust, simpo)"
    )
    length_normalised: bool = Field(
        default=False, description="log-ratios per token instead of per answer (sigmoid, robust, hinge)"
    )
    margin: float = Field(default=0.0, description="simpo's gamma")
    sft_weight: NonNegativeFloat = Field(
        default=0.0, description="weight of the mean negative log-likelihood of the chosen answer, beside the loss"
    )
    reference_weights: Path | None = Field(
        default=None, description="the reference model, where it is not the model that training starts from"
    )
    reference_sequence_length: PositiveInt | None = Field(
        default=None, description="length of a pack in the reference pass; null: data.sequence_length"
    )
    reference_cache: Path | None = Field(
        default=None, description="folder of the reference log-probs; null: one under data.cache, named by its key"
    )
    start_tolerance: PositiveFloat = Field(
        default=1e-4, description="how far the loss of the first batch may be from that of equal models"
    )

    @model_validator(mode="after")
    def _constants_fit(self) -> "PreferenceConfig":
        refuse(preference_problems(self))
        return self


class LoggingConfig(Section):
    """What is reported while training. JSON lines are always written."""

    every: PositiveInt = Field(default=1, description="steps between reports")
    tensorboard: bool = Field(default=True, description="write TensorBoard events")
    peak_tflops: PositiveFloat | None = Field(
        default=None,
        description="peak of one device, for MFU; null: from the GPU's name, or MFU is not shown",
    )


class RunConfig(Section):
    """One run of one stage."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the run, usable as a file name")
    stage: str = Field(default="cpt", min_length=1, description="training stage, as registered by entry point")
    output: Path = Field(
        default_factory=lambda data: Path("runs") / data.get("name", ""),
        description="directory of the run; default: runs/<name>",
    )
    seed: NonNegativeInt = Field(default=1234, description="of initialisation, data order and dropout")
    device: Literal["auto", "cuda", "cpu"] = Field(default="auto", description="auto: cuda where there is one")
    model: ModelConfig = Field(description="which model")
    data: DataConfig = Field(description="what it is trained on")
    parallel: ParallelConfig = Field(default_factory=ParallelConfig, description="how it is divided")
    training: TrainingConfig = Field(description="how long, in what batches")
    optimizer: OptimizerConfig = Field(description="AdamW")
    checkpoint: CheckpointConfig = Field(description="saving and resuming")
    evaluation: EvaluationConfig = Field(description="validation loss, and questions put while training")
    resilience: ResilienceConfig = Field(
        default_factory=ResilienceConfig, description="what is done when something goes wrong"
    )
    logging: LoggingConfig = Field(default_factory=LoggingConfig, description="what is reported")
    preference: PreferenceConfig = Field(default_factory=PreferenceConfig, description="the loss on pairs (dpo)")

    @model_validator(mode="after")
    def _sections_fit(self) -> "RunConfig":
        replicas = self.parallel.data_parallel
        problems = schedule_problems(self) + batch_problems(self, replicas) + sharding_problems(self, replicas)
        problems += length_problems(self) + precision_problems(self)
        if self.evaluation.every and self.data.valid is None and self.data.split[1] == 0.0:
            problems.append("evaluation.every is set but data.split leaves nothing for validation; set it to 0")
        if self.checkpoint.best and not self.evaluation.every:
            problems.append("checkpoint.best needs evaluation.every above 0")
        if self.model.shape != FROM_WEIGHTS:
            problems += shape_problems(self, self.model.resolve())
        refuse(problems)
        return self

    @property
    def total_steps(self) -> int | None:
        """Optimizer steps of the run: given, or enough to see ``training.tokens``; None for epochs, where the data
        decide.
        """
        if self.training.tokens is None:
            return self.training.steps
        return math.ceil(self.training.tokens / (self.training.global_batch_size * self.data.sequence_length))

    @property
    def cache_directory(self) -> Path:
        """Where dataset indices are cached."""
        return self.data.cache or self.output / "cache"
