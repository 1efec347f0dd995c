"""CMB: the official wording, letters and options, cases; against texts written by hand from CMB's own scripts."""

import re

import pytest

from data_tools.dialogues.importers import importer
from data_tools.dialogues.importers.cmb import choice_answer, choice_prompt, question_of
from data_tools.records import RecordError
from tests.data_tools.dialogues.test_importers import convert, refusal, said

QUESTION = {
    "exam_type": "医师考试",
    "exam_class": "规培结业考试",
    "exam_subject": "临床医学",
    "question": "正常成人每分钟呼吸约几次？",
    "answer": "B",
    "question_type": "单项选择题",
    "option": {"A": "8", "B": "16", "C": "2", "D": "", "E": "40次以上"},
}


def test_cmb_asks_in_the_official_wording_and_keeps_options_of_one_character() -> None:
    dialogue = importer("cmb").convert(QUESTION)
    assert said(dialogue) == [
        "以下是中国医师考试中规培结业考试考试的一道单项选择题，不需要做任何分析和解释，直接输出答案选项。\n"
        "正常成人每分钟呼吸约几次？\nA. 8\nB. 16\nC. 2\nE. 40次以上",
        "答案是B。",
    ]
    assert dialogue.meta["kind"] == "options"
    assert dialogue.meta["exam_class"] == "规培结业考试"
    explained = {**QUESTION, "question_type": "多项选择题", "answer": "EA", "explanation": "因为如此。"}
    assert convert("cmb", explained) == [
        "以下是中国医师考试中规培结业考试考试的一道多项选择题，请分析每个选项，并最后给出答案。\n"
        "正常成人每分钟呼吸约几次？\nA. 8\nB. 16\nC. 2\nE. 40次以上",
        "因为如此。所以答案是AE。",
    ]


def test_cmb_answers_are_letters_of_the_options() -> None:
    several = {**QUESTION, "question_type": "多项选择题"}
    for answer, letters in (("ABC", "ABC"), ("c、a", "AC"), ("ＡＥ", "AE"), ("A, B", "AB"), ("BB", "B")):
        assert question_of({**several, "answer": answer}).answer == tuple(letters)
    for answer, reason in (("", "no-answer"), ("NULL", "no-answer"), (None, "no-answer"), ("D", "bad-answer"),
                           ("AF", "bad-answer"), ("甲", "bad-answer"), ("、", "bad-answer"), (3, "bad-field"),
                           (["A"], "bad-field")):  # fmt: skip
        assert refusal("cmb", {**several, "answer": answer}) == reason
    assert refusal("cmb", {**QUESTION, "answer": "AB"}) == "bad-answer"
    assert refusal("cmb", {**QUESTION, "option": {"A": "8", "B": " "}}) == "bad-options"
    assert refusal("cmb", {**QUESTION, "option": {"A": "8", "a": "9", "B": "1"}}) == "bad-options"
    assert refusal("cmb", {**QUESTION, "option": {"A": "8", "选项": "9"}}) == "bad-options"
    assert refusal("cmb", {**QUESTION, "option": ["8", "9"]}) == "bad-options"
    assert refusal("cmb", {**QUESTION, "option": {"A": "8", "B": 9}}) == "bad-field"
    assert refusal("cmb", {**QUESTION, "question": " "}) == "no-question"


def test_a_question_of_the_test_set_is_a_question_without_answer() -> None:
    row = {key: value for key, value in QUESTION.items() if key != "answer"} | {"id": 12}
    question = question_of(row, unanswered=True)
    assert (question.id, question.answer, list(question.options)) == ("12", (), ["A", "B", "C", "E"])
    with pytest.raises(RecordError, match="no-answer"):
        question_of(row)
    plain, other = question_of(QUESTION), question_of({**QUESTION, "question": "每小时呢？"})
    assert re.fullmatch("[0-9a-f]{16}", plain.id)
    assert plain.id == question_of({**QUESTION, "answer": "A"}).id
    assert plain.id != other.id


def test_the_official_scorer_finds_the_letters_of_every_answer() -> None:
    """CMB's match_choice: what follows 答案是 up to 。 or a full stop, and in it the letters A to G."""
    row = {**QUESTION, "question_type": "多项选择题", "answer": "CE", "explanation": "维生素A与D。"}
    question = question_of(row)
    for with_text in (False, True):
        for explanation in (False, True):
            answer = choice_answer(question, question.answer, with_text=with_text, explanation=explanation)
            found = re.search(r"(?:答案|正确选项)(?:是|：|为|应该是|应该为)(.*?)(?:。|\.|$)", answer, re.DOTALL)
            assert found is not None
            assert "".join(re.findall("[A-G]", found[1])) == "CE"
            assert ("C. 2\nE. 40次以上" in answer) == with_text
    english = choice_prompt(question, "en"), choice_answer(question, ("C",), "en", with_text=True)
    assert english[0].endswith("Choose the right answer.\n正常成人每分钟呼吸约几次？\nA. 8\nB. 16\nC. 2\nE. 40次以上")
    assert english[1] == "The answer is C.\nC. 2"


def test_a_case_of_cmb_clin_is_one_dialogue() -> None:
    pairs = [{"question": "诊断？", "solution": "肺炎"}, {"question": "依据？", "solution": "发热、咳嗽"}]
    case = {"id": "3", "title": "案例", "description": "患者男，咳嗽。", "QA_pairs": pairs}
    dialogue = importer("cmb").convert(case)
    assert said(dialogue) == ["以下是一位病人的病例：\n患者男，咳嗽。\n诊断？", "肺炎", "依据？", "发热、咳嗽"]
    assert dialogue.meta == {"kind": "qa", "record": "3"}
    assert refusal("cmb", {**case, "QA_pairs": [{"question": "诊断？"}, pairs[1]]}) == "blank-message"
    assert refusal("cmb", {**case, "QA_pairs": [{"question": "诊断？"}]}) == "no-answer"
    assert refusal("cmb", {**case, "QA_pairs": []}) == "no-question"
    assert refusal("cmb", {**case, "QA_pairs": ["a"]}) == "bad-field"
