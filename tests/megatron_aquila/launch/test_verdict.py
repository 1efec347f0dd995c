"""What the ends of ranks mean, case by case."""

import signal

import pytest

from megatron_aquila.nodes.verdict import End, Verdict, grace, judge, with_other_nodes

TERM, KILL = int(signal.SIGTERM), int(signal.SIGKILL)


@pytest.mark.parametrize(
    ("codes", "asked", "code"),
    [
        ([0, 0], [], 0),
        ([], [], 0),
        ([0, 75, 75], [], 75),
        ([75, 1], [], 1),  # a part of the save is missing
        ([1, 75], [], 1),
        ([1, 2, 76], [], 2),  # the rank that knows why speaks for the others
        ([76, 76], [], 76),
        ([-KILL, 1], [], 137),
        ([1, -KILL], [], 1),  # the first
        ([-TERM, -TERM], [TERM], 75),  # asked before it could listen
        ([-TERM, -TERM], [], 143),
        ([75, -KILL], [TERM], 137),
    ],
)
def test_verdicts(codes: list[int], asked: list[int], code: int) -> None:
    assert judge([End(rank, code) for rank, code in enumerate(codes)], asked).code == code


def test_what_is_said() -> None:
    assert judge([End(5, 0), End(3, -KILL)]).sentence == "rank 3 was killed by SIGKILL; the others were stopped"
    assert judge([End(5, 76)]).sentence == "rank 5 ended with exit code 76; the others were stopped"
    assert judge([End(5, 75)]).sentence == ""  # the ranks have said it


def test_others_are_waited_for_while_they_save() -> None:
    assert grace([]) is None
    assert grace([0, 0]) is None  # rank 0 may have the last checkpoint to publish
    saving, hanging, crash = (grace([code]) for code in (75, 76, 1))
    assert saving is not None and hanging is not None and crash is not None
    assert saving > hanging > crash
    assert grace([75, 1]) == crash


def test_another_nodes_crash_makes_a_stop_none() -> None:
    saved, crash, mistake = Verdict(75), Verdict(1, "there"), Verdict(2)
    assert with_other_nodes(saved, None, unfinished=False) == saved
    assert with_other_nodes(saved, crash, unfinished=False) == crash
    assert with_other_nodes(Verdict(1, "here"), mistake, unfinished=False) == mistake
    assert with_other_nodes(Verdict(1, "here"), crash, unfinished=False) == Verdict(1, "here")
    assert with_other_nodes(Verdict(0), crash, unfinished=True) == crash
    assert with_other_nodes(Verdict(0), crash, unfinished=False) == Verdict(0)
    assert with_other_nodes(mistake, crash, unfinished=False) == mistake
