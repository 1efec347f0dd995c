"""The split by prompt."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_tools.preferences.split import Prompted, SplitConfig, held_out, prompt_key


def prompt(*texts: str) -> tuple[dict[str, str], ...]:
    return tuple(
        {"role": "user" if place % 2 == 0 else "assistant", "content": text} for place, text in enumerate(texts)
    )


def test_prompts_that_differ_in_form_alone_have_one_key() -> None:
    one = prompt_key(prompt("头痛三天，Fever 38.5℃！", "休息。", "Ünd now?"))
    assert prompt_key(prompt("頭痛三天，fever 38.5℃", "休息", "und now")) != one, "other characters are other words"
    assert prompt_key(prompt("头痛三天 ｆｅｖｅｒ ３８.５ ℃", "休息！！", "Und  now")) == one
    assert prompt_key(prompt("头痛三天，Fever 38.5℃！休息。", "", "Ünd now?")) != one, "borders count"
    assert prompt_key(prompt("ab", "c", "d")) != prompt_key(prompt("a", "bc", "d"))
    assert prompt_key(prompt("?")) != prompt_key(prompt("!")), "signs alone are not nothing"
    assert prompt_key(({"role": "system", "content": "x"},)) != prompt_key(prompt("x"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(("subjective", "objective")), st.integers(0, 40)), max_size=120),
    st.integers(0, 40),
    st.integers(0, 5),
)
def test_no_prompt_is_on_both_sides(rows: list[tuple[str, int]], count: int, seed: int) -> None:
    pairs = [Prompted(str(number), kind, bytes([key])) for number, (kind, key) in enumerate(rows)]
    config = SplitConfig(valid_count=count)
    valid = held_out(pairs, config, seed)
    assert len(valid) <= count
    sides = {pair.key: {other.id in valid for other in pairs if other.key == pair.key} for pair in pairs}
    assert all(len(found) == 1 for found in sides.values())
    assert held_out(pairs[::-1], config, seed) == valid


@pytest.mark.parametrize(
    ("config", "expected"), [({}, (14, 6)), ({"valid_share": 0.1}, (70, 30)), ({"valid_count": 11}, (8, 3))]
)
def test_each_kind_is_held_out_in_its_proportion(config: dict[str, float], expected: tuple[int, int]) -> None:
    kinds = ["subjective"] * 700 + ["objective"] * 300
    pairs = [Prompted(str(number), kind, str(number).encode()) for number, kind in enumerate(kinds)]
    valid = held_out(pairs, SplitConfig(**config), 0)  # type: ignore[arg-type]
    found = Counter(pair.kind for pair in pairs if pair.id in valid)
    assert (found["subjective"], found["objective"]) == expected
    assert held_out(pairs, SplitConfig(**config), 1) != valid  # type: ignore[arg-type]


def test_a_pair_more_moves_few_others() -> None:
    pairs = [Prompted(str(number), "subjective", str(number).encode()) for number in range(1000)]
    before = held_out(pairs, SplitConfig(valid_count=100), 0)
    after = held_out([*pairs, Prompted("new", "subjective", b"new")], SplitConfig(valid_count=100), 0)
    assert len(before ^ after) <= 2


def test_share_or_count() -> None:
    assert held_out([], SplitConfig(), 0) == set()
    assert held_out([Prompted("a", "", b"a")], SplitConfig(valid_share=0), 0) == set()
    with pytest.raises(ValidationError, match="not both"):
        SplitConfig(valid_share=0.1, valid_count=5)
