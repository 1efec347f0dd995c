"""Every shipped recipe is read, and the paper's numbers stand in those that claim them."""

from pathlib import Path

import pytest

from megatron_aquila.config import RunConfig, check_layout
from megatron_aquila.config_loader import load_config
from megatron_aquila.gpus import GPUS
from megatron_aquila.plan.assessment import Assessment, assess
from megatron_aquila.plan.timing import Machine
from megatron_aquila.plan.workload import Samples, workload
from megatron_aquila.schedule import learning_rate, warmup_steps
from megatron_aquila.shapes import SHAPES

RECIPES = Path(__file__).parents[2] / "recipes"
# every recipe, and the world it is meant for
WORLDS = {
    "aquila_med/cpt_stage1.yaml": 24,
    "aquila_med/cpt_stage2.yaml": 24,
    "aquila_med/sft.yaml": 8,
    "aquila_med/dpo.yaml": 8,
    **{
        f"aquila_med/{machine}/{stage}.yaml": 8
        for machine in ("8xa100-80g", "8xh100")
        for stage in ("cpt_stage1", "cpt_stage2", "sft", "dpo")
    },
    "tiny/cpt_stage1.yaml": 2,
    "tiny/cpt_stage2.yaml": 2,
    "tiny/sft.yaml": 2,
    "tiny/dpo.yaml": 2,
}


def load(name: str) -> RunConfig:
    return load_config(RECIPES / name)


def test_no_recipe_is_left_out() -> None:
    others = {"corpus.yaml", "data_sft.yaml", "data_dpo.yaml", "judge_pair.yaml", "judge_rubric.yaml"}
    training = {path for path in RECIPES.rglob("*.yaml") if path.name not in others}
    assert {path.relative_to(RECIPES).as_posix() for path in training} == set(WORLDS)


@pytest.mark.parametrize(("name", "world_size"), WORLDS.items())
def test_recipe_fits_its_world(name: str, world_size: int) -> None:
    config = load(name)
    assert check_layout(config, world_size) == []
    assert Path(name).stem.startswith(config.stage)


@pytest.mark.parametrize("name", [name for name in WORLDS if name.count("/") == 2])
def test_another_machine_runs_the_papers_run(name: str) -> None:
    """What decides on the weights is the paper's recipe's; only how it is divided, and where it is saved, differs."""
    model, _, stage = name.split("/")
    theirs, ours = load(f"{model}/{stage}").model_dump(), load(name).model_dump()
    for config in (theirs, ours):
        for divided in ("parallel", "checkpoint", "resilience"):
            del config[divided]
        for key in ("micro_batch_size", "recompute", "logits_mib"):
            del config["training"][key]
    assert ours == theirs


MACHINES = {"8xa100-80g": "a100-80g", "8xh100": "h100"}


@pytest.mark.parametrize("name", [name for name in WORLDS if name.startswith("aquila_med/")])
def test_a_recipe_fits_its_gpus(name: str) -> None:
    config, gpu = load(name), GPUS[MACHINES.get(Path(name).parent.name, "a100-40g")]
    shape, memory = config.model.resolve(), int(gpu.memory * (1 << 30))
    work = workload(config, Samples(None, None))
    found = assess(config, shape, work, WORLDS[name], Machine(gpu, 8, gpu.mfu), memory)
    assert isinstance(found, Assessment), found
    assert found.fits, found.worst


@pytest.mark.parametrize(
    ("name", "batch", "lr", "warmup", "steps", "warmup_in_steps"),
    [
        ("aquila_med/cpt_stage1.yaml", 768, 1e-4, 0.05, 19_074, 954),
        ("aquila_med/cpt_stage2.yaml", 384, 1e-5, 0.01, 12_716, 128),
    ],
)
def test_the_papers_numbers(name: str, batch: int, lr: float, warmup: float, steps: int, warmup_in_steps: int) -> None:
    config = load(name)
    assert config.training.global_batch_size == batch
    assert config.data.sequence_length == 4096
    assert config.optimizer.lr == lr
    assert config.optimizer.schedule.kind == "cosine"
    assert config.optimizer.schedule.warmup_ratio == warmup
    assert config.total_steps == steps
    assert warmup_steps(config.optimizer.schedule, steps) == warmup_in_steps
    assert learning_rate(warmup_in_steps, steps, config.optimizer) == lr
    assert learning_rate(steps, steps, config.optimizer) == pytest.approx(lr / 10)
    assert config.training.precision == "bf16"
    assert config.model.resolve() == SHAPES["aquila3-7b"]
    assert 24 // config.parallel.model_parallel == 6  # replicas on 3 x 8 GPUs


def test_the_papers_numbers_of_fine_tuning() -> None:
    config = load("aquila_med/sft.yaml")
    assert (config.training.global_batch_size, config.training.epochs) == (128, 2)
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (2e-6, 0.1)
    assert (config.model.attention_dropout, config.model.hidden_dropout) == (0.1, 0.1)
    assert config.data.sequence_length == 2048
    assert config.data.split == (90, 10, 0) and config.checkpoint.best
    assert (config.training.precision, config.parallel.sharding) == ("bf16", "full")
    assert config.optimizer.schedule.kind == "cosine"
    assert config.model.resolve() == SHAPES["aquila3-7b"]


def test_the_papers_numbers_of_preference_training() -> None:
    config = load("aquila_med/dpo.yaml")
    assert (config.training.global_batch_size, config.training.epochs) == (64, 2)
    assert config.optimizer.lr == 2e-7
    assert (config.preference.loss, config.preference.beta) == ("sigmoid", 0.03)
    assert config.optimizer.schedule.kind == "cosine" and config.optimizer.schedule.warmup_ratio
    assert config.preference.reference_weights is None, "step 0 is checked"


@pytest.mark.parametrize("model", ["aquila_med", "tiny"])
@pytest.mark.parametrize(("before", "after"), [("cpt_stage2", "sft"), ("sft", "dpo")])
def test_each_stage_goes_on_from_the_one_before(model: str, before: str, after: str) -> None:
    one, two = load(f"{model}/{before}.yaml"), load(f"{model}/{after}.yaml")
    assert two.model.weights == one.output
    assert two.model.resolve() == one.model.resolve()
    assert two.data.tokenizer == one.data.tokenizer


@pytest.mark.parametrize("model", ["aquila_med", "tiny"])
def test_stage_2_goes_on_from_stage_1(model: str) -> None:
    one, two = load(f"{model}/cpt_stage1.yaml"), load(f"{model}/cpt_stage2.yaml")
    assert two.model.weights == one.output
    assert two.model.resolve() == one.model.resolve()
    assert two.data.tokenizer == one.data.tokenizer
    assert two.optimizer.lr < one.optimizer.lr


def test_the_small_road_runs_without_a_gpu() -> None:
    for stage in (name for name in WORLDS if name.startswith("tiny/")):
        config = load(stage)
        assert (config.device, config.training.precision) == ("cpu", "fp32")
        assert config.model.resolve().parameters() < 3_000_000
