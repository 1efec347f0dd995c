import numpy as np
import pytest

from data_tools import _text
from data_tools.corpus import rule_words
from data_tools.corpus.batch import Batch, Outcome
from data_tools.corpus.rule_characters import PUNCTUATION, TERMINAL, traditional
from data_tools.corpus.rules import RULES, RulesConfig
from data_tools.corpus.step_config import Resources
from data_tools.inputs import InputError
from tests.data_tools.corpus.real_texts import chatdoctor, dialogues, medquad, needs_shared, passages
from tests.data_tools.corpus.rule_oracle import PHRASES, statistics

UNITS = ("words", "characters", "blanks")
GOOD_EN = (
    "The patient came to the clinic with a cough and a light fever that had begun two days before. The doctor listened "
    "to her chest and found it clear. She was told to rest, to drink plenty of water and to come back within a week."
)
GOOD_ZH = (
    "患者两天前开始咳嗽，伴有低热，没有胸痛，也没有呼吸困难。查体：咽部轻度充血，双肺呼吸音清，未闻及干湿啰音。"
    "建议多喝水，注意休息，清淡饮食，必要时口服退热药；如果三天后仍然发热，请到医院复查血常规和胸片。"
)


def run(texts: list[str], languages: list[str], **config: object) -> Outcome:
    step = RulesConfig.model_validate(config).build(Resources(tokenizer=None, seed=0))  # type: ignore[arg-type]
    return step(Batch([""] * len(texts), list(texts), languages, [""] * len(texts), [{} for _ in texts]))


def reason(text: str, language: str, **config: object) -> str | None:
    drop = run([text], [language], **config).drops[0]
    return drop.reason if drop else None


def kernel(unit: str, **changes: object) -> _text.Features:
    settings = {
        "punctuation": PUNCTUATION, "terminal": TERMINAL, "traditional": traditional(), "short_line": 30,
        "stop_words": list(rule_words.STOP_WORDS["en"] + rule_words.STOP_WORDS["zh"]), "phrases": {},
        "line_rules": None,
    }  # fmt: skip
    return _text.Features(unit, **(settings | changes))  # type: ignore[arg-type]


def check(texts: list[str], unit: str) -> None:
    table_NF, edited = kernel(unit, phrases=PHRASES)(texts)
    assert edited == [None] * len(texts)
    stop_words = rule_words.STOP_WORDS["en"] + rule_words.STOP_WORDS["zh"]
    for text, row in zip(texts, table_NF):
        found = dict(zip(_text.FEATURES, row.tolist()))
        for name, value in statistics(text, unit, stop_words, 30).items():
            assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-12), (name, text[:100])


PIECES = (
    "the", "be", "of", "and", "a", "ab", "abc", " ", "  ", "\n", "\n\n", "\n\n\n", "\r\n", "\r", "\x0b", "\x1c",
    "\x85", "\u2028", "\u3000", "\xa0", ".", "...", "....", "…", "#", "-", "•", "- ", "'", "’", "_", "don't", "123",
    "①",
    "²", "٣", "的", "是", "中醫", "医院", "𠀀", "𠀀𠀁", "é", "e\u0301", "İ", "ß", "\ud800", "\udfff", "\x00", "\ufffd",
    "\ue000", "😀", "。", "！", "?", "it's", "same line", "the same words come again and again", "扣扣", "微信", "：",
    "QQ", "wx_12345", "加V", "13800138000", "010-12345678", "400-800-1234", "https://a.example/x?y", "www.", "1", "-",
    "Casino", "read more", "cheap viagra", "上一篇", "包邮", "立即购买", "锟斤拷", "â€™",
)  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_statistics_equal_plain_python_on_made_texts(unit: str) -> None:
    random = np.random.default_rng(1)
    texts = ["", " ", "\n", "\n\n", "a", "\ud800", "a\nb\na", "\na\n"]
    for size in (2, 5, 12, 40, 150):
        for _ in range(12):
            few = random.choice(PIECES, 6)  # few pieces repeat, all of them do not
            texts += ["".join(random.choice(few, size)), "".join(random.choice(PIECES, size))]
    check(texts, unit)


@needs_shared
@pytest.mark.parametrize("unit", UNITS)
def test_statistics_equal_plain_python_on_real_texts(unit: str) -> None:
    check([*medquad()[:15], *chatdoctor()[:15], *dialogues()[:20], passages()[7]], unit)


def test_the_same_document_gets_the_same_outcome_in_any_batch() -> None:
    texts = [GOOD_EN, GOOD_ZH, "短", "x", GOOD_EN * 3, "\ud800" * 30]
    together = run(texts, ["en", "zh", "zh", "", "", "other"])
    for place, (text, language) in enumerate(zip(texts, ["en", "zh", "zh", "", "", "other"])):
        alone = run([text], [language])
        assert alone.drops[0] == together.drops[place]
        assert alone.texts[0] == together.texts[place]
        for name, column in alone.measures.items():
            assert column[0] == together.measures[name][place]


def test_good_texts_stay_with_and_without_a_language() -> None:
    outcome = run([GOOD_EN, GOOD_ZH, GOOD_EN, GOOD_ZH], ["en", "zh", "", ""])
    assert outcome.drops == [None] * 4
    assert outcome.texts == [None] * 4


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("太短", "zh", "too-few-characters"),
        (GOOD_ZH + "加微信 yisheng8899 免费咨询", "zh", "solicitation"),
        (GOOD_EN + " Reach me on WhatsApp: +15550199 today.", "en", "solicitation"),
        (
            "限时抢购！买一送一，货到付款，包邮到家，立即下单，全网最低价，厂家直销，咨询热线等你来。" * 2,
            "zh", "advertising",
        ),
        (
            "Buy now! Limited time offer, free shipping and a money back guarantee. Order today and act now. " * 2,
            "en", "advertising",
        ),
        (
            "上一篇 下一篇 相关阅读 热门文章 猜你喜欢 返回顶部 网站地图 友情链接 关于我们 " + GOOD_ZH[:60],
            "zh", "boilerplate",
        ),
        ("https://a.example/x/y/z/0123456789 " * 6 + "see these", "en", "links"),
        (
            "电话 13800138000，或 010-12345678，或 400-800-1234，或 13900139000。" + GOOD_ZH,
            "zh", "telephone-numbers",
        ),
        ("澳门赌场 百家乐 老虎机 真人娱乐 时时彩 投注 " + GOOD_ZH, "zh", "flagged-words"),
        ("porn casino " * 3 + GOOD_EN[:150], "en", "flagged-words"),
        (GOOD_EN + "\nif (x) { return }", "en", "curly-bracket"),
        (GOOD_EN + "\nLorem ipsum dolor sit amet.", "en", "lorem-ipsum"),
        ("锟斤拷烫烫烫" * 3 + GOOD_ZH, "zh", "broken-characters"),
        (GOOD_EN + "\ufffd" * 10, "en", "broken-characters"),
        (GOOD_EN, "zh", "few-han-characters"),
        ("word " * 10, "en", "too-few-words"),
        ("of the a to be " * 20, "en", "short-words"),
        ("to electroencephalographical " * 20, "en", "long-words"),
        ((GOOD_EN + "\n\n") * 3, "en", "duplicate-paragraphs"),
        ("好的" * 200, "zh", "few-stop-words"),
        ("的是" * 200, "zh", "top-2-gram"),
    ],
)  # fmt: skip
def test_bad_texts_go_for_their_reason(text: str, language: str, expected: str) -> None:
    assert reason(text, language) == expected


def test_a_drop_tells_value_limit_and_language() -> None:
    drop = run(["word " * 10], ["en"]).drops[0]
    assert drop is not None
    assert drop.detail == {"value": 10.0, "limit": 20.0, "language": "en"}


def test_a_family_is_switched_off_and_a_limit_changed_for_one_language() -> None:
    families = ("gopher_quality", "gopher_repetition", "fineweb", "flagdata")
    assert reason("word " * 10, "en", **dict.fromkeys(families, False)) is None
    config = RulesConfig.model_validate({"gopher_quality": {"min_words": {"en": 5}, "min_stop_words": None}})
    quality = config.gopher_quality
    assert (quality.min_words.en, quality.min_words.zh) == (5, 50)
    assert quality.min_stop_words.en is quality.min_stop_words.zh is None
    with pytest.raises(ValueError, match="min_word"):
        RulesConfig.model_validate({"gopher_quality": {"min_word": 5}})


def test_every_rule_has_its_own_reason_and_reads_a_statistic_there_is() -> None:
    assert len({rule.reason for rule in RULES}) == len(RULES)
    config = RulesConfig()
    for rule in RULES:
        assert rule.statistic in _text.FEATURES
        assert hasattr(getattr(config, rule.family), rule.key)
        assert rule.key.startswith(("min_", "max_"))


def test_c4_edits_lines_and_counts_them() -> None:
    text = "\n".join(
        [GOOD_EN, "", "Please enable JavaScript to go on.", "  Read our privacy policy.", "It helps[12] much."]
    )
    outcome = run([text, GOOD_EN], ["en", "en"])
    assert outcome.texts == [GOOD_EN + "\n\nIt helps much.", None]
    assert outcome.counts == {
        "edited documents": 1, "dropped lines: javascript": 1, "dropped lines: policy": 1, "removed citations": 1
    }  # fmt: skip
    assert run([text], ["en"], c4=False).texts == [None]


def test_measures_carry_the_limits_of_their_rules() -> None:
    step = RulesConfig().build(Resources(tokenizer=None, seed=0))  # type: ignore[arg-type]
    assert step.scales["mean_word_length"].limits == {"en": (3.0, 10.0)}
    assert set(step.scales) == set(run([GOOD_EN], ["en"]).measures)


def test_flagged_words_come_from_a_file_too(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "words.txt"
    path.write_text("cough\n\nfever\n", encoding="utf-8")
    assert reason(GOOD_EN, "en", flagged_files={"en": [path]}) == "flagged-words"
    with pytest.raises(InputError, match=r"flagged_files\.zh.*missing"):
        run([GOOD_ZH], ["zh"], flagged_files={"zh": [tmp_path / "missing"]})


def test_any_str_is_measured_and_anything_else_refused() -> None:
    texts = ["", "\x00", "\ud800", "\U0010ffff", "a\x00b" * 100, "\n" * 1000, "[" * 1000, "{" * 10, "." * 1000]
    assert len(run(texts, [""] * len(texts)).drops) == len(texts)
    with pytest.raises(TypeError, match=r"texts\[1\]"):
        kernel("words")(["a", None])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "piece", ["a", "字", ".", "[", "[1", "1-", "a ", "a\n", "加v", "微信 ", "......)a", "的是在"], ids=repr
)
def test_texts_that_repeat_one_piece_are_measured(piece: str) -> None:
    """3,000,000 characters in milliseconds; where time grew with the square of the length, it would be hours."""
    rules = {
        "need_terminal": False, "remove_citations": True, "drop_javascript": True, "drop_policy": True,
        "max_word_length": 1000, "min_words": None,
    }  # fmt: skip
    phrases = {"solicitation": list(rule_words.SOLICITATION), "advertising": list(rule_words.ADVERTISING)}
    text = (piece * 3_000_000)[:3_000_000]
    table_NF, edited = kernel("words", line_rules=rules, phrases=phrases)([text])
    kept = text if edited[0] is None else edited[0]
    assert table_NF[0, _text.FEATURES.index("characters")] == len(kept)
    assert table_NF[0, _text.FEATURES.index("lines")] == len(text.splitlines())


@needs_shared
def test_most_real_documents_stay() -> None:
    for texts, language, least in (
        (medquad()[::4], "en", 0.87), (chatdoctor()[::4], "en", 0.95), (dialogues()[::4], "zh", 0.95),
        (passages()[::4], "zh", 0.88),
    ):  # fmt: skip
        kept = sum(drop is None for drop in run(list(texts), [language] * len(texts)).drops)
        assert kept / len(texts) >= least
