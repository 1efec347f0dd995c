"""Log-likelihoods of continuations: transformers' own numbers, on every layout, in packs of any size."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.megatron_aquila.engine.runs import tiny_run
from tests.world import world

VOCAB = 203  # under TP2 each rank has 112 columns, so the second one has padding
_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # so that tokens differ in probability
}
Pair = tuple[list[int], list[int]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("model")
    llama = LlamaForCausalLM(LlamaConfig(**_SIZES, attention_bias=True, tie_word_embeddings=False))
    for name, value in llama.named_parameters():
        if name.endswith("proj.bias"):  # o_proj's must be zero
            torch.nn.init.normal_(value, std=0.0 if "o_proj" in name else 0.3)
    llama.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def llama(model: Path) -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(model).double().eval()


@pytest.fixture(scope="module")
def pairs(llama: Any) -> list[Pair]:
    """Letters after one context, nested continuations, a one-token context, the same twice, lengths up to 60, what the
    model itself would say, to the end and with another last token; and questions after the same examples, the examples
    themselves, what ends within them, what begins with half of them. In any order."""
    draw = random.Random(0)

    def ids(count: int) -> list[int]:
        return [draw.randrange(VOCAB) for _ in range(count)]

    found: list[Pair] = []
    for length in (9, 30, 17):
        context = ids(length)
        found += [(context, [letter]) for letter in range(5, 10)]
        found += [(context, [5, 6, 7]), (context, [5, 6]), (context[:4], context[4:])]
    found += [(ids(1), ids(3)), (ids(1), ids(1)), found[3], (ids(20), ids(40))]
    found += [(ids(draw.randrange(1, 30)), ids(draw.randrange(1, 8))) for _ in range(20)]
    for count in (1, 2, 5):
        tokens = ids(6)
        for _ in range(count):
            with torch.no_grad():
                tokens = [*tokens, int(llama(torch.tensor([tokens])).logits[0, -1].argmax())]
        found += [(tokens[:6], tokens[6:]), (tokens[:6], [*tokens[6:-1], (tokens[-1] + 1) % VOCAB])]
    examples = ids(28)
    for length in (20, 3, 1, 9, 11, 30):
        question = ids(length)
        found += [([*examples, *question], [letter]) for letter in (5, 6)]
        found += [(examples[:26], [*examples[26:], *question, 7]), (examples[:18], [*examples[18:22], *question])]
    found += [(examples, [5]), (examples[:10], examples[10:13]), (examples[:20], examples[20:])]
    draw.shuffle(found)
    return found


@pytest.fixture(scope="module")
def expected(llama: Any, pairs: list[Pair]) -> list[tuple[list[float], bool]]:
    """In float64, a pair at a time."""
    answers = []
    for context, continuation in pairs:
        with torch.no_grad():
            logits_SV = llama(torch.tensor([context + continuation[:-1]])).logits[0, len(context) - 1 :]
        wanted = torch.tensor(continuation)
        logps = logits_SV.log_softmax(-1).gather(1, wanted.unsqueeze(1)).squeeze(1)
        answers.append((logps.tolist(), bool((logits_SV.argmax(-1) == wanted).all())))
    assert sum(greedy for _, greedy in answers) >= 3
    return answers


def scores(directory: str, pairs: list[Pair], pack_tokens: int, wrapped: bool = False, **changes: Any) -> Any:
    """On one rank: `(logp, greedy, token_logps)` a pair, and the chunks' modes before and after."""
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.model import build_model
    from megatron_aquila.engine.optimizer import build_optimizer, gather_parameters, wrap_data_parallel
    from megatron_aquila.engine.parallel import parallel_world
    from megatron_aquila.engine.scoring import TokenRequest, score
    from megatron_aquila.engine.weights import load_weights
    from megatron_aquila.huggingface import HuggingFaceReader

    run = tiny_run(model__shape="from-weights", model__weights=directory, **changes)
    device = choose_device("cpu")
    with parallel_world(run, device) as layout:
        reader = HuggingFaceReader(Path(directory))
        chunks, config = build_model(run, reader.shape, device)
        load_weights(chunks, reader.shape, layout, reader)
        if wrapped:
            chunks = wrap_data_parallel(run, config, chunks)
            build_optimizer(run, config, chunks)
            gather_parameters(chunks)
        for chunk in chunks:
            chunk.train(wrapped)
        requests = [TokenRequest(*pair) for pair in pairs]
        found = score(chunks, requests, layout=layout, device=device, pack_tokens=pack_tokens)
        assert all(chunk.training is wrapped for chunk in chunks)
        assert score(chunks, [], layout=layout, device=device, pack_tokens=8) == []
        with pytest.raises(ValueError, match="request 1 has a token that is outside the vocabulary of 203"):
            score(chunks, [requests[0], TokenRequest([1], [VOCAB])], layout=layout, device=device, pack_tokens=8)
        with pytest.raises(ValueError, match="request 0 needs at least one token of context"):
            score(chunks, [TokenRequest([], [1])], layout=layout, device=device, pack_tokens=8)
    return [(each.logp, each.greedy, each.token_logps) for each in found]


_SEQUENCE = {"parallel__tensor_parallel": 2, "parallel__sequence_parallel": True}
LAYOUTS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "one rank": (1, 4096, {}),
    "one rank, logits row by row": (1, 100, {"training__logits_mib": 0}),
    "one rank, a document a pack": (1, 1, {}),
    "TP2 SP": (2, 128, _SEQUENCE),
    "DP2 wrapped": (2, 4096, {"wrapped": True}),
    "DP2 fully sharded": (2, 70, {"wrapped": True, "parallel__sharding": "full"}),
    "PP2 VPP2 wrapped": (2, 90, {"wrapped": True, "parallel__pipeline_parallel": 2, "parallel__virtual_pipeline": 2}),
    "TP2 SP PP2": (4, 110, {**_SEQUENCE, "parallel__pipeline_parallel": 2}),
    "PP2 DP2": (4, 150, {"parallel__pipeline_parallel": 2, "parallel__data_parallel": 2}),
    "PP2 CP2 wrapped": (4, 130, {"wrapped": True, "parallel__pipeline_parallel": 2, "parallel__context_parallel": 2}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_scores_are_those_of_transformers(
    name: str, model: Path, pairs: list[Pair], expected: list[tuple[list[float], bool]]
) -> None:
    size, pack_tokens, changes = LAYOUTS[name]
    results = world(size, scores, directory=str(model), pairs=pairs, pack_tokens=pack_tokens, **changes)
    for found in results:
        assert found == results[0]
    for (logp, greedy, token_logps), (wanted, wanted_greedy) in zip(results[0], expected, strict=True):
        assert token_logps == pytest.approx(wanted, abs=2e-5)
        assert logp == pytest.approx(math.fsum(token_logps), abs=1e-10)
        assert greedy is wanted_greedy


def rows(sequence_parallel: bool) -> list[list[float]]:
    """`score_rows` on two ranks, equal logits on both and within one; the second rank has one token and padding."""
    import torch.distributed as dist

    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.scored_rows import Questions, score_rows

    choose_device("cpu")
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    # Logits of a hidden state h [1]: h times the column of weights; ids 0 … 4, and three columns of padding.
    weight = torch.tensor([[1.0], [3.0], [3.0], [0.0], [3.0], [9.0], [9.0], [9.0]])[4 * rank : 4 * rank + 4]
    hidden = torch.tensor([[1.0], [-1.0], [0.0], [2.0]])
    if sequence_parallel:
        hidden = hidden[2 * rank : 2 * rank + 2]
    asked = Questions(
        rows=torch.tensor([0, 1, 2]),
        row_of=torch.tensor([0, 0, 0, 1, 2, 2]),
        tokens=torch.tensor([1, 2, 4, 3, 0, 4]),
        starts=[0, 3, 4, 6],
    )
    with torch.no_grad():
        found = score_rows(
            hidden,
            weight,
            asked,
            vocab_size=5,
            group=dist.group.WORLD,
            sequence_parallel=sequence_parallel,
            budget_bytes=0,
        )
    dist.destroy_process_group()
    return found.tolist()


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_of_equal_logits_the_lowest_id_is_greedy(sequence_parallel: bool) -> None:
    logits = torch.tensor([1.0, 3.0, 3.0, 0.0, 3.0], dtype=torch.float64)
    logps = [(h * logits).log_softmax(0) for h in (1.0, -1.0, 0.0)]
    wanted = [logps[0][1], logps[0][2], logps[0][4], logps[1][3], logps[2][0], logps[2][4]]
    for found in world(2, rows, sequence_parallel=sequence_parallel):
        assert found[0] == pytest.approx([float(value) for value in wanted], abs=1e-6)
        assert found[1] == [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]


def test_letters_and_shorter_answers_share_a_forward() -> None:
    from megatron_aquila.engine.scored_packs import TokenRequest, _documents

    context = [7, 300, 9]
    requests = [TokenRequest(context, [letter]) for letter in (1, 2, 3)]
    requests += [TokenRequest(context, [1, 2]), TokenRequest(context[:2], [9]), TokenRequest([7, 44], [1])]
    documents = {tuple(each.tokens.tolist()): sorted(each.requests) for each in _documents(requests)}
    assert documents == {(7, 300, 9, 1): [0, 1, 2, 3, 4], (7, 44): [5]}


@pytest.mark.parametrize(("pack_tokens", "share", "lengths"), [
    (1000, True, [20 + 6 * 3 + 5]),  # the examples once, each question, and what begins otherwise
    (30, True, [20 + 3 * 3, 20 + 3 * 3, 5]),
    (10, True, [23] * 6 + [5]),  # less than the examples: a question a pack, nothing to share
    (1000, False, [6 * 23 + 5]),
])  # fmt: skip
def test_examples_stand_in_a_pack_once(pack_tokens: int, share: bool, lengths: list[int]) -> None:
    from megatron_aquila.engine.parallel import Layout
    from megatron_aquila.engine.scored_packs import TokenRequest, packs_of

    requests = [TokenRequest([*range(20), 50 + number, 1, 2], [letter]) for number in range(6) for letter in (8, 9)]
    requests.append(TokenRequest([9] * 5, [1]))
    packs = packs_of(requests, Layout(1, 0, 1, 0, 1, 0, 1, 0, 1), pack_tokens, share=share)
    assert sorted(len(each.tokens) for each in packs) == sorted(lengths)
    for each in packs:
        for row, target in zip(each.rows[each.row_of], each.targets, strict=True):
            assert each.positions[row] == {8: 22, 9: 22, 1: 4}[int(target)]
    assert sorted(number for each in packs for number in each.requests) == list(range(13))


def test_of_nested_beginnings_the_best_ones_are_shared() -> None:
    """Against the best of all partitions into groups, on sets where it is within reach."""
    from megatron_aquila.engine.prefixes import SHORTEST, shared_prefixes

    def common(rows: list[list[int]]) -> int:
        return next(place for place, ids in enumerate(zip(*rows)) if len(set(ids)) > 1)

    def best(rows: list[list[int]]) -> int:
        if not rows:
            return 0
        first, *others = rows
        found = best(others)
        for size in range(1, len(others) + 1):
            for chosen in itertools.combinations(others, size):
                depth = common([first, *chosen])
                left = [row for row in others if row not in chosen]
                found = max(found, (depth * size if depth >= SHORTEST else 0) + best(left))
        return found

    draw = random.Random(1)
    some_shared = 0
    for _ in range(60):
        rows = sorted(
            [block for _ in range(3) for block in [draw.randrange(2)] * draw.choice((7, 12, 20))] + [100 + number]
            for number in range(draw.randint(1, 5))
        )
        groups = shared_prefixes([np.array(row) for row in rows])
        members = [number for _, numbers in groups for number in numbers]
        assert len(members) == len(set(members))
        for depth, numbers in groups:
            assert depth >= SHORTEST and common([rows[number] for number in numbers]) >= depth
        assert sum(depth * (len(numbers) - 1) for depth, numbers in groups) == best(rows)
        some_shared += bool(groups)
    assert 20 < some_shared < 60
