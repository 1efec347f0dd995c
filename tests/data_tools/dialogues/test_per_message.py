"""A step on every message does what the same step does on each message alone, by hand."""

import random
from collections import Counter
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpus.batch import Batch, Drop, Outcome, Scale, Step
from data_tools.corpus.normalise import NormaliseConfig
from data_tools.corpus.privacy import PrivacyConfig
from data_tools.dialogues.per_message import PerMessage
from data_tools.records import Messages
from tests.data_tools.dialogues.dialogue_batches import batch_of_dialogues, dialogue

PRIVATE = (
    "我叫李建国，电话13812345678，住北京市海淀区中关村大街27号3单元501室",
    "邮箱 zhang.wei@example.com，身份证11010519491231002X",
    "My name is John Smith, call 555-123-4567 or mail john@example.com",
    "没有什么要隐藏的，体温38.5℃，WBC 12×10^9/L",
    "Nothing here, 50 mg twice daily.",
    "ＷＢＣ　升高&nbsp;，<br>怎么办",
    "  two  blanks   and\ttabs  \r\n\r\n\r\n\r\nend ",
    "",
    " \n ",
    "锟斤拷锟斤拷锟斤拷",
)
STEPS = (PrivacyConfig().build(), PrivacyConfig(most_values=1).build(), NormaliseConfig().build())


def by_hand(step: Step, messages: Messages) -> tuple[Messages, Drop | None, int, Counter[str], Counter[str], float]:
    """Message by message, in a batch of its own: new messages, first drop and its number, counts, private values by
    type, and the one measure (privacy's summed, of normalisation the greatest).
    """
    new, drop, number, counts, types, values = [], None, 0, Counter[str](), Counter[str](), []
    for place, message in enumerate(messages, 1):
        text = message["content"]
        if text.strip():
            found = step(Batch(["x"], [text], [""], [""], [{}]))
            if found.drops[0] is not None and drop is None:
                drop, number = found.drops[0], place
            counts.update(found.counts)
            if found.notes and (note := found.notes[0]):
                types.update(note["privacy"])
            values.append(float(next(iter(found.measures.values()))[0]))
            text = found.texts[0] if found.texts[0] is not None else text
        new.append({**message, "content": text})
    combined = sum(values) if step.name == "privacy" else max(values, default=np.nan)
    return tuple(new), drop, number, counts, types, combined if values else np.nan


def compare(step: Step, dialogues: list[Messages]) -> Outcome:
    wrapped = PerMessage(step)
    outcome = wrapped(batch_of_dialogues(dialogues))
    total: Counter[str] = Counter()
    (measured,) = outcome.measures.values()
    for place, messages in enumerate(dialogues):
        new, drop, number, counts, types, value = by_hand(step, messages)
        total.update(counts)
        found = outcome.drops[place] if outcome.drops else None
        changed = outcome.messages[place] if outcome.messages else None
        note = outcome.notes[place] if outcome.notes else None
        np.testing.assert_allclose(measured[place], value)
        if drop is not None:
            assert found == Drop(drop.reason, {**drop.detail, "message": number})
            assert changed is None
            assert note is None
        else:
            assert found is None
            assert (changed or messages) == new
            assert (changed is None) == (new == messages)
            assert (note or {}) == ({"privacy": types} if types else {})
    assert outcome.counts == total
    assert not outcome.texts
    return outcome


@pytest.mark.parametrize("step", STEPS, ids=["privacy", "privacy with a limit", "normalise"])
def test_it_equals_the_step_on_each_message(step: Step) -> None:
    draw = random.Random(1)
    dialogues = [dialogue(*draw.choices(PRIVATE, k=draw.randint(1, 7))) for _ in range(300)]
    outcome = compare(step, dialogues)
    assert sum(new is not None for new in outcome.messages) > 50


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.text() | st.sampled_from(PRIVATE), max_size=5), max_size=4), st.sampled_from(STEPS))
def test_any_text_at_all(dialogues: list[list[str]], step: Step) -> None:
    compare(step, [dialogue(*contents) for contents in dialogues] or [()])


def test_values_of_all_messages_are_added_up() -> None:
    (messages,) = [dialogue("电话13812345678", "我的是13912345678，邮箱a.b@example.com", "多谢", "回13712345678")]
    outcome = PerMessage(PrivacyConfig().build())(batch_of_dialogues([messages], "zh"))
    assert outcome.notes == [{"privacy": {"e-mail": 1, "mobile": 3}}]
    assert outcome.measures["private values"].tolist() == [4]
    assert outcome.messages[0] is not None
    assert [message["content"] for message in outcome.messages[0]][2] == "多谢"
    assert "138" not in str(outcome) and "example" not in str(outcome)


def test_it_keeps_name_scales_and_facts_and_roles() -> None:
    step = NormaliseConfig().build()
    wrapped = PerMessage(step)
    assert (wrapped.name, wrapped.scales, wrapped.facts) == (step.name, step.scales, step.facts)
    assert PerMessage(PrivacyConfig().build()).name == "privacy"
    assert wrapped.name == "normalise"  # of its own, not the class's
    system = ({"role": "system", "content": "ＡＢ"}, *dialogue("ＣＤ", "EF"))
    (changed,) = wrapped(batch_of_dialogues([system])).messages
    assert changed == ({"role": "system", "content": "AB"}, *dialogue("CD", "EF"))
    assert system[0]["content"] == "ＡＢ"  # what came in is as it was


def test_a_batch_of_texts_goes_to_the_step_as_it_is() -> None:
    batch = Batch(["a"], ["电话13812345678"], ["zh"], [""], [{}])
    assert PerMessage(PrivacyConfig().build())(batch).texts == ["电话[手机号]"]


class _Notes:
    """Notes a word of each text."""

    name: ClassVar[str] = "words"
    scales: ClassVar[dict[str, Scale]] = {}
    facts: ClassVar[dict[str, int]] = {}

    def __call__(self, batch: Batch) -> Outcome:
        return Outcome(notes=[{"word": text} for text in batch.texts])


def test_notes_that_cannot_be_added_up_are_refused() -> None:
    step: Any = _Notes()
    with pytest.raises(TypeError, match="step words notes a str under 'word'"):
        PerMessage(step)(batch_of_dialogues([dialogue("a", "b")]))
