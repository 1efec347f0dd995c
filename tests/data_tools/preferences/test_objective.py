"""Objective pairs: wrong answers that are wrong, worded as the fine-tuning data, and likely ones by a plain forward."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_tools.causal_model import CausalSettings, load_causal_model
from data_tools.dialogues.importers.cmb import CMB
from data_tools.preferences.choices import Choice, choice_key, choice_of
from data_tools.preferences.objective import (
    ObjectiveConfig,
    likely_wrong,
    objective_pair,
    question_member,
    random_wrong,
    wrong_answers,
)
from data_tools.preferences.outcome import Made
from data_tools.preferences.strata import Member
from data_tools.records import Question, RecordError
from tests.data_tools.small_causal import small_causal_model

CONFIG = ObjectiveConfig(questions=("unused",))
ROW: dict[str, Any] = {
    "exam_type": "医师考试",
    "exam_class": "规培结业",
    "exam_subject": "外科",
    "question": "上消化道出血最常见的原因是？",
    "answer": "A",
    "question_type": "单项选择题",
    "option": {"A": "消化性溃疡", "B": "胃癌", "C": "食管静脉曲张", "D": "胃炎"},
}


def question(right: str, options: str = "ABCDE", **more: Any) -> Question:
    texts = {letter: f"drug {letter}" for letter in options}
    return Question(**{"id": "q", "question": "Which drugs?", "options": texts, "answer": tuple(right), **more})


def member(choice: Choice, config: ObjectiveConfig = CONFIG) -> Member[Choice]:
    found = question_member(choice, config, 0)
    assert isinstance(found, Member)
    return found


def made(row: dict[str, Any], config: ObjectiveConfig, wrong: str) -> Made:
    choice = choice_of(row, "cmb", source_file="f", offset=0)
    [found] = [one for one in wrong_answers(choice.question) if "".join(one.letters) == wrong]
    return objective_pair(member(choice, config), found, config, 0, {})


@settings(deadline=None)
@given(st.integers(2, 6), st.data())
def test_wrong_answers_are_one_step_from_the_right_one(size: int, data: st.DataObject) -> None:
    letters = "ABCDEF"[:size]
    right = data.draw(st.sets(st.sampled_from(letters), min_size=1).map(lambda found: "".join(sorted(found))))
    found = ["".join(wrong.letters) for wrong in wrong_answers(question(right, letters))]
    sets = ("".join(chosen) for n in range(1, size + 1) for chosen in itertools.combinations(letters, n))
    far = {one: (len(set(right) - set(one)), len(set(one) - set(right))) for one in sets}
    steps = {(1, 1)} if len(right) == 1 else {(1, 1), (0, 1), (1, 0)}
    assert sorted(found) == sorted(one for one, step in far.items() if step in steps)


def test_an_option_with_a_right_text_is_not_wrong() -> None:
    twice = {"A": "Aspirin ", "B": "aspirin", "C": "Heparin"}
    found = wrong_answers(Question("q", "Which drug?", twice, ("A",)))
    assert [(wrong.letters, wrong.change) for wrong in found] == [(("C",), "swapped")]
    all_right = Choice(question("AB", "AB"), "en")
    assert isinstance(question_member(all_right, CONFIG, 0), Member), "one of them may be missing"
    no_other = Choice(Question("q", "Which drug?", {"A": "x", "B": "X"}, ("A",)), "en")
    assert question_member(no_other, CONFIG, 0) == "no-wrong-option"
    assert question_member(Choice(question("A", question=" 1+ "), "en"), CONFIG, 0) == "question-too-short"


def test_the_random_wrong_answer_is_uniform_and_the_questions_own() -> None:
    drawn = Counter("".join(random_wrong(question("A", "ABCD", id=str(n)), 0).letters) for n in range(3000))
    assert set(drawn) == {"B", "C", "D"}
    assert all(abs(count - 1000) < 5 * 26 for count in drawn.values()), drawn  # 5 standard deviations
    changes = Counter(random_wrong(question("AB", id=str(n)), 0).change for n in range(3000))
    assert set(changes) == {"swapped", "added", "missing"}
    assert all(abs(count - 1000) < 5 * 26 for count in changes.values()), changes
    one = question("A", id="7")
    assert random_wrong(one, 0) == random_wrong(one, 0)
    assert len({random_wrong(one, seed) for seed in range(30)}) == 4


def test_the_words_are_those_of_the_fine_tuning_data() -> None:
    pair = made(ROW, CONFIG, "C").pair
    imported = CMB().convert(ROW).messages
    assert (*pair.prompt, *pair.chosen) == imported
    assert pair.chosen[0]["content"] == "答案是A。"
    assert pair.rejected[0]["content"] == "答案是C。"
    assert made(ROW, CONFIG, "C").meta == {
        "right": "A", "wrong": "C", "change": "swapped", "drawn": "random", "explained": False
    }  # fmt: skip
    explained = {**ROW, "explanation": "溃疡最常见。"}
    always = CONFIG.model_copy(update={"explained": 1.0})
    pair = made(explained, always, "B").pair
    assert (*pair.prompt, *pair.chosen) == CMB().convert(explained).messages
    assert pair.rejected[0]["content"] == pair.chosen[0]["content"].replace("答案是A", "答案是B")
    pair = made(explained, always.model_copy(update={"explanation": "chosen"}), "B").pair
    assert pair.rejected[0]["content"] == "答案是B。"
    pair = made(explained, always.model_copy(update={"explanation": "none"}), "B").pair
    assert (*pair.prompt, *pair.chosen) == imported, "without the explanation it is asked as a question without one"


def test_letters_with_their_texts() -> None:
    config = CONFIG.model_copy(update={"answer": "letter-and-text"})
    row = {**ROW, "answer": "AC", "question_type": "多项选择题"}
    pair = made(row, config, "AB").pair
    assert pair.chosen[0]["content"] == "答案是AC。\nA. 消化性溃疡\nC. 食管静脉曲张"
    assert pair.rejected[0]["content"] == "答案是AB。\nA. 消化性溃疡\nB. 胃癌"
    assert "直接输出答案选项" not in pair.prompt[0]["content"], "letters alone are not asked for where texts follow"


def test_half_of_the_explained_questions_carry_their_explanation() -> None:
    rows = [{**ROW, "id": str(n), "explanation": "因为。"} for n in range(1000)]
    explained = sum(bool(made(row, CONFIG, "B").meta["explained"]) for row in rows)
    assert abs(explained - 500) < 80  # 5 standard deviations


def test_questions_of_both_formats_and_languages() -> None:
    english = {"id": 5, "question": "Which drug is best?", "options": {"A": "x", "B": "y"}, "answer": ["B"]}
    choice = choice_of(english, "questions", source_file="f", offset=0)
    found = member(choice)
    assert (found.traits.lang, found.traits.source, found.traits.kind) == ("en", "questions", "single")
    pair = objective_pair(found, wrong_answers(choice.question)[0], CONFIG, 0, {}).pair
    assert pair.chosen[0]["content"] == "The answer is B."
    assert pair.prompt[0]["content"].endswith("Which drug is best?\nA. x\nB. y")
    multiple = member(choice_of({**ROW, "answer": "AD", "question_type": ""}, "cmb", source_file="f", offset=0))
    assert (multiple.traits.lang, multiple.traits.source, multiple.traits.kind) == ("zh", "cmb", "multiple")
    for bad in ({**ROW, "answer": "E"}, {**ROW, "exam_type": 7}, {**ROW, "option": {"A": "x"}}, []):
        with pytest.raises(RecordError):
            choice_of(bad, "cmb", source_file="f", offset=0)


def test_one_question_in_another_order_of_options_is_the_same_question() -> None:
    turned = {**ROW, "option": {"A": "胃癌。", "B": "消化性溃疡", "C": "胃炎", "D": "食管静脉曲张"}, "answer": "B"}
    keys = [choice_key(choice_of(row, "cmb", source_file="f", offset=0)) for row in (ROW, turned)]
    assert keys[0] == keys[1]
    other = {**ROW, "option": {**ROW["option"], "D": "胆囊炎"}}
    assert choice_key(choice_of(other, "cmb", source_file="f", offset=0)) != keys[0]


def test_the_likely_wrong_answer_is_what_a_plain_forward_finds(tmp_path: Path) -> None:
    """Against transformers, one row at a time, in float64."""
    import torch
    import transformers

    place = small_causal_model(tmp_path / "model", seed=3)
    rows = [
        {**ROW, "id": str(n), "question": f"{'患者发热，' * n}应服用什么药？", "answer": a}
        for n, a in enumerate("ABCD")
    ]
    rows.append({**ROW, "id": "x", "answer": "AC", "question_type": "多项选择题"})
    choices = [choice_of(row, "cmb", source_file="f", offset=0) for row in rows]
    found = likely_wrong(choices, load_causal_model(CausalSettings(model=place, device="cpu")))

    coder = transformers.AutoTokenizer.from_pretrained(place)
    plain = transformers.AutoModelForCausalLM.from_pretrained(place).double().eval()
    best = []
    for row, choice in zip(rows, choices):
        before = CMB().convert(row).messages[0]["content"] + "\n答案是"
        context = coder(before)["input_ids"]
        scores = {}
        for wrong in wrong_answers(choice.question):
            ids = coder(before + "".join(wrong.letters))["input_ids"]
            assert ids[: len(context)] == context
            with torch.no_grad():
                logps = plain(torch.tensor([ids])).logits[0].log_softmax(-1)
            said = [logps[at - 1, ids[at]].item() for at in range(len(context), len(ids))]
            scores[wrong.letters] = sum(said) / len(said)
        best.append(max(scores.items(), key=lambda item: item[1]))
    assert [wrong.letters for wrong, _ in found] == [letters for letters, _ in best]
    assert [score for _, score in found] == pytest.approx([score for _, score in best], abs=1e-5)
    assert len({letters for letters, _ in best}) > 1, "the model tells them apart"


def test_a_prompt_that_is_too_long_for_the_model_loses_its_beginning(tmp_path: Path) -> None:
    place = small_causal_model(tmp_path / "model", seed=3)
    choice = choice_of({**ROW, "question": "头痛" * 400}, "cmb", source_file="f", offset=0)
    model = load_causal_model(CausalSettings(model=place, device="cpu", max_length=64))
    [(wrong, score)] = likely_wrong([choice], model)
    assert "".join(wrong.letters) in "BCD"
    assert score < 0


def test_likely_needs_a_model() -> None:
    with pytest.raises(ValidationError, match=r"needs model\.model"):
        ObjectiveConfig(questions=("q",), wrong="likely")
