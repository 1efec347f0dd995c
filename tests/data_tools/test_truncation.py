"""Truncation by cases worked out by hand: `.` is a token of the frame or the user, `a` of an answer, `c` a closing."""

from typing import NamedTuple

import numpy as np
import pytest

from data_tools.records import RecordError
from data_tools.truncation import ANSWER_CUT, TURNS_DROPPED, Fitted, Rendered, TooLongError, fit_dialogue, fit_pair


class Turns(NamedTuple):
    tokens: np.ndarray
    mask: np.ndarray
    ends: list[int]


def turns(layout: str, ids: str = "") -> Rendered:
    """`|` ends an exchange; the tokens are numbered, or the characters of `ids`."""
    ends = [place - number for number, place in enumerate(i for i, mark in enumerate(layout) if mark == "|")]
    marks = layout.replace("|", "")
    tokens = np.array([ord(mark) for mark in ids] if ids else range(len(marks)), np.int32)
    return Turns(tokens, np.array([mark in "ac" for mark in marks], np.uint8), ends)


def shown(fitted: Fitted) -> list[tuple[int, str]]:
    """Tokens and trained places of each sequence, as a picture."""
    return [(len(tokens), "".join(".T"[bit] for bit in mask)) for tokens, mask in fitted.sequences]


@pytest.mark.parametrize(
    ("layout", "max_length", "picture", "cut"),
    [
        ("..ac.|..aac.|", 11, "..TT...TTT.", ""),  # it fits
        ("..ac.|..aac.|", 10, "..TT...TTT", ""),  # only the trailer is lost
        ("..ac.|..aac.|", 9, "..TT.", TURNS_DROPPED),  # the second closing would be lost
        ("..ac.|..aac.|", 5, "..TT.", TURNS_DROPPED),
        ("..ac.|..aac.|", 4, "..TT", TURNS_DROPPED),
        ("..ac.|..aac.|", 3, "..T", ANSWER_CUT),  # no closing: nothing learns to stop there
        ("..ac.|.ac.|..ac.|", 10, "..TT..TT.", TURNS_DROPPED),
        ("..aaaaaac|", 5, "..TTT", ANSWER_CUT),
        ("cac|..ac|", 4, ".TT", TURNS_DROPPED),  # a first token has nothing before it and is not trained
    ],
)
def test_dialogue(layout: str, max_length: int, picture: str, cut: str) -> None:
    fitted = fit_dialogue(turns(layout), max_length)
    assert shown(fitted) == [(len(picture), picture)]
    assert fitted.sequences[0].tokens_N.tolist() == list(range(len(picture)))
    assert fitted.cut == cut


@pytest.mark.parametrize(
    ("layout", "max_length", "reason"),
    [
        ("....ac|", 4, "prompt-too-long"),
        ("....ac|..ac|", 3, "prompt-too-long"),
        ("....", 4, "no-trained-token"),
        ("c...", 4, "no-trained-token"),
        ("c...", 2, "no-trained-token"),
    ],
)
def test_dialogue_without_anything_to_train_on(layout: str, max_length: int, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        fit_dialogue(turns(layout), max_length)
    assert caught.value.reason == reason
    assert isinstance(caught.value, TooLongError) == (reason == "prompt-too-long")


@pytest.mark.parametrize(
    ("chosen", "rejected", "max_length", "pictures", "cut"),
    [
        (("..aac|", "pqxyz"), ("..ac|", "pqwz"), 5, ["..TTT", "..TT"], ""),
        (("..aac.|", "pqxyz."), ("..ac.|", "pqwz."), 5, ["..TTT", "..TT."], ""),  # only a trailer is lost
        (("..aac|", "pqxyz"), ("..ac|", "pqwz"), 4, ["..TT", "..TT"], ANSWER_CUT),  # each on its own
        (("..aac|", "pqxyz"), ("..ac|", "pqwz"), 3, ["..T", "..T"], ANSWER_CUT),
        # The tokenizer joined the prompt's last blank to one answer only: from there on, both are answers.
        (("...ac|", "pq_xz"), ("..ac|", "pqXz"), 9, ["..TTT", "..TT"], ""),
    ],
)
def test_pair(
    chosen: tuple[str, str], rejected: tuple[str, str], max_length: int, pictures: list[str], cut: str
) -> None:
    fitted = fit_pair(turns(*chosen), turns(*rejected), max_length)
    assert shown(fitted) == [(len(picture), picture) for picture in pictures]
    for sequence, (_, ids) in zip(fitted.sequences, (chosen, rejected)):
        assert "".join(map(chr, sequence.tokens_N)) == ids[: len(sequence.tokens_N)]
    assert fitted.cut == cut


@pytest.mark.parametrize(
    ("chosen", "rejected", "max_length", "reason"),
    [
        (("..aac|", "pqxyz"), ("..ac|", "pqwz"), 2, "prompt-too-long"),
        (("..aac|", "pqxyz"), ("..aac|", "pqxyw"), 4, "equal-after-cut"),
        (("..aac|", "pqxyz"), ("..ac|", "pqxy"), 4, "equal-after-cut"),
        (("..aac|", "pqxyz"), ("..aac|", "pqxyz"), 9, "equal-answers"),
        (("..aac|", "pqxyz"), ("..aac|", "prxyw"), 9, "prompt-differs"),
        (("aac|", "xyz"), ("aac|", "wyz"), 9, "prompt-differs"),  # nothing before the answers
        (("....", "pqrs"), ("..ac|", "pqwz"), 9, "no-trained-token"),
    ],
)
def test_pair_that_is_refused(chosen: tuple[str, str], rejected: tuple[str, str], max_length: int, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        fit_pair(turns(*chosen), turns(*rejected), max_length)
    assert caught.value.reason == reason
    assert isinstance(caught.value, TooLongError) == (reason in ("prompt-too-long", "equal-after-cut"))
