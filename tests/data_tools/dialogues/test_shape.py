"""What is no usable dialogue goes for its reason, and what can be put in order is."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpus.batch import dialogue_text
from data_tools.dialogues.shape import Lengths, ShapeConfig, ShapeStep
from data_tools.records import Messages
from tests.data_tools.corpus.real_texts import needs_shared
from tests.data_tools.dialogues.dialogue_batches import batch_of_dialogues, dialogue, real_dialogues

ASKED, ANSWER = "医生，我头痛三天了怎么办？", "建议先测量血压，并到神经内科就诊。"


def messages(roles: str, *contents: str) -> Messages:
    """One letter a role; what is not said is said by number."""
    names = {"s": "system", "u": "user", "a": "assistant"}
    texts = (*contents, *(f"这里是第{place}句话，说了一些事情。" for place in range(len(contents), len(roles))))
    return tuple({"role": names[role], "content": text} for role, text in zip(roles, texts))


def judged(found: Messages, lang: str = "zh", kind: str | None = None, **config: Any) -> tuple[str | None, str]:
    """The reason of the drop, and the roles that are left."""
    outcome = ShapeConfig(**config).build()(batch_of_dialogues([found], lang, kind))
    (drop,), (new,) = outcome.drops, outcome.messages
    return drop and drop.reason, "".join(message["role"][0] for message in new or found)


@pytest.mark.parametrize(
    ("roles", "joined", "strict"),
    [
        ("ua", (None, "ua"), None),
        ("sua", (None, "sua"), None),
        ("suaua", (None, "suaua"), None),
        ("uaua", (None, "uaua"), None),
        ("uaa", (None, "ua"), "bad-order"),
        ("uua", (None, "ua"), "bad-order"),
        ("ssua", (None, "sua"), None),
        ("uuaaauuaa", (None, "uaua"), "bad-order"),
        ("uau", (None, "ua"), "bad-order"),
        ("uauuu", (None, "ua"), "bad-order"),
        ("au", ("bad-order", "au"), "bad-order"),
        ("aua", ("bad-order", "aua"), "bad-order"),
        ("saua", ("bad-order", "saua"), "bad-order"),
        ("usa", ("bad-order", "usa"), "bad-order"),
        ("uasua", ("bad-order", "uasua"), "bad-order"),
        ("uas", ("bad-order", "uas"), "bad-order"),
        ("u", ("bad-order", "u"), "bad-order"),
        ("s", ("bad-order", "s"), "bad-order"),
        ("", ("bad-order", ""), "bad-order"),
    ],
)
def test_the_order_of_roles(roles: str, joined: tuple[str | None, str], strict: str | None) -> None:
    assert judged(messages(roles)) == joined
    assert judged(messages(roles), join_same_role=False, cut_dangling=False)[0] == strict


def test_joined_messages_keep_all_words_and_are_counted() -> None:
    found = messages("uuaaauu", "一二三四五", "六七八九十", "甲乙丙丁戊己", "", "庚辛壬癸", "没人回答", "还是没有")
    outcome = ShapeConfig().build()(batch_of_dialogues([found, messages("ua")], "zh"))
    assert outcome.messages == [dialogue("一二三四五\n六七八九十", "甲乙丙丁戊己\n庚辛壬癸"), None]
    assert outcome.counts == {"joined messages": 4, "cut questions without an answer": 1}
    assert outcome.measures["exchanges"].tolist() == [1, 1]
    assert outcome.measures["question characters"].tolist()[0] == 11
    assert outcome.measures["answer characters"].tolist()[0] == 11


@pytest.mark.parametrize(
    ("found", "lang", "reason"),
    [
        (dialogue("无", ANSWER), "zh", "short-question"),
        (dialogue("头痛吗", ANSWER), "zh", "short-question"),
        (dialogue("头痛怎办", ANSWER), "zh", None),
        (dialogue("您好！", "请问有什么可以帮您？", ASKED, ANSWER), "zh", None),
        (dialogue(ASKED, "头痛药。"), "zh", "short-answer"),
        (dialogue(ASKED, ANSWER, "谢谢", "不客气"), "zh", None),
        (dialogue("Headache?", "Take some rest and drink enough."), "en", "short-question"),
        (dialogue("I have had a headache.", "Asthma."), "en", "short-answer"),
        (dialogue("I have had a headache.", "You have a diaper rash."), "en", None),
        (dialogue("问" * 2000, ANSWER), "zh", None),
        (dialogue("问" * 2001, ANSWER), "zh", "long-question"),
        (dialogue("问" * 2001, ANSWER), "", None),  # `other`'s limits
        (dialogue(ASKED, "答" * 4001), "zh", "long-answer"),
        (dialogue("word " * 1201, "Take some rest and drink enough."), "en", "long-question"),
        (dialogue("", ANSWER), "zh", "empty-question"),
        (dialogue(ASKED, " \n\u3000"), "zh", "empty-answer"),
        (dialogue(ASKED, ANSWER, ASKED, ""), "zh", "empty-answer"),
        (dialogue(*[f"问题在这里{n // 2}" if n % 2 == 0 else f"回答在这里说{n}" for n in range(64)]), "zh", None),
        (dialogue(*[f"问题在这里{n // 2}" if n % 2 == 0 else f"回答在这里说{n}" for n in range(66)]), "zh",
         "too-many-exchanges"),
    ],
)  # fmt: skip
def test_lengths(found: Messages, lang: str, reason: str | None) -> None:
    assert judged(found, lang)[0] == reason


def test_an_examination_question_may_have_a_letter_for_an_answer() -> None:
    found = dialogue("下列哪项正确？A.甲 B.乙", "A", "下列哪项错误？A.甲 B.乙", "A")
    assert judged(found, kind="options")[0] is None
    assert judged(found, kind="qa")[0] == "short-answer"


def test_limits_change_by_language_and_can_be_switched_off() -> None:
    changed = ShapeConfig.model_validate({"lengths": {"least_answer": {"zh": 100}}})
    assert changed.lengths.least_answer.zh == 100
    assert changed.lengths.least_answer.en == Lengths().least_answer.en
    assert judged(dialogue(ASKED, ANSWER), lengths={"least_answer": {"zh": 100}})[0] == "short-answer"
    assert judged(dialogue("无", "有"), lengths=False)[0] is None


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (dialogue(ASKED, "医生 我头痛三天了，怎么办"), "answer-is-question"),
        (dialogue("What is a headache?", "what is a HEADACHE"), "answer-is-question"),
        (dialogue(ASKED, f"{ASKED}{ANSWER}"), None),
        (dialogue(ASKED, ANSWER, "还有别的办法吗？", "建议先测量血压，并到神经内科就诊"), "repeated-answer"),
        (dialogue(ASKED, ANSWER, "谢谢", "不客气", "再见", "不客气"), None),
        (dialogue(ASKED, "作为一个AI语言模型，我没有个人经历，但建议多休息。"), "assistant-phrase"),
        (dialogue(ASKED, "您好，作为人工智能助手，我建议多休息。"), "assistant-phrase"),
        (dialogue(ASKED, "我是一名人工智能医疗助手，建议您多休息。"), "assistant-phrase"),
        (dialogue(ASKED, "请注意，我只是一个语言模型，不能代替医生。"), "assistant-phrase"),
        (dialogue(ASKED, "As an AI language model, I suggest rest."), "assistant-phrase"),
        (dialogue(ASKED, "Please note that I'm just an AI assistant, see a doctor."), "assistant-phrase"),
        (dialogue(ASKED, "作为人工智能专家，他建议用机器人手术。"), None),
        (dialogue(ASKED, "人工智能辅助诊断可以看片子，达芬奇机器人可以做手术。"), None),
        (dialogue(ASKED, "As an AI researcher, he knows. Artificial intelligence reads the scan."), None),
        (dialogue(ASKED, "很抱歉，我无法提供医疗建议，请咨询医生。"), "refusal"),
        (dialogue(ASKED, "您好！对不起，我不能回答这个问题。"), "refusal"),
        (dialogue(ASKED, "I'm sorry, but I can't assist with that request."), "refusal"),
        (dialogue(ASKED, "I apologize, but I am unable to provide medical advice."), "refusal"),
        (dialogue(ASKED, "很抱歉听到您头痛，建议您先测量血压再就诊。"), None),
        (dialogue(ASKED, "您好，没有看到片子我无法判断，请您上传片子再说。"), None),
        (dialogue(ASKED, "I'm sorry to hear that. You cannot drive with this."), None),
        (dialogue(ASKED, "Hello, you are unable to sleep because of the steroid."), None),
        (dialogue(ASKED, "http://www.120ask.com/question/123456.htm"), "only-links"),
        (dialogue(ASKED, "见 https://a.b/c?d=1"), "only-links"),
        (dialogue(ASKED, f"{ANSWER} 详见 https://a.b/c"), None),
        (dialogue(ASKED, "加微信咨询，货到付款，祖传秘方，无效退款。"), "advertising-answer"),
        (dialogue(ASKED, "Order now, free shipping, money back guarantee!"), "advertising-answer"),
        (dialogue(ASKED, "本病可以根治，不要相信祖传秘方、包治百病的广告。"), None),
    ],
)
def test_answers(found: Messages, reason: str | None) -> None:
    assert judged(found)[0] == reason
    off = {
        "answer-is-question": {"answer_is_question": False}, "repeated-answer": {"repeated_answer": None},
        "assistant-phrase": {"assistant_phrases": False}, "refusal": {"refusals": False},
        "only-links": {"links": False}, "advertising-answer": {"most_advertising": None},
    }  # fmt: skip
    if reason:
        assert judged(found, **off[reason])[0] is None


def test_evidence_is_a_place_and_no_words() -> None:
    answer = "您好，作为王建国的人工智能助手，我建议多休息。"
    (drop,) = ShapeConfig().build()(batch_of_dialogues([dialogue(ASKED, ANSWER, "谢谢", answer)], "zh")).drops
    assert drop is not None
    assert drop.reason == "assistant-phrase"
    assert drop.detail == {"span": [3, 15], "exchange": 2}  # 作为 … 助手


@pytest.mark.parametrize(
    ("answer", "cut"),
    [
        (ANSWER, False), ("建议休息", True), ("建议休息，", True), ("建议（休息）", False), ("他说“多休息。”", False),
        ("Take a rest.", False), ("Take a rest and", True), ("Take it (twice a day).", False),
        ("建议休息！  \n", False), ("**Take a rest.**", False), ("建议多休息~", False),
    ],
)  # fmt: skip
def test_an_answer_that_is_cut_off(answer: str, cut: bool) -> None:
    reason, _ = judged(dialogue(ASKED, answer), cut_off=True, lengths=False)
    assert (reason == "cut-off-answer") == cut
    assert judged(dialogue(ASKED, answer), lengths=False)[0] is None


def test_languages_that_differ() -> None:
    english = "Take a rest and drink enough water."
    assert judged(dialogue(ASKED, english), same_language=True)[0] == "languages-differ"
    assert judged(dialogue(english, ANSWER), "en", same_language=True, lengths=False)[0] == "languages-differ"
    assert judged(dialogue(ASKED, english))[0] is None
    for answer in (ANSWER, "WBC 12×10^9/L 偏高，请复查血常规", "50 mg", "ibuprofen 布洛芬缓释胶囊"):
        assert judged(dialogue(ASKED, answer), same_language=True, lengths=False)[0] is None


@needs_shared
def test_real_dialogues_keep() -> None:
    """What goes of the 13,096 was looked at one by one: "无", "？", "海慈院" as questions, "Asthma." and a program."""
    found = {}
    for lang in ("zh", "en"):
        drops = ShapeConfig().build()(batch_of_dialogues(real_dialogues(lang), lang)).drops
        found[lang] = dict(Counter(drop.reason for drop in drops if drop))
    assert found == {"zh": {"short-question": 7}, "en": {"short-answer": 1, "assistant-phrase": 1}}


_CONTENTS = st.text(st.characters(), max_size=12) | st.sampled_from([ASKED, ANSWER, "", " ", "A", "\ud800", "我是AI"])
_MESSAGES = st.lists(st.tuples(st.sampled_from("suaua"), _CONTENTS), max_size=8)
_STEPS = (
    ShapeConfig().build(),
    ShapeConfig(join_same_role=False, cut_dangling=False, cut_off=True, same_language=True, lengths=False).build(),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_MESSAGES, max_size=5), st.sampled_from(_STEPS))
def test_what_stays_is_in_order_and_the_same_again(dialogues: list[list[tuple[str, str]]], step: ShapeStep) -> None:
    found = [messages("".join(role for role, _ in said), *(content for _, content in said)) for said in dialogues]
    batch = batch_of_dialogues(found, "zh")
    outcome = step(batch)
    alone = [step(batch_of_dialogues([one], "zh")) for one in found]
    assert outcome.drops == [one.drops[0] for one in alone]
    assert outcome.messages == [one.messages[0] for one in alone]
    for before, drop, new in zip(found, outcome.drops, outcome.messages):
        if drop is None:
            after = new or before
            roles = "".join(message["role"][0] for message in after).lstrip("s")
            assert roles and roles == "ua" * (len(roles) // 2)
            assert all(message["content"].strip() for message in after if message["role"] != "system")
            said = set(dialogue_text(before).split("\n"))
            assert set(dialogue_text(after).split("\n")) <= said | {""}
            (again,) = step(batch_of_dialogues([after], "zh")).messages
            assert again is None
        else:
            assert new is None


def test_a_thousand_turns() -> None:
    long = dialogue(*[f"这是第{place}句话。" for place in range(2000)])
    assert judged(long)[0] == "too-many-exchanges"
    assert judged(long, most_exchanges=1000) == (None, "ua" * 1000)
    assert judged(messages("u" * 1000 + "a" * 1000), lengths=False) == (None, "ua")
