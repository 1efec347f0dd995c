"""Which token comes next: transformers' rules, exact shares of draws, ties and padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from megatron_aquila.engine.sampling import Decoding, drawn, largest, narrowed, uniform, whole_vocabulary
from megatron_aquila.kernels.token_logps import Shard


def test_of_equal_logits_the_lowest_id_and_never_padding() -> None:
    logits = torch.tensor([[0.0, 3, 3, 9], [-5, -5, -6, 0], [1, torch.nan, 2, 0], [-torch.inf] * 4])
    assert largest(logits, Shard(4, 3)).tolist() == [1, 0, -1, -1]
    assert largest(logits, Shard(4, 4)).tolist() == [3, 3, -1, -1]
    assert whole_vocabulary(logits.bfloat16(), Shard(4, 3))[0].tolist() == [0, 3, 3]


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0.7},
        {"temperature": 1.0, "top_k": 5},
        {"temperature": 1.0, "top_k": 500},
        {"temperature": 2.5, "top_p": 0.8},
        {"temperature": 1.0, "top_p": 0.01},
        {"temperature": 1.2, "top_k": 20, "top_p": 0.6},
    ],
)
def test_tokens_to_draw_from_are_those_of_transformers(how: dict[str, Any]) -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = 3 * torch.randn(16, 101, generator=torch.Generator().manual_seed(2))
    logits[:, 7] = logits[:, 9]  # equal ones
    logits[3, :10] = logits[3].max()
    wanted = TemperatureLogitsWarper(how["temperature"])(None, logits)
    if "top_k" in how:
        wanted = TopKLogitsWarper(how["top_k"])(None, wanted)
    if "top_p" in how:
        wanted = TopPLogitsWarper(how["top_p"])(None, wanted)
    assert torch.equal(narrowed(logits, Decoding(1, **how)), wanted)


def test_shares_of_draws_are_the_probabilities() -> None:
    logits = torch.tensor([0.3, -torch.inf, 2.0, -1.5, -torch.inf, 0.9, -torch.inf])
    count = 10_000
    grid = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    shares = torch.bincount(drawn(logits.expand(count, -1), grid), minlength=7) / count
    assert shares[logits == -torch.inf].sum() == 0
    assert (shares - logits.double().softmax(0)).abs().max() <= 1 / count
    ends = torch.tensor([0.0, 1 - 2**-52], dtype=torch.float64)
    assert drawn(logits.expand(2, -1), ends).tolist() == [0, 5]


def test_numbers_are_uniform_and_of_their_own_sequence() -> None:
    numbers = [uniform(seed, [3, 5], place) for seed in range(40) for place in range(50)]
    assert len(set(numbers)) == 2000
    assert stats.kstest(numbers, "uniform").pvalue > 0.01
    neighbours = np.array(numbers).reshape(40, 50)
    assert abs(np.corrcoef(neighbours[:, :-1].ravel(), neighbours[:, 1:].ravel())[0, 1]) < 0.05
    assert uniform(0, [3, 5], 1) != uniform(0, [3], 1) != uniform(0, [5, 3], 1)
    assert uniform(0, (3, 5), 1) == uniform(0, [3, 5], 1)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_k": -1}, "top_k is -1"),
    ],
)
def test_values_without_a_meaning_are_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoding(**{"max_new_tokens": 4, **how})
