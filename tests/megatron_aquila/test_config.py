"""Recipes in, checked configurations out: numbers, overrides, and what is said about each mistake."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from data_tools.config_files import _parse
from megatron_aquila.config import RunConfig, check_layout
from megatron_aquila.config_loader import config_hash, dump_config, load_config
from megatron_aquila.errors import ConfigError

RECIPE = """\
name: try
model: {shape: aquila-tiny}
data:
  train:
    - {path: corpus/a, weight: 2}
    - {path: corpus/b}
  sequence_length: 128
  tokenizer: tok
training:
  steps: 1_000
  global_batch_size: 8
optimizer:
  lr: 2e-7
  schedule: {warmup_ratio: 1e-1}
checkpoint: {every: 100, verify: off}
evaluation: {every: 10, batches: 2}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value).splitlines()


def test_numbers_and_words_are_read_as_they_look(recipe: Path) -> None:
    config = load_config(recipe)
    assert config.optimizer.lr == 2e-7  # YAML 1.1: the string "2e-7"
    assert config.training.steps == 1000
    assert config.checkpoint.verify == "off"  # YAML 1.1: False
    assert [corpus.weight for corpus in config.data.train] == [2.0, 1.0]
    assert config.output == Path("runs/try")
    assert config.cache_directory == Path("runs/try/cache")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-1.5E+3", -1500.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("1_000", 1000),
        ("1_000.5", 1000.5),
        ("010", 10),
        ("1_", "1_"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("~", None),
        ("", None),
        ("'7'", "7"),
        ("[1e3, off]", [1000.0, "off"]),
    ],
)
def test_yaml_values(text: str, value: Any) -> None:
    found, _ = _parse(text, "here")
    assert found == value
    assert type(found) is type(value)


def test_overrides_replace_reach_into_lists_and_clear(recipe: Path) -> None:
    config = load_config(
        recipe,
        [
            "optimizer.lr=1e-4",
            "data.train.1.weight=0.5",
            "training.steps=",
            "training.tokens=1e6",
            "parallel.tensor_parallel=2",
            "optimizer.schedule={kind: constant}",
            "data.split=98,2,0",
            "optimizer.lr=3e-4",
        ],
    )
    assert config.optimizer.lr == 3e-4  # the last word counts
    assert [corpus.weight for corpus in config.data.train] == [2.0, 0.5]
    assert config.training.steps is None
    assert config.total_steps == 977  # 1e6 / (8 * 128) = 976.56, rounded up
    assert config.parallel.tensor_parallel == 2  # a section that the file does not have
    assert config.optimizer.schedule.warmup_ratio is None  # a mapping replaces
    assert config.data.split == (98.0, 2.0, 0.0)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer.learning_rate=1", "optimizer.learning_rate is unknown; did you mean optimizer.lr?"),
        ("lr=1", "lr is unknown; did you mean optimizer.lr?"),
        ("parallel.tp=2", "parallel.tp is unknown; did you mean parallel.tensor_parallel?"),
        ("data.seq_length=2", "data.seq_length is unknown; did you mean data.sequence_length?"),
        ("data.train.1.wieght=2", "data.train.1.wieght is unknown; did you mean data.train.1.weight?"),
        ("training.max_steps=2", "training.max_steps is unknown; did you mean training.steps?"),
        ("qqq=2", "qqq is unknown; see `aquila config schema`"),
    ],
)
def test_unknown_key_names_the_nearest(recipe: Path, override: str, expected: str) -> None:
    assert problems(recipe, override) == [f"override: {expected}"]


def test_each_problem_is_one_line_with_its_place(recipe: Path) -> None:
    text = RECIPE.replace("lr: 2e-7", "lr: -1").replace("  tokenizer: tok\n", "").replace("every: 100", "evry: 100")
    recipe.write_text(text, encoding="utf-8")
    assert problems(recipe) == [
        f"{recipe}:3: data.tokenizer is required",
        f"{recipe}:12: optimizer.lr is -1: Input should be greater than 0",
        f"{recipe}:14: checkpoint.every is required",
        f"{recipe}:14: checkpoint.evry is unknown; did you mean checkpoint.every?",
    ]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["training.tokens=5"], "give exactly one of steps, tokens and epochs"),
        (["optimizer.schedule.warmup_steps=5"], "give warmup_ratio or warmup_steps, not both"),
        (["optimizer.schedule.kind=wsd"], "wsd needs decay_ratio or decay_steps above zero"),
        (["optimizer.schedule.decay_steps=5"], "decay_steps belongs to wsd, and kind is cosine"),
        (["optimizer.schedule.min_lr=1e-3"], "schedule.min_lr 0.001 is above lr 2e-07"),
        (["optimizer.schedule.warmup_ratio=1"], "warms up for 1000 of 1000 steps"),
        (["parallel.sequence_parallel=true"], "sequence_parallel needs tensor_parallel above 1"),
        (["parallel.virtual_pipeline=2"], "virtual_pipeline needs pipeline_parallel above 1"),
        (["parallel.overlap_param_gather=true"], "overlap_param_gather needs overlap_grad_reduce"),
        (
            [f"parallel.{key}" for key in ("overlap_param_gather=true", "overlap_grad_reduce=true", "sharding=none")],
            "overlap_param_gather needs sharding optimizer or full",
        ),
        (
            ["parallel.sharding=full", "parallel.pipeline_parallel=2"],
            "sharding full does not go with pipeline_parallel",
        ),
        (["parallel.sharding=full", "training.precision=fp16"], "sharding full does not go with training.precision"),
        (["parallel.sharding=full", "parallel.data_parallel=1"], "among data-parallel replicas, and here is one"),
        (["parallel.sharding=zero3"], "parallel.sharding is 'zero3': Input should be 'none', 'optimizer' or 'full'"),
        (
            ["parallel.tensor_parallel=4"],
            "num_query_groups 2 is not a multiple of parallel.tensor_parallel 4",
        ),
        (["parallel.pipeline_parallel=3"], "num_layers 4 is not a multiple of parallel.pipeline_parallel"),
        (
            ["parallel.data_parallel=3"],
            "global_batch_size 8 is not a multiple of training.micro_batch_size 1 x 3",
        ),
        (
            ["data.sequence_length=4096"],
            "sequence_length 4096 is more than the model's max_position_embeddings 1024",
        ),
        (
            ["data.sequence_length=127", "parallel.tensor_parallel=2", "parallel.sequence_parallel=true"],
            "data.sequence_length 127 is not a multiple of parallel.tensor_parallel 2",
        ),
        (["data.split=100,0,0"], "data.split leaves nothing for validation"),
        (["training.steps=", "training.epochs=2"], "training.epochs is for sft and dpo"),
        (
            ["stage=sft", "training.steps=", "training.tokens=1000000"],
            "training.tokens is for cpt: sft counts samples; give epochs or steps",
        ),
        (["evaluation.batches="], "evaluation.batches must be given for cpt"),
        (["checkpoint.best=true", "evaluation.every=0"], "checkpoint.best needs evaluation.every above 0"),
        (
            ["evaluation.questions=[{name: a, path: a.jsonl}, {name: a, path: b.jsonl}]"],
            "two sets of questions are named a",
        ),
        (
            ["evaluation.questions=[{name: a, path: a.jsonl, shots: 3}]"],
            "name the file they are taken from in examples",
        ),
        (
            ["evaluation.questions=[{name: a, path: a.jsonl, shots: 3, examples: b, form: cloze}]"],
            "a cloze question takes no examples",
        ),
        (["evaluation.questions=[{name: a, path: a.jsonl, examples: b}]"], "examples are given, but shots is 0"),
        (["evaluation.questions=[{name: a/b, path: a.jsonl}]"], "evaluation.questions.0.name is 'a/b'"),
        (["evaluation.questions=[{name: a, path: a.jsonl, form: words}]"], "evaluation.questions.0.form is 'words'"),
        (["evaluation.questions_every=5"], "questions_every is set, but there are no questions"),
        (["evaluation.halt_when_worse=true"], "halt_when_worse needs a set of questions with kind: general"),
        (["preference.loss=ipo", "preference.label_smoothing=0.1"], "label_smoothing has no meaning in the loss ipo"),
        (["preference.loss=orpo", "preference.length_normalised=true"], "which is per token already"),
        (["preference.margin=0.5"], "margin has no meaning in the loss sigmoid"),
        (["preference.loss=simpo", "preference.reference_weights=x"], "the loss simpo has no reference model"),
        (["preference.loss=kto"], "preference.loss is 'kto'"),
        (["preference.label_smoothing=0.5"], "preference.label_smoothing is 0.5"),
        (["model.shape=aquila3-7"], "there is no shape 'aquila3-7'"),
        (["model.shape=from-weights"], "weights must name a Hugging Face directory"),
        (["data.train=[]"], "data.train: "),
        (["name=a/b"], "name is 'a/b'"),
        (["model.shape.hidden_size=64"], "model.shape is 'aquila-tiny', which holds no keys"),
        (["data.train.2.weight=1"], "data.train has 2 entries, numbered from 0; '2' is none"),
        (["optimizer.lr"], "'optimizer.lr' is not an override"),
        (["optimizer.lr={"], "not valid YAML"),
        (["model.weights=hf_abcdefghijklmnopqrst"], "model.weights looks like a secret"),
    ],
)
def test_what_does_not_fit_is_refused(recipe: Path, overrides: list[str], expected: str) -> None:
    found = problems(recipe, *overrides)
    assert expected in found[0], found
    assert len(found) == 1


def test_a_secret_is_not_repeated(recipe: Path) -> None:
    assert "abcdefghijklmnopqrst" not in problems(recipe, "model.weights=hf_abcdefghijklmnopqrst")[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nname: b\n", "line 2: key 'name' was already given in line 1"),
        ("model:\n  a: 1\n  b: [1\n", ":4: not valid YAML"),
        ("- 1\n", "does not hold a mapping"),
        ("", "does not hold a mapping"),
        ("a: !!python/object/apply:os.getcwd []\n", ":1: not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe(recipe: Path, text: str, expected: str) -> None:
    recipe.write_text(text, encoding="utf-8")
    assert expected in problems(recipe)[0]


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.yaml") == [f"{tmp_path}/none.yaml cannot be read: No such file or directory"]
    (tmp_path / "b.yaml").write_bytes(b"name: \xff")
    assert "is not UTF-8" in problems(tmp_path / "b.yaml")[0]


def test_dump_reads_back_equal_here_and_in_any_yaml(recipe: Path, tmp_path: Path) -> None:
    config = load_config(recipe, ["model.weights='off'", "data.tokenizer=词表", "data.cache='1e5'"])
    dumped = tmp_path / "dumped.yaml"
    dumped.write_text(dump_config(config), encoding="utf-8")
    assert load_config(dumped) == config
    assert RunConfig.model_validate(yaml.safe_load(dumped.read_text())) == config  # YAML 1.1's reading


def test_hash_follows_the_values_only(recipe: Path, tmp_path: Path) -> None:
    one = config_hash(load_config(recipe))
    other = tmp_path / "other.yaml"
    other.write_text("# a comment\nseed: 1234\n" + RECIPE.replace("2e-7", "0.0000002"), encoding="utf-8")
    assert config_hash(load_config(other)) == one
    assert config_hash(load_config(other, ["seed=1"])) != one
    assert len(one) == 64


def test_configuration_is_frozen(recipe: Path) -> None:
    config = load_config(recipe)
    with pytest.raises(ValidationError):
        config.training.steps = 5  # type: ignore[misc]


def test_every_key_is_described_in_the_schema() -> None:
    schema = RunConfig.model_json_schema()
    for model in [schema, *schema["$defs"].values()]:
        for name, field in model["properties"].items():
            assert field.get("description"), name
        assert model["additionalProperties"] is False


@pytest.mark.parametrize(
    ("overrides", "world_size", "expected"),
    [
        ([], 4, []),
        ([], 3, ["global_batch_size 8 is not a multiple of training.micro_batch_size 1 x 3"]),
        (["parallel.tensor_parallel=2"], 3, ["3 processes cannot be divided into replicas"]),
        (["parallel.tensor_parallel=2", "parallel.data_parallel=2"], 2, ["needs 4 processes, not 2"]),
        (["parallel.tensor_parallel=2", "parallel.data_parallel=2"], 4, []),
        (["parallel.pipeline_parallel=2", "parallel.virtual_pipeline=2"], 2, []),
        (["parallel.sharding=full", "parallel.tensor_parallel=2"], 4, []),
        (["parallel.sharding=full", "parallel.tensor_parallel=2"], 2, ["set parallel.data_parallel=2 or more"]),
        (
            # three micro-batches through a pipeline of two: the interleaved schedule cannot
            ["parallel.pipeline_parallel=2", "parallel.virtual_pipeline=2", "training.global_batch_size=3"],
            2,
            ["the 3 micro-batches per step"],
        ),
    ],
)
def test_check_layout(recipe: Path, overrides: list[str], world_size: int, expected: list[str]) -> None:
    found = check_layout(load_config(recipe, overrides), world_size)
    assert len(found) == len(expected)
    for sentence, part in zip(found, expected):
        assert part in sentence


def test_shape_from_weights_is_checked_with_the_layout(recipe: Path, tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
    weights = {"model_type": "aquila", "vocab_size": 500, "max_position_embeddings": 128, **sizes}
    (tmp_path / "config.json").write_text(json.dumps(weights))
    overrides = ["model.shape=from-weights", f"model.weights={tmp_path}"]
    config = load_config(recipe, overrides)
    assert config.model.resolve().num_layers == 3
    assert check_layout(config, 1) == []
    two_stages = load_config(recipe, [*overrides, "parallel.pipeline_parallel=2"])
    assert "num_layers 3 is not a multiple" in check_layout(two_stages, 2)[0]
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        check_layout(config, 1)


def test_another_vocabulary_drops_the_ids_of_the_old(recipe: Path) -> None:
    shape = load_config(recipe, ["model.shape=aquila3-7b", "model.vocab_size=3000"]).model.resolve()
    assert (shape.vocab_size, shape.bos_id, shape.eos_id, shape.pad_id) == (3000, None, None, None)
    assert load_config(recipe, ["model.shape=aquila3-7b", "model.vocab_size=151851"]).model.resolve().eos_id == 151850
