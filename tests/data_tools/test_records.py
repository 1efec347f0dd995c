import hashlib

import pytest

from data_tools.records import (
    Dialogue,
    Document,
    PreferencePair,
    Question,
    RecordError,
    answered,
    dialogue_messages,
    record_id,
    record_text,
    stable_id,
)

PLACE = {"source_file": "a/b.jsonl", "offset": 17}
ASK = {"role": "user", "content": "Fever?"}
ANSWER = {"role": "assistant", "content": "Rest."}
DIALOGUE = {
    "id": "d",
    "messages": [ASK, ANSWER],
    "lang": "en",
    "source": "books",
    "scores": {"quality": 4.5},
    "meta": {"department": "ENT"},
}
PAIR = {"prompt": [ASK], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "No."}]}
QUESTION = {"id": 7, "question": "Which?", "options": {"A": "one", "B": "two"}, "answer": ["B"]}


def test_document_keeps_every_field_and_survives_the_round_trip() -> None:
    value = {"id": "x", "text": "fever\0!", "lang": "en", "source": "books", "meta": {"page": 3}, "url": "u"}
    document = Document.from_json(value, **PLACE)
    assert document == Document("x", "fever\0!", "en", "books", {"page": 3, "url": "u"})
    assert Document.from_json(document.to_json(), **PLACE) == document


def test_missing_id_is_a_hash_of_file_and_offset() -> None:
    expected = hashlib.blake2b(b"a/b.jsonl\x0017", digest_size=8).hexdigest()
    assert Document.from_json({"text": "t"}, **PLACE).id == expected == stable_id("a/b.jsonl", 17)
    assert stable_id("a/b.jsonl", 18) != expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1], "not-an-object"),
        (None, "not-an-object"),
        ({}, "no-text"),
        ({"text": None}, "no-text"),
        ({"text": 5}, "text-not-a-string"),
        ({"text": ["a"]}, "text-not-a-string"),
        ({"text": ""}, "blank-text"),
        ({"text": " \n\u3000\t"}, "blank-text"),
        ({"text": "a\ud800"}, "lone-surrogate"),
        ({"text": "a", "id": 1.5}, "bad-id"),
        ({"text": "a", "id": True}, "bad-id"),
        ({"text": "a", "id": ""}, "bad-id"),
        ({"text": "a", "lang": 3}, "bad-field"),
        ({"text": "a", "meta": [1]}, "bad-field"),
    ],
)
def test_bad_documents_are_refused_with_their_reason(value: object, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        Document.from_json(value, **PLACE)
    assert caught.value.reason == reason


def test_several_text_keys_are_joined_by_a_line_end() -> None:
    value = {"q": "What?", "a": "That."}
    assert record_text(value, ("q", "a")) == "What?\nThat."
    document = Document.from_json(value, **PLACE, text_keys=("q", "a"))
    assert (document.text, document.meta) == ("What?\nThat.", {})
    with pytest.raises(RecordError, match=r"'c'.*keys are q, a"):
        record_text(value, ("q", "c"))


def test_whole_numbers_are_ids() -> None:
    assert record_id({"id": 12}) == "12"
    assert record_id({"key": "k"}, "key") == "k"
    assert record_id({}) is None


def test_question_round_trip() -> None:
    question = Question.from_json({**QUESTION, "split": "test"}, **PLACE)
    assert question == Question("7", "Which?", {"A": "one", "B": "two"}, ("B",), split="test")
    assert Question.from_json(question.to_json(), **PLACE) == question


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": " "}, "blank-text"),
        ({"options": {"A": "one"}}, "bad-options"),
        ({"options": ["one", "two"]}, "bad-options"),
        ({"options": {"A": "one", "B": ""}}, "bad-options"),
        ({"options": {"A": "one", "B": "\ud800"}}, "lone-surrogate"),
        ({"answer": []}, "bad-answer"),
        ({"answer": "B"}, "bad-answer"),
        ({"answer": ["C"]}, "bad-answer"),
        ({"answer": ["B", "B"]}, "bad-answer"),
        ({"explanation": 3}, "bad-field"),
    ],
)
def test_bad_questions_are_refused_with_their_reason(change: dict[str, object], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        Question.from_json({**QUESTION, **change}, **PLACE)
    assert caught.value.reason == reason


def test_dialogue_round_trip() -> None:
    dialogue = Dialogue.from_json(DIALOGUE, **PLACE)
    assert dialogue == Dialogue("d", (ASK, ANSWER), "en", "books", {"quality": 4.5}, {"department": "ENT"})
    assert dialogue.to_json() == DIALOGUE
    assert Dialogue.from_json({"messages": [ASK, {**ANSWER, "name": "x"}]}, **PLACE) == Dialogue(
        stable_id("a/b.jsonl", 17), (ASK, ANSWER)
    )


def test_questions_at_the_end_that_nobody_answers_are_left_out() -> None:
    messages = dialogue_messages({"messages": [ASK, ANSWER, ASK, ASK]})
    assert messages == (ASK, ANSWER, ASK, ASK)
    assert answered(messages) == (ASK, ANSWER)
    assert answered(messages[:2]) == (ASK, ANSWER)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"messages": None}, "no-messages"),
        ({"messages": []}, "no-messages"),
        ({"messages": "Fever?"}, "bad-messages"),
        ({"messages": ["Fever?"]}, "bad-messages"),
        ({"messages": [ASK, {"role": "gpt", "content": "Rest."}]}, "bad-messages"),
        ({"messages": [ASK, {"role": ["assistant"], "content": "Rest."}]}, "bad-messages"),
        ({"messages": [ASK, {"role": "assistant", "content": None}]}, "bad-messages"),
        ({"messages": [ASK, {"role": "assistant", "content": "a\ud800"}]}, "lone-surrogate"),
        ({"messages": [ASK]}, "no-answer"),
        ({"scores": [4.5]}, "bad-field"),
        ({"id": ""}, "bad-id"),
    ],
)
def test_bad_dialogues_are_refused_with_their_reason(change: dict[str, object], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        Dialogue.from_json({**DIALOGUE, **change}, **PLACE)
    assert caught.value.reason == reason


def test_pair_round_trip() -> None:
    pair = PreferencePair.from_json({**PAIR, "id": 3, "kind": "objective"}, **PLACE)
    assert pair == PreferencePair("3", (ASK,), (ANSWER,), ({"role": "assistant", "content": "No."},), "objective")
    assert PreferencePair.from_json(pair.to_json(), **PLACE) == pair
    assert PreferencePair.from_json(PAIR, **PLACE).kind == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": []}, "no-messages"),
        ({"prompt": "Fever?"}, "bad-messages"),
        ({"prompt": [ASK, ANSWER]}, "bad-roles"),
        ({"chosen": [ASK, ANSWER]}, "bad-roles"),
        ({"rejected": [ANSWER, ASK]}, "bad-roles"),
        ({"rejected": []}, "no-messages"),
        ({"rejected": [ANSWER]}, "equal-answers"),
        ({"kind": "both"}, "bad-field"),
        ({"kind": 3}, "bad-field"),
    ],
)
def test_bad_pairs_are_refused_with_their_reason(change: dict[str, object], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        PreferencePair.from_json({**PAIR, **change}, **PLACE)
    assert caught.value.reason == reason
    with pytest.raises(RecordError, match="not-an-object"):
        PreferencePair.from_json([PAIR], **PLACE)
