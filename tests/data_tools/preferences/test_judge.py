"""Verdicts on two answers, and answers of an author: read strictly, and never guessed."""

import asyncio
import csv
import itertools
import json
from typing import Any

import pytest

from data_tools.llm import Answer, Failure, Request, Result
from data_tools.preferences.author import (
    REFUSALS,
    answer_text,
    author_messages,
    language_of,
    prompt_language,
    unusable,
)
from data_tools.preferences.judge import PLACES, comparison, judged
from data_tools.preferences.verdicts import ASPECTS, ORDERS, Side, Verdict, agreed, read_comparison
from data_tools.prompts import (
    VerdictError,
    fence_code,
    fence_code_of,
    load_fenced_prompt,
    load_instruction,
    read_verdict,
)
from data_tools.records import Messages
from tests.data_tools.corpus.real_texts import SHARED, needs_shared
from tests.data_tools.llm_server import asked_to_compare, verdict

CODE = "0123456789ab"
CONVERSATION: Messages = (
    {"role": "user", "content": "我发烧两天了。"},
    {"role": "assistant", "content": "体温多少？"},
    {"role": "user", "content": "38.5 度，能吃 {second} 吗？"},
)


def said(text: str, finish_reason: str = "stop") -> Answer:
    return Answer(text, finish_reason, "m", 1, 1)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (verdict(CODE, "first"), "first"),
        (verdict(CODE, "tie"), "tie"),
        (verdict(CODE, "second", fluency="tie", reason='says "first" is better'), "second"),
        (f"```json\n{verdict(CODE, 'second')}\n```", "second"),
        (f"```json\n{json.dumps(json.loads(verdict(CODE, 'second')), indent=2)}\n```", "second"),
        (f"The first names no drug.\n{verdict(CODE, 'second')}", "second"),
        (f"<think>{verdict(CODE, 'first')} or\n{verdict(CODE, 'tie')}?</think>\n{verdict(CODE, 'second')}", "second"),
        (f"{verdict(CODE, 'first')}\nI hope this helps.", "no-verdict"),
        (f"{verdict(CODE, 'first')}\n{verdict(CODE, 'second')}", "contradictory"),
        (f"At first: {verdict(CODE, 'first')}, but no.\n{verdict(CODE, 'second')}", "contradictory"),
        (f"{verdict(CODE, 'second', fluency='first')}\n{verdict(CODE, 'second')}", "contradictory"),
        (f"{json.dumps(json.loads(verdict(CODE, 'first')), indent=1)}\n{verdict(CODE, 'second')}", "contradictory"),
        (f"{verdict('f' * 12, 'first')}\n{verdict(CODE, 'second')}", "second"),
        (f"{verdict(CODE, 'second')}\n{verdict(CODE, 'second')}", "second"),
        (verdict(CODE.upper(), "first"), "wrong-code"),
        (verdict("", "first"), "wrong-code"),
        (verdict(CODE, "First"), "unknown-verdict"),
        (verdict(CODE, "Assistant 1"), "unknown-verdict"),
        (verdict(CODE, "first", overall="both"), "unknown-verdict"),
        (verdict(CODE, "first", fluency=None), "unknown-verdict"),
        (verdict(CODE, "first", fluency=["first"]), "unknown-verdict"),
        (verdict(CODE, "first", overall=True), "unknown-verdict"),
        (verdict(CODE, "first", winner="first"), "no-verdict"),
        (verdict(CODE, "first").replace("}", ', "overall": "second"}'), "no-verdict"),
        (json.dumps({"comparison": CODE, "overall": "first"}), "no-verdict"),
        (verdict(CODE, "first").replace("comparison", "document"), "no-verdict"),
        (f"[{verdict(CODE, 'first')}]", "no-verdict"),
        (verdict(CODE, "first")[:-1], "no-verdict"),
        ("Assistant 1 is better than Assistant 2", "no-verdict"),
        ("第一个回答更好。", "no-verdict"),
        ("first", "no-verdict"),
        ('{"a":' * 50_000, "no-verdict"),
        ("", "empty"),
        (f"{verdict(CODE, 'first')}</think>\n ", "empty"),
    ],
)
def test_a_comparison_is_read_strictly(answer: str, found: str) -> None:
    try:
        assert read_comparison(answer, CODE).overall == found
    except VerdictError as error:
        assert error.reason == found


def test_an_overall_verdict_that_no_aspect_shares_is_contradictory() -> None:
    valid = {"first": 0, "second": 0, "tie": 0}
    for overall, *aspects in itertools.product(valid, repeat=5):
        text = verdict(CODE, overall, **dict(zip(ASPECTS, aspects)))
        try:
            assert read_comparison(text, CODE) == Verdict(dict(zip(ASPECTS, aspects)), overall)  # type: ignore[arg-type]
            valid[overall] += 1
        except VerdictError as error:
            assert error.reason == "contradictory"
    # A win needs one aspect out of four: 3⁴ − 2⁴. A tie is refused where all four are first, or all four second.
    assert valid == {"first": 65, "second": 65, "tie": 79}


@pytest.mark.parametrize(
    ("original_first", "new_first", "strict", "loose"),
    [
        ("original", "original", "original", "original"),
        ("new", "new", "new", "new"),
        ("tie", "tie", "judge-ties", "judge-ties"),
        ("original", "new", "judge-disagrees", "judge-disagrees"),
        ("new", "original", "judge-disagrees", "judge-disagrees"),
        ("original", "tie", "judge-half-ties", "original"),
        ("tie", "original", "judge-half-ties", "original"),
        ("new", "tie", "judge-half-ties", "new"),
        ("tie", "new", "judge-half-ties", "new"),
    ],
)
def test_a_win_needs_both_orders(original_first: Side, new_first: Side, strict: str, loose: str) -> None:
    sides: dict[Any, Side] = dict(zip(ORDERS, (original_first, new_first)))
    for rule, wanted in ((True, strict), (False, loose)):
        winner, reason = agreed(sides, strict=rule)
        assert (winner or reason) == wanted
        assert (winner is None) == bool(reason)


def test_a_place_is_the_answer_that_stood_there() -> None:
    places = dict(zip(ASPECTS, ("first", "second", "tie", "first")))
    found = Verdict(places, "first")  # type: ignore[arg-type]
    names = (*ASPECTS, "overall")
    assert found.sides("original-first") == dict(zip(names, ("original", "new", "tie", "original", "original")))
    assert found.sides("new-first") == dict(zip(names, ("new", "original", "tie", "new", "new")))


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_judge_reads_every_text_whole_inside_its_fence(language: Any) -> None:
    prompt = load_fenced_prompt("compare", 1, language, PLACES)
    original, new = "{first} {code} 多喝水 \\1 \\g<0>", "{conversation} {}% rest"
    codes = set()
    for order in ORDERS:
        question = comparison(prompt, language, CONVERSATION, original, new, order)
        code, texts, outside = asked_to_compare({"messages": question.messages})
        assert code == question.code
        assert [texts["first"], texts["second"]] == ([original, new] if order == "original-first" else [new, original])
        lines = texts["conversation"].split("\n")
        assert lines[1::2] == [message["content"] for message in CONVERSATION]
        assert all(line.startswith(f"--- {code} ") for line in lines[::2])
        assert not any(code in text for text in (original, new, *(each["content"] for each in CONVERSATION)))
        for text in (original, new, CONVERSATION[0]["content"]):
            assert text not in outside
        assert question.messages[0] == {"role": "system", "content": prompt.system}
        codes.add(code)
    assert len(codes) == 2, "a verdict on one order is none on the other"


def test_the_code_changes_with_every_text_and_their_bounds() -> None:
    texts = ["ab", "c", "d"]
    others = [["a", "bc", "d"], ["c", "ab", "d"], ["ab", "c"], ["ab", "c", "d", ""], ["abc", "", "d"], ["ab", "c", "e"]]
    codes = {fence_code_of(each) for each in [texts, *others]}
    assert len(codes) == 7
    every = ["".join(f"{number:03x}" for number in range(4096)), "x"]
    assert fence_code_of(every) not in every[0]
    # Each text may know all the others, and the scheme: with the code as it was before it is written, another comes.
    guessed = fence_code_of(texts)
    assert fence_code_of(["ab", "c", f"d {guessed}"]) != guessed
    assert fence_code("ab") not in codes


def test_a_prompt_without_its_places_is_refused() -> None:
    with pytest.raises(ValueError, match=r"compare\.v1\.zh\.txt must hold .*\{conversation\}, \{other\}"):
        load_fenced_prompt("compare", 1, "zh", ("conversation", "other"))
    with pytest.raises(FileNotFoundError):
        load_instruction("doctor", 99, "zh")
    for language in ("zh", "en"):
        system = load_fenced_prompt("compare", 1, language, PLACES).system
        for name in (*ASPECTS, "overall", "comparison"):
            assert f'"{name}"' in system
        for place in ("first", "second", "tie"):
            assert f'"{place}"' in system


def test_the_reader_of_labels_sees_a_second_verdict_anywhere() -> None:
    other = '{"document": "c0de", "label": "other"}'
    last = '{"document": "c0de", "label": "medical"}'
    for answer in (f"first {other}, then\n{last}", f"{other} {other}\n{last}"):
        with pytest.raises(VerdictError) as caught:
            read_verdict(answer, "c0de", "label")
        assert caught.value.reason == "contradictory"
    assert read_verdict(f"so {last}, thus\n{last}", "c0de", "label") == "medical"


def test_an_invalid_verdict_is_asked_for_again_and_never_made_up() -> None:
    prompt = load_fenced_prompt("compare", 1, "zh", PLACES)
    question = comparison(prompt, "zh", CONVERSATION, "多喝水。", "吃药。", "new-first")

    def asking(results: list[Result]) -> tuple[Any, list[Request]]:
        asked: list[Request] = []

        async def ask(request: Request) -> Result:
            asked.append(request)
            return results[len(asked) - 1]

        return asyncio.run(judged(ask, question, 2, "id")), asked

    good = said(verdict(question.code, "second"))
    judgement, asked = asking([said("?"), said(""), good, good])
    assert [request.sample for request in asked] == [0, 1, 2]
    assert all(request.messages == question.messages for request in asked)
    assert judgement.side() == "original"
    assert [each["invalid"] for each in judgement.said] == ["no-verdict", "empty", None]
    judgement, asked = asking([said(verdict(CODE, "first")), said(good.text, "length"), said("tie"), good])
    assert (judgement.side(), judgement.failure, len(asked)) == (None, None, 3)
    assert [each["invalid"] for each in judgement.said] == ["wrong-code", "cut-off", "no-verdict"]
    judgement, asked = asking([said("?"), Failure("timeout", "slow"), good])
    assert (judgement.side(), judgement.failure, len(asked)) == (None, Failure("timeout", "slow"), 2)


def test_only_our_words_stand_in_the_authors_system_message() -> None:
    instruction = load_instruction("doctor", 1, "zh")
    prompt: Messages = ({"role": "system", "content": "你是 ChatDoctor。"}, *CONVERSATION)
    system, *rest = author_messages(instruction, (*prompt, {"role": "user", "content": "急！"}))
    assert system == {"role": "system", "content": instruction.system}
    assert rest == [
        {"role": "user", "content": "你是 ChatDoctor。\n我发烧两天了。"},
        {"role": "assistant", "content": "体温多少？"},
        {"role": "user", "content": "38.5 度，能吃 {second} 吗？\n急！"},
    ]
    assert prompt[1]["content"] == "我发烧两天了。", "the candidate's own messages stay as they are"


ENGLISH = "You have a cold. Drink enough, rest, and see a doctor if the fever stays for three days."
CHINESE = "您可能是感冒了，多喝水，注意休息，如果三天后仍然发烧，请到医院就诊。"


@pytest.mark.parametrize(
    ("text", "finish_reason", "language", "reason"),
    [
        (CHINESE, "stop", "zh", None),
        (ENGLISH, "stop", "en", None),
        ("Rest.", "stop", "en", None),
        ("The CT has an air leak; as an aid, take the chest drain out slowly.", "stop", "en", None),
        (f"<think>English?</think>{CHINESE}", "stop", "zh", None),
        (CHINESE, "length", "zh", "author-cut-off"),
        (CHINESE, "content_filter", "zh", "author-filtered"),
        (" \n", "stop", "zh", "author-empty"),
        ("<think>Still thinking", "stop", "zh", "author-empty"),
        (f"<think>{CHINESE}</think>", "stop", "zh", "author-empty"),
        (ENGLISH, "stop", "zh", "author-language"),
        (CHINESE, "stop", "en", "author-language"),
        ("Vous avez un rhume, buvez beaucoup d'eau et reposez-vous bien.", "stop", "en", "author-language"),
        ("風邪だと思います。水分をとって休んでください。", "stop", "zh", "author-language"),
        (f"As an AI, I am not able to examine you. {ENGLISH}", "stop", "en", "author-refuses"),
        (f"I’m sorry,  but I\ncan’t say. {ENGLISH}", "stop", "en", "author-refuses"),
        (f"作为一个 AI 语言模型，{CHINESE}", "stop", "zh", "author-refuses"),
        ("很抱歉，我无法提供医疗建议。", "stop", "zh", "author-refuses"),
        ("请多 喝水，\n好好休息。", "stop", "zh", "author-repeats"),
    ],
)
def test_an_authors_answer_is_looked_at_before_it_is_judged(
    text: str, finish_reason: str, language: Any, reason: str | None
) -> None:
    found = unusable(said(text, finish_reason), "请多喝水，好好休息。 ", language, REFUSALS)
    assert (found and found[0]) == reason
    if reason is None:
        assert answer_text(said(text)) == text.rpartition("</think>")[2]


@pytest.mark.parametrize(
    ("lang", "question", "found"),
    [
        ("zh-CN", "hello", "zh"),
        ("en_GB", "你好", "en"),
        ("", "我发烧两天了", "zh"),
        ("", "What should I take for the fever that I have had for two days?", "en"),
        ("ja", "我发烧两天了", None),
        ("", "昨日から熱があります。どうすればいいですか。", None),
    ],
)
def test_the_language_that_a_candidate_is_asked_in(lang: str, question: str, found: str | None) -> None:
    assert prompt_language(lang, ({"role": "user", "content": question},)) == found
    assert language_of("") == "other"


@needs_shared
def test_what_real_doctors_write_is_neither_a_refusal_nor_in_the_wrong_language() -> None:
    records = json.loads((SHARED / "chatdoctor5k.json").read_bytes())
    with (SHARED / "chinese_medical_dialogue_sample.csv").open(encoding="gb18030", newline="") as rows:
        chinese = [row["answer"] for row in csv.DictReader(rows)]
    texts: list[tuple[Any, str]] = [("en", record["output"]) for record in records]
    texts += [("zh", text) for text in chinese]
    found = [unusable(said(text), "", language, REFUSALS) for language, text in texts[::5]]
    assert len(found) > 2500
    # In all 13,096 there are two: a healer who says that he is no doctor, and one answer by a language model.
    assert sum(each is not None for each in found) <= 2
    swapped = [unusable(said(text), "", "zh" if language == "en" else "en", REFUSALS) for language, text in texts[::50]]
    assert {each[0] for each in swapped if each is not None} == {"author-language"}
    assert None not in swapped
