"""Letters in medical text: which are an answer."""

from __future__ import annotations

import random

import pytest

from megatron_aquila.evaluation.tasks.extraction import chosen_letters, official_cmb

OPTIONS = {"A": "小叶型肺炎", "B": "浸润性肺结核", "C": "继发性肺结核", "D": "原发性肺结核", "E": "粟粒型肺结核"}

ONE_ANSWER = [
    # capital letters that are words of medicine
    ("A 型血", None),
    ("B 超", None),
    ("建议行 B 超检查。", None),
    ("维生素C", None),
    ("HBsAg", None),
    ("CT", None),
    ("ABO 血型", None),
    ("患者为 A 型血，HBsAg 阳性，行 B 超检查。", None),
    ("答案是A 型血", None),
    ("答案是B超检查", None),
    ("答案是维生素C", None),
    ("答案是CT", None),
    ("答案是ACE抑制剂", None),
    ("血型应为A型", None),
    ("Answer: A patient with fever", None),
    # stated answers
    ("答案是B", "B"),
    ("答案是B。", "B"),
    ("正确答案为：C", "C"),
    ("答案：Ｄ", "D"),
    ("故选 D。", "D"),
    ("【答案】E", "E"),
    ("**答案：B**", "B"),
    ("答案：选项B", "B"),
    ("最终选择C", "C"),
    ("选B", "B"),
    (r"\boxed{C}", "C"),
    ("The answer is B because it is.", "B"),
    ("The correct answer is **D**.", "D"),
    ("答案是D原发性肺结核", "D"),
    ("患者为 A 型血，行 B 超检查，维生素C 正常。故选E", "E"),
    # several statements, corrected or taken back
    ("选项A错误，答案应为 C", "C"),
    ("答案是A。不对，应该是B。", "B"),
    ("答案是A。最终答案：C。", "C"),
    ("答案不是A，而是B", "B"),
    ("A. 小叶型肺炎\nB. 浸润性肺结核\n答案：B", "B"),
    ("答案是A吗？", None),
    ("答案是A或B", None),
    ("故不选A", None),
    ("答案是A错误的", None),
    # lines of letters alone, and of an option with its text
    ("D", "D"),
    ("(B)", "B"),
    ("D。因为病灶在右肺中部。", "D"),
    ("D. 原发性肺结核", "D"),
    ("D 原发性肺结核\n\n解析：略", "D"),
    ("A\nB", "B"),
    ("选项：A.肺炎 B.肝炎", None),
    # two letters where one is asked for, no option, refusals
    ("答案：ＡＢ", None),
    ("答案是A和B", None),
    ("正确答案为：A、C、D", None),
    ("答案是 F", None),
    ("我无法回答这个问题。", None),
    ("抱歉，作为AI，我不能给出诊断。", None),
    ("", None),
]
SEVERAL_ANSWERS = [
    ("正确答案为：A、C、D", "ACD"),
    ("答案：ＡＢ", "AB"),
    ("C、A、A", "AC"),
    ("答案是DCA。", "ACD"),
    ("A C E", "ACE"),
    ("选ABC", "ABC"),
    ("答案是A和B", "AB"),
    ("答案：A、B、C、D、E均正确", "ABCDE"),
    ("A. 小叶型肺炎\nC. 继发性肺结核", "AC"),
    ("A. 小叶型肺炎\n这是对的。", None),
    ("答案是D", "D"),
    ("答案是A或B", None),
    ("答案是ACE抑制剂", None),
    ("A,B,F", None),
    ("维生素C、B 超、ABO 血型", None),
]


@pytest.mark.parametrize(("said", "letters"), ONE_ANSWER)
def test_one_answer(said: str, letters: str | None) -> None:
    found = chosen_letters(said, OPTIONS, several=False)
    assert found == (None if letters is None else (letters,))


@pytest.mark.parametrize(("said", "letters"), SEVERAL_ANSWERS)
def test_several_answers(said: str, letters: str | None) -> None:
    found = chosen_letters(said, OPTIONS, several=True)
    assert found == (None if letters is None else tuple(letters))


def test_letters_come_from_the_options_and_in_their_order() -> None:
    """Whatever is said: an oracle for all texts is not to be had, these properties hold for every one."""
    rng = random.Random(0)
    words = [
        "答案",
        "是",
        "：",
        "为",
        "选",
        "故",
        "A",
        "B",
        "F",
        "Ｃ",
        "型",
        "。",
        "\n",
        "、",
        "不",
        " ",
        "或",
        "CT",
        "**",
    ]
    found_some = 0
    for _ in range(1500):
        text = "".join(rng.choices(words, k=rng.randint(0, 12)))
        one, several = (chosen_letters(text, OPTIONS, several=several) for several in (False, True))
        assert one is None or (len(one) == 1 and one[0] in OPTIONS)
        assert several is None or (several and list(several) == sorted(set(several)) and set(several) <= OPTIONS.keys())
        found_some += several is not None
    assert found_some > 100


def test_long_runs_are_read_at_once() -> None:
    """By the cube of a run's length this would take hours."""
    for run in (" ", "\n", "\t ", "(", "A", "A、", "* ", "　"):
        assert chosen_letters(f"答案是A{run * 20_000}x", OPTIONS, several=False) in (None, ("A",))


@pytest.mark.parametrize(
    ("said", "single", "multiple"),
    [  # worked by hand from the published rule: after the phrase up to the full stop, else the whole text
        ("A 型血", "A", "A"),
        ("B 超检查，CT 正常", "B", "BC"),
        ("答案是BA。C也对", "B", "BA"),
        ("正确选项应该是D.A", "D", "D"),
        ("HBsAg阳性，答案为C", "C", "C"),
        ("答案选B，A不对", "B", "BA"),
        ("不知道", "", ""),
    ],
)
def test_official_rule(said: str, single: str, multiple: str) -> None:
    assert official_cmb(said, "单项选择题") == single
    assert official_cmb(said, "多项选择题") == multiple
