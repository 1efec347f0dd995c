"""Our fine-tuning against TRL's on one small model: loss, rewards, margins, gradient norm, on several layouts.

The whole road is ours: records are rendered and indexed, read by the stage, packed or not, run through Megatron on one
rank or two, from a model in Hugging Face's layout; the reference's log-probs come from the stage's own pass. The oracle
(`trl_oracle.py`) reads token ids from the index and nothing else.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from data_tools.indexed import IndexedReader
from data_tools.indexing import IndexOptions, build_index
from data_tools.manifest import loss_mask_prefix
from data_tools.tokenizer_training import train_from_texts
from megatron_aquila.config import RunConfig
from tests.megatron_aquila import trl_oracle
from tests.megatron_aquila.trl_oracle import CASES, LOGPS, METRICS, VOCAB_SIZE, Pair
from tests.world import world

WORDS = ["fever", "cough", "rest", "dose", "pain", "daily", "water", "heart", "slow", "walk", "发热", "咳嗽", "休息"]
PAIRS, DIALOGUES = 8, 9
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one rank": (1, {}),
    "TP2": (2, {"tensor_parallel": 2}),
    "PP2": (2, {"pipeline_parallel": 2}),
}
PACKINGS = {"packed": (True, 1), "unpacked": (False, 1), "unpacked, two at a time": (False, 2)}
# What is in a micro-batch is dealt with before any rank sees it: one layout shows every packing.
RUNS = [(layout, packing) for layout in LAYOUTS for packing in PACKINGS if layout == "one rank" or packing == "packed"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, a tokenizer, indexed pairs and dialogues."""
    directory = tmp_path_factory.mktemp("trl")
    rng = random.Random(0)

    def message(role: str, longest: int) -> dict[str, str]:
        return {"role": role, "content": " ".join(rng.choices(WORDS, k=rng.randint(1, longest)))}

    texts = [" ".join(rng.choices(WORDS, k=30)) for _ in range(60)] + ["user assistant"]
    controls = ["<|im_start|>", "<|im_end|>"]
    train_from_texts(texts, directory / "tokenizer", vocab_size=VOCAB_SIZE, control_tokens=controls)
    pairs = [
        {
            "id": str(number),
            "prompt": [message("user", 4)],
            "chosen": [message("assistant", 5)],
            "rejected": [message("assistant", 5)],
        }
        for number in range(PAIRS)
    ]
    dialogues = [
        {
            "id": str(number),
            "messages": [message(role, 4) for _ in range(1 + number % 3) for role in ("user", "assistant")],
        }
        for number in range(DIALOGUES)
    ]
    for kind, records in (("pairs", pairs), ("dialogues", dialogues)):
        source = directory / f"{kind}.jsonl"
        source.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        options = IndexOptions(kind=kind, template="chatml", max_length=None)
        build_index([str(source)], directory / "tokenizer", directory / kind, options)
    model = trl_oracle.random_model()
    model.save_pretrained(directory / "model")
    trl_oracle.nearby(model).save_pretrained(directory / "reference")
    return directory


def sequences(prefix: Path) -> list[list[tuple[list[int], list[int]]]]:
    """The documents of an index: tokens and masks of their sequences."""
    tokens, masks = IndexedReader(prefix), IndexedReader(loss_mask_prefix(prefix))
    return [
        [(ids.tolist(), mask.tolist()) for ids, mask in zip(tokens.document(number), masks.document(number))]
        for number in range(tokens.documents)
    ]


def as_pair(document: list[tuple[list[int], list[int]]]) -> Pair:
    """Prompt and answers, without what follows the closing token: nothing is trained there, and nothing sees it."""
    (chosen, mask), (rejected, other) = document
    prompt = mask.index(1)
    assert chosen[:prompt] == rejected[:prompt] and other.index(1) == prompt
    return Pair(chosen[:prompt], chosen[prompt : prompt + sum(mask)], rejected[prompt : prompt + sum(other)])


@pytest.fixture(scope="module")
def preference_oracle(place: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    model = trl_oracle.random_model()
    pairs = [as_pair(document) for document in sequences(place / "pairs")]
    assert len(pairs) == PAIRS
    return trl_oracle.preference_figures(model, trl_oracle.nearby(model), pairs, tmp_path_factory.mktemp("trainer"))


@pytest.fixture(scope="module")
def supervised_oracle(place: Path) -> dict[str, float]:
    samples = [document[0] for document in sequences(place / "dialogues")]
    assert len(samples) == DIALOGUES
    return trl_oracle.supervised_figures(trl_oracle.random_model(), samples)


def recipe(place: str, stage: str, packing: tuple[bool, int], parallel: dict[str, Any], **preference: Any) -> RunConfig:
    """One step of all samples, with a learning rate that moves no weight."""
    packed, micro_batch_size = packing
    kind, samples = ("pairs", PAIRS) if stage == "dpo" else ("dialogues", DIALOGUES)
    tree = {
        "name": "agreement",
        "stage": stage,
        "device": "cpu",
        "output": f"{place}/run",
        "model": {"shape": "from-weights", "weights": f"{place}/model", "vocab_divisible_by": 16},
        "data": {
            "train": [{"path": f"{place}/{kind}"}],
            "split": [1, 0, 0],
            "sequence_length": 160,
            "packing": packed,
            "tokenizer": f"{place}/tokenizer",
        },
        "parallel": parallel,
        "training": {
            "steps": 1,
            "global_batch_size": samples,
            "micro_batch_size": micro_batch_size,
            "precision": "fp32",
        },
        "optimizer": {"lr": 1e-30, "clip_grad": 0.0, "weight_decay": 0.0, "schedule": {"kind": "constant"}},
        "checkpoint": {"every": 1000},
        "evaluation": {"every": 0},
        "preference": preference,
    }
    return RunConfig.model_validate(tree)


def figures(place: str, stage: str, packing: tuple[bool, int], parallel: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Loss, metrics and gradient norm by case, from one model: the weights do not move."""
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.model import build_model
    from megatron_aquila.engine.optimizer import build_optimizer, set_learning_rate, wrap_data_parallel
    from megatron_aquila.engine.parallel import parallel_world
    from megatron_aquila.engine.step import apply_update, clear_gradients, run_schedule
    from megatron_aquila.engine.weights import load_weights
    from megatron_aquila.initial_weights import open_weights
    from megatron_aquila.resilience.signals import StopSignals
    from megatron_aquila.stages import load_stage
    from megatron_aquila.start import Preparation

    cases = {name: case.ours for name, case in CASES.items()} if stage == "dpo" else {"sft": {}}
    found = {}
    device = choose_device("cpu")
    first = recipe(place, stage, packing, parallel)
    with parallel_world(first, device) as layout:
        shape = load_stage(stage)(first).shape
        chunks, config = build_model(first, shape, device)
        stages = {}
        for name, preference in cases.items():
            if stage == "dpo" and preference["loss"] not in ("simpo", "orpo"):
                preference = {**preference, "reference_weights": f"{place}/reference"}
            run = recipe(place, stage, packing, parallel, **preference)
            stages[name] = load_stage(stage)(run)
            stages[name].prepare(Preparation(run, shape, chunks, layout, device, StopSignals()))
        weights = open_weights(first, first.model.weights, shape, layout)
        load_weights(chunks, shape, layout, weights.reader, weights.prefix)
        chunks = wrap_data_parallel(first, config, chunks)
        optimizer = build_optimizer(first, config, chunks)
        set_learning_rate(optimizer, first.optimizer.lr)
        for name, trained in stages.items():
            data: Any = trained.datasets()[0]
            packs = data.step(0)
            assert len(packs) < len(data.members) if packing[0] else len(packs) == len(data.members)
            rows = layout.deal(packs, packing[1])
            clear_gradients(chunks, optimizer)
            report = run_schedule(
                chunks,
                [trained.collate([data[row] for row in micro_batch]) for micro_batch in rows],
                trained.loss,
                metric_names=trained.metric_names,
                device=device,
                forward_only=False,
            )
            found[name] = {**report.means, "grad_norm": apply_update(optimizer).grad_norm}
    return found


@pytest.mark.parametrize(("layout", "packing"), RUNS)
def test_every_loss_equals_trl(
    layout: str, packing: str, place: Path, preference_oracle: dict[str, dict[str, float]]
) -> None:
    size, parallel = LAYOUTS[layout]
    for found in world(size, figures, place=str(place), stage="dpo", packing=PACKINGS[packing], parallel=parallel):
        assert found.keys() == preference_oracle.keys()
        for case, expected in preference_oracle.items():
            for name, value in expected.items():
                assert found[case][name] == pytest.approx(value, rel=1e-5, abs=1e-5), f"{case}: {name}"


@pytest.mark.parametrize(("layout", "packing"), RUNS)
def test_supervised_fine_tuning_equals_transformers(
    layout: str, packing: str, place: Path, supervised_oracle: dict[str, float]
) -> None:
    size, parallel = LAYOUTS[layout]
    for found in world(size, figures, place=str(place), stage="sft", packing=PACKINGS[packing], parallel=parallel):
        assert found["sft"] == pytest.approx(supervised_oracle, rel=1e-5, abs=1e-6)


def test_the_cases_are_worth_comparing(preference_oracle: dict[str, dict[str, float]]) -> None:
    """Policy and reference differ, some pairs are won and some lost, and no two losses are alike."""
    for name, values in preference_oracle.items():
        assert set(values) >= {"loss", "grad_norm", *METRICS}
        assert abs(values["rewards/margins"]) > 1e-2, name
        assert 0 < values["rewards/accuracies"] < 1, name
        assert (LOGPS[0] in values) == (CASES[name].ours["loss"] not in ("simpo", "orpo"))
    assert len({round(values["loss"], 4) for values in preference_oracle.values()}) == len(CASES)
    assert len({round(values["grad_norm"], 4) for values in preference_oracle.values()}) == len(CASES)
