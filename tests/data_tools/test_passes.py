"""The shapes of forward passes, by hand and beside what they are for."""

import random

import numpy as np
import pytest

from data_tools.passes import Pass, padded, passes


def shaped(lengths: list[int], **settings: object) -> list[Pass]:
    """Passes of rows whose ids tell row and place; what they hold is checked."""
    rows = [np.arange(length) + 10_000 * (place + 1) for place, length in enumerate(lengths)]
    found = list(passes(rows, **settings))  # type: ignore[arg-type]
    assert sorted(place for each in found for place in each.places) == list(range(len(rows)))
    for each in found:
        assert each.ids_RT.dtype == np.int64
        for number, row in enumerate(each.ids_RT):
            expected = rows[each.places[number]] if number < len(each.places) else [0]
            assert each.lengths_R[number] == len(expected)
            assert row[: len(expected)].tolist() == list(expected)
            assert not row[len(expected) :].any()
    return found


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
@pytest.mark.parametrize("at_most", [1, 100, 512, 4096])
def test_the_shape_of_a_row_is_decided_by_its_length_alone(device: str, at_most: int) -> None:
    draw = random.Random(0)
    lengths = [draw.randint(1, 700) for _ in range(300)] + [1, 16, 17, 64, 65, 256, 257, 700, 700]
    settings = {"at_most": at_most, "longest": 700, "device": device}
    together = {place: each.ids_RT.shape for each in shaped(lengths, **settings) for place in each.places}
    for place, length in enumerate(lengths):
        (alone,) = shaped([length], **settings)
        size, long = alone.ids_RT.shape
        assert together[place] == (size, long)
        assert size == 1 or size * long <= at_most
        assert long <= min(700, max(length + 15, length * 1.25))
        if device == "cpu" and size == 1:
            assert long == length, "alone, it needs no padding"


def test_passes_are_filled_up() -> None:
    found = shaped([33, 48, 40, 200, 300, 34, 47, 46, 45, 44, 43, 300, 35], at_most=4096, longest=2048, device="cpu")
    assert [each.ids_RT.shape for each in found] == [(10, 48), (2, 224), (1, 300), (1, 300)], "of 512 tokens on a CPU"
    assert [each.places for each in found] == [[0, 1, 2, 5, 6, 7, 8, 9, 10, 12], [3], [4], [11]]
    found = shaped([33, 300], at_most=640, longest=310, device="cuda:0")
    assert [each.ids_RT.shape for each in found] == [(13, 48), (2, 310)]
    assert shaped([], at_most=512, longest=64, device="cpu") == []


def test_padded_lengths_are_few() -> None:
    lengths = [1, 16, 17, 64, 65, 128, 129, 256, 257, 320, 1025]
    assert [padded(length) for length in lengths] == [16, 16, 32, 64, 80, 128, 160, 256, 320, 320, 1280]
    assert len({padded(length) for length in range(1, 4097)}) == 28
