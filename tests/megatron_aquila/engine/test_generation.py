"""Generation with a cache against transformers, which computes every token anew in float64."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data_tools.one_thread import one_thread  # noqa: F401 (a fixture)
from tests.megatron_aquila.engine.runs import Engine, tiny_run
from tests.world import world

VOCAB = 203
MODELS: dict[str, dict[str, Any]] = {
    # heads of another width than hidden / heads; padding of the vocabulary on every layout: 203 tokens
    "GQA": {"num_key_value_heads": 2, "attention_bias": True, "head_dim": 24},
    "MHA": {
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 20000.0},
    },
}
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "TP2": (2, {"parallel__tensor_parallel": 2}),
    "TP2+SP": (2, {"parallel__tensor_parallel": 2, "parallel__sequence_parallel": True}),
    "PP2": (2, {"parallel__pipeline_parallel": 2}),
    "DP2": (2, {}),
    "CP2": (2, {"parallel__context_parallel": 2}),
    "TP2+SP, PP2": (
        4,
        {
            "parallel__tensor_parallel": 2,
            "parallel__sequence_parallel": True,
            "parallel__pipeline_parallel": 2,
        },
    ),
}
LENGTHS = (1, 40, 3, 17, 2, 9, 30, 5)
NEW_TOKENS = (12, 7, 1, 12, 12, 9, 12, 3)
ENDS = frozenset({5, 77, 140, 31, 18, 99, 160, 44})


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, VOCAB, (length,), generator=generator).tolist() for length in LENGTHS]


def ends_with_multiple(_: int, ids: list[int]) -> bool:
    """As a stop string would be: by what the last tokens are together."""
    return len(ids) >= 3 and (ids[-1] + ids[-2]) % 5 == 0


def generated(directory: str, **changes: Any) -> dict[str, list[list[int]]]:
    """What each rank gets from several calls on one model."""
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.generation import Decoding, generate
    from megatron_aquila.engine.parallel import parallel_world

    run = tiny_run(model__shape="from-weights", model__weights=directory, **changes)
    device = choose_device("cpu")
    with parallel_world(run, device) as layout:
        chunk = loaded(run, directory, layout, device)
        chunk.train()

        def call(batch_size: int, stop: Any = None, members: Sequence[int] = range(8), **how: Any) -> list[list[int]]:
            asked = [prompts()[i] for i in members]
            decoding = [Decoding(NEW_TOKENS[i], **{"stop_ids": ENDS, **how}) for i in members]
            return generate([chunk], asked, decoding, layout=layout, device=device, batch_size=batch_size, stop=stop)

        drawing = {"temperature": 1.3, "top_p": 0.9, "top_k": 50, "seed": 11}
        found = {
            "ended": call(3),
            "stopped": call(7, stop=ends_with_multiple if layout.is_main else None, stop_ids=frozenset()),
            "drawn": call(7, **drawing),
        }
        if layout.world_size == 1:
            found["ended, one by one"] = call(1)
            found["ended, all at once"] = call(8)
            found["whole"] = call(7, stop_ids=frozenset())
            found["drawn, two at a time"] = call(2, **drawing)
            found["drawn, one of them"] = call(1, members=[3], **drawing)
            found["none"] = call(1, members=[])
        assert all(module.training for module in chunk.modules()), "the mode has changed"
    return found


def loaded(run: Any, directory: str, layout: Any, device: torch.device) -> torch.nn.Module:
    from megatron_aquila.engine.model import build_model
    from megatron_aquila.engine.optimizer import wrap_data_parallel
    from megatron_aquila.engine.weights import load_weights
    from megatron_aquila.huggingface import HuggingFaceReader

    reader = HuggingFaceReader(Path(directory))
    chunks, config = build_model(run, reader.shape, device)
    load_weights(chunks, reader.shape, layout, reader)
    return chunks[0] if layout.data_size == 1 else wrap_data_parallel(run, config, chunks)[0]


Model = tuple[str, torch.nn.Module]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """By name the directory of a random model that does not repeat itself, and its float64 in transformers."""
    return {name: _random_llama(tmp_path_factory.mktemp("model"), changes) for name, changes in MODELS.items()}


def _random_llama(directory: Path, changes: dict[str, Any]) -> Model:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    shape = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "vocab_size": VOCAB,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.2,
    }
    built = LlamaForCausalLM(LlamaConfig(**{**shape, **changes})).eval()
    for name, parameter in built.named_parameters():
        if name.endswith(("q_proj.bias", "k_proj.bias", "v_proj.bias")):
            torch.nn.init.normal_(parameter, 0.0, 0.5)
    built.save_pretrained(directory)
    return str(directory), built.double()


def next_logits(model: torch.nn.Module, ids: Sequence[int]) -> torch.Tensor:
    """Float64 logits `[VOCAB]` of the token after `ids`, without a cache."""
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([list(ids)]), use_cache=False).logits[0, -1]
    return logits


def greedy(model: torch.nn.Module) -> list[list[int]]:
    answers = []
    for prompt, limit in zip(prompts(), NEW_TOKENS):
        ids: list[int] = []
        while len(ids) < limit:
            ids.append(int(next_logits(model, prompt + ids).argmax()))
        answers.append(ids)
    return answers


def until_end(ids: list[int]) -> list[int]:
    return ids[: next((place for place, token in enumerate(ids) if token in ENDS), len(ids))]


def until_stop(ids: list[int]) -> list[int]:
    return next((ids[:end] for end in range(len(ids)) if ends_with_multiple(0, ids[:end])), ids)


def draws(model: torch.nn.Module) -> list[list[int]]:
    """The same draws with transformers' own rules and the inverse of the cumulated probabilities, token by token."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    from megatron_aquila.engine.sampling import uniform

    answers = []
    for prompt, limit in zip(prompts(), NEW_TOKENS):
        ids: list[int] = []
        while len(ids) < limit:
            scores = next_logits(model, prompt + ids).unsqueeze(0)
            for warper in (TemperatureLogitsWarper(1.3), TopKLogitsWarper(50), TopPLogitsWarper(0.9)):
                scores = warper(None, scores)
            share = uniform(11, prompt, len(ids))
            cumulated = 0.0
            for token, probability in enumerate(scores[0].softmax(0).tolist()):  # noqa: B007 - read after the loop
                cumulated += probability
                if cumulated > share:
                    break
            if token in ENDS:
                break
            ids.append(token)
        answers.append(ids)
    return answers


@pytest.fixture(scope="module")
def expected(models: dict[str, Model]) -> dict[str, dict[str, list[list[int]]]]:
    return {name: expected_answers(model) for name, (_, model) in models.items()}


def expected_answers(model: torch.nn.Module) -> dict[str, list[list[int]]]:
    whole = greedy(model)
    ended, stopped = [until_end(ids) for ids in whole], [until_stop(ids) for ids in whole]
    assert ended != whole and stopped != whole, "nothing ends an answer"
    assert len({token for ids in whole for token in ids}) > 25, "the answers repeat themselves"
    drawn = draws(model)
    return {
        "ended": ended,
        "stopped": stopped,
        "drawn": drawn,
        "ended, one by one": ended,
        "ended, all at once": ended,
        "whole": whole,
        "drawn, two at a time": drawn,
        "drawn, one of them": [drawn[3]],
        "none": [],
    }


@pytest.mark.parametrize(
    ("name", "layout"), [*(("GQA", layout) for layout in LAYOUTS), ("MHA", "one"), ("MHA", "TP2+SP, PP2")]
)
def test_every_layout_and_batch_answers_as_transformers(
    name: str, layout: str, models: dict[str, Model], expected: dict[str, dict[str, list[list[int]]]]
) -> None:
    size, changes = LAYOUTS[layout]
    for found in world(size, generated, directory=models[name][0], **changes):
        assert found == {key: expected[name][key] for key in found}
        assert len(found) == (9 if size == 1 else 3)


def cached_logits(directory: str) -> tuple[list[list[int]], list[Any]]:
    """Six tokens of every answer, and the logits `[8, vocabulary]` that each was chosen from, longest prompt first."""
    from megatron_aquila.engine import generation
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.parallel import parallel_world

    run = tiny_run(model__shape="from-weights", model__weights=directory)
    device = choose_device("cpu")
    with parallel_world(run, device) as layout, pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "_PREFILL_TOKENS", 50)  # several forwards for the prompts
        chunk = loaded(run, directory, layout, device)
        steps: list[Any] = []
        chunk.register_forward_hook(lambda *call: steps.append(call[2].numpy()))
        answers = generation.generate(
            [chunk], prompts(), [generation.Decoding(6)] * 8, layout=layout, device=device, batch_size=8
        )
    return answers, steps


@pytest.mark.parametrize("name", MODELS)
def test_logits_through_the_cache_are_those_without(name: str, models: dict[str, Model]) -> None:
    model = models[name]
    [(answers, steps)] = world(1, cached_logits, directory=model[0])
    prefills = len(steps) - 5
    assert prefills > 1, "all prompts were one forward"
    by_step = [np.concatenate(steps[:prefills]), *steps[prefills:]]
    longest_first = sorted(range(8), key=lambda index: -LENGTHS[index])
    for step, logits in enumerate(by_step):
        assert logits.shape[0] == 8
        for row, index in enumerate(longest_first):
            wanted = next_logits(model[1], prompts()[index] + answers[index][:step]).numpy()
            assert abs(logits[row, :VOCAB] - wanted).max() < 1e-5 * abs(wanted).max()


def test_bf16_is_the_same_through_a_pipeline(models: dict[str, Model]) -> None:
    changes = {"directory": models["GQA"][0], "training__precision": "bf16"}
    [one] = world(1, generated, **changes)
    for found in world(2, generated, parallel__pipeline_parallel=2, **changes):
        assert found == {key: one[key] for key in found}


def refusals(directory: str) -> dict[str, str]:
    """Message by what was wrong."""
    from dataclasses import replace

    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.generation import Decoding, GenerationError, generate
    from megatron_aquila.engine.model import bare
    from megatron_aquila.engine.parallel import parallel_world

    run = tiny_run(model__shape="from-weights", model__weights=directory)
    device = choose_device("cpu")
    messages = {}
    with parallel_world(run, device) as layout:
        chunk = loaded(run, directory, layout, device)

        def call(what: str, **changes: Any) -> None:
            one = {"prompts": [[1]], "decoding": [Decoding(2)], "layout": layout, "device": device, "batch_size": 1}
            try:
                generate([chunk], **{**one, **changes})
            except (GenerationError, ValueError) as error:
                messages[what] = str(error)

        call("empty", prompts=[[]])
        call("vocabulary", prompts=[[1, VOCAB]])
        call("number", prompts=[[1], [2]])
        call("batch", batch_size=0)
        call("virtual", layout=replace(layout, virtual_size=2))
        attention = bare(chunk).decoder.layers[0].self_attention
        attention.core_attention = torch.nn.Identity()
        call("layers")
    return messages


def test_what_cannot_be_done_is_refused(models: dict[str, Model]) -> None:
    [messages] = world(1, refusals, directory=models["GQA"][0])
    assert messages.keys() == {"empty", "vocabulary", "number", "batch", "virtual", "layers"}
    assert messages["empty"].startswith("prompt 0 is empty")
    assert messages["vocabulary"] == "prompt 0 has a token outside the vocabulary of 203"
    assert messages["number"].startswith("2 prompts have 1 decodings")
    assert "open the model without one" in messages["virtual"]


def broken(directory: str, **changes: Any) -> str:
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.generation import Decoding, GenerationError, generate
    from megatron_aquila.engine.parallel import parallel_world

    run = tiny_run(model__shape="from-weights", model__weights=directory, **changes)
    device = choose_device("cpu")
    with parallel_world(run, device) as layout:
        chunk = loaded(run, directory, layout, device)
        if layout.rank == 0:  # a weight of the first token's way only
            with torch.no_grad():
                chunk.get_parameter("embedding.word_embeddings.weight")[prompts()[4][1]] = torch.nan
        with pytest.raises(GenerationError) as caught:
            generate([chunk], prompts(), [Decoding(3)] * 8, layout=layout, device=device, batch_size=3)
        return str(caught.value)


def test_logits_that_are_no_numbers_are_refused_on_every_rank(models: dict[str, Model]) -> None:
    messages = world(2, broken, directory=models["GQA"][0], parallel__pipeline_parallel=2)
    assert messages[0] == messages[1]
    found = re.match(r"after (\d+) tokens of the answer to prompt (\d) the model's logits are not finite", messages[0])
    assert found and int(found[2]) <= 4


def fully_sharded() -> str:
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.generation import Decoding, GenerationError, generate
    from megatron_aquila.engine.optimizer import gather_parameters
    from megatron_aquila.engine.parallel import parallel_world

    run = tiny_run(parallel__sharding="full")
    device = choose_device("cpu")
    with parallel_world(run, device) as layout:
        engine = Engine(run, layout)
        with pytest.raises(GenerationError) as caught:
            generate(engine.chunks, [[1]], [Decoding(2)], layout=layout, device=device, batch_size=1)
        gather_parameters(engine.chunks)
        return str(caught.value)


def test_fully_sharded_weights_are_refused() -> None:
    for message in world(2, fully_sharded):
        assert message.startswith("answers cannot be written by fully sharded weights")
