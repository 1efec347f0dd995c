"""Normalisation against unicodedata's NFKC, Python's own codecs and pairs written by hand."""

import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.corpus.batch import Batch
from data_tools.corpus.normalise import NormaliseConfig, normalise, repaired, simplified, suspects
from tests.data_tools.corpus.text_batches import batch_of

# Folded exactly as NFKC does: (first, last).
FOLDED = [
    (0xFF10, 0xFF19), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A), (0xFF66, 0xFF9D), (0xFB00, 0xFB06), (0x2F00, 0x2FD5),
    (0xF900, 0xFA0D), (0x2F800, 0x2FA1D), (0x1D400, 0x1D454), (0xB5, 0xB5), (0x2126, 0x2126), (0x338D, 0x339E),
]  # fmt: skip
KEPT = "，：；！？（）～。、“”‘’《》【】…—·¹²³⁰⁹⁺⁻ⁿ₀₂½¼⅓①⑳Ⅰ Ⅱ Ⅻ ⅳ℃℉№™°×÷±≤≥αβγμ→㈠⑴Ⓐ👨‍⚕️é한글カタカナ"


@pytest.mark.parametrize("first, last", FOLDED)
def test_folds_as_nfkc(first: int, last: int) -> None:
    for code in range(first, last + 1):
        assert normalise(f"a{chr(code)}b") == unicodedata.normalize("NFKC", f"a{chr(code)}b"), hex(code)


def test_keeps_what_nfkc_would_spoil() -> None:
    assert normalise(KEPT) == KEPT
    for text in ("Ⅱ型糖尿病，WBC 12×10⁹/L，体温38.5℃。", "H₂O 5 m² ½片 ①头痛；②发热！"):
        assert normalise(text) == text and not suspects([text])
        assert unicodedata.normalize("NFKC", text) != text


@pytest.mark.parametrize(
    "text, expected",
    [
        ("㎡ ㎥ ㎎ ㏄", "m² m³ mg cc"),
        ("血糖１２．５ｍｍｏｌ／Ｌ", "血糖12.5mmol/L"),
        ("ｶﾞﾝ", "ガン"),
        ("e\u0301", "é"),
        ("﹐︑（﹪）", "，、（%）"),
        ("一\r\n二\r三\u2028四\x0b五", "一\n二\n三\n四\n五"),
        ("一\n\n\n\n二", "一\n\n二"),
        ("  x  y\t\tz \u00a0 w  ", "  x y\tz w"),
        ("\u3000\u3000患者\u3000男", "患者 男"),
        ("a\x00b\x1f\x7f\u200b\ufeff\u00ad\u202e\u2066c", "abc"),
        ("he\u200dart", "heart"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("患者&nbsp;男&lt;5&amp;amp;gt;3&#8451;&hellip;", "患者 男<5>3℃…"),
        ("AT&T &foo; &notit; R&D;", "AT&T &foo; &notit; R&D;"),
        ('一<br/>二<p class="x">三</p>10<sup>9</sup>/L', "一\n二三\n10⁹/L"),
        ("P<0.05, a<p and p>0.1, x<y", "P<0.05, a<p and p>0.1, x<y"),
        ("它\x92s", "它’s"),
        ("private\ue123use", "privateuse"),
    ],
)
def test_by_hand(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize("text", ["您好，患者头痛三天，请问怎么治疗？", "naïve café – “quoted” text’s end"])
@pytest.mark.parametrize("codec", ["latin-1", "cp1252"])
def test_mojibake_comes_back(text: str, codec: str) -> None:
    try:
        broken = text.encode().decode(codec)
    except UnicodeDecodeError:
        pytest.skip("the codec has no sign for one of the bytes")
    assert broken != text
    assert normalise(broken) == text


def test_gbk_mojibake_comes_back() -> None:
    broken = "头痛，三天了".encode().decode("gb18030")
    assert normalise(f"{broken}\n没有发烧") == "头痛，三天了\n没有发烧"


def test_true_text_with_the_signs_of_gbk_mojibake_stays() -> None:
    assert normalise("锛是一种金属，符号Sb") == "锛是一种金属，符号Sb"


_signs = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from(list("\u3000 \t\n\r\x85\xa0&lt;amp<br/>p#x3\u200d\u200b\u0301éÃ©â€™＆；ﾞｶ°Å锛銆锟斤拷\x1b[0m")),
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(_signs, max_size=40))
def test_again_changes_nothing_and_no_text_is_overlooked(text: str) -> None:
    result, _ = repaired(text, True)
    if result is None:
        return
    assert normalise(text) == result  # where the quick look finds nothing, the slow way changes nothing
    assert normalise(result) == result
    assert repaired(result, True) == (result, 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(_signs, max_size=20), max_size=6), st.randoms())
def test_a_document_fares_the_same_in_any_batch(texts: list[str], random: object) -> None:
    step = NormaliseConfig(traditional_to_simplified=True).build()
    together = step(batch_of(texts))
    for place, text in enumerate(texts):
        alone = step(batch_of([text]))
        assert alone.drops[0] == together.drops[place] and alone.texts[0] == together.texts[place]


def test_broken_text_goes_above_the_share_only() -> None:
    step = NormaliseConfig(most_broken=0.01).build()
    outcome = step(
        batch_of(["好" * 99 + "\ufffd", "好" * 98 + "\ufffd\ue000", "锟斤拷" * 5, "", " \n", "&" + "amp;" * 40 + "lt;"])
    )
    assert [drop and drop.reason for drop in outcome.drops] == [
        None, "broken-text", "broken-text", "empty-text", "empty-text", None,
    ]  # fmt: skip
    assert outcome.texts[0] == "好" * 99 and outcome.texts[5] == "<"
    assert outcome.drops[1] is not None and outcome.drops[1].detail == {"value": 0.02, "limit": 0.01}


def test_nesting_that_never_ends_is_a_reason() -> None:
    text = "<sp" * 40 + "<span>" + "an>" * 40
    drop = NormaliseConfig().build()(batch_of([text])).drops[0]
    assert drop is not None and drop.reason == "broken-text"
    with pytest.raises(ValueError, match="nested"):
        normalise(text)


@pytest.mark.parametrize(
    "traditional, plain",
    [
        ("頭髮發炎，醫師開藥。", "头发发炎，医师开药。"),
        ("乾隆年間，乾燥綜合徵", "乾隆年间，干燥综合征"),
        ("皇后之後", "皇后之后"),
        ("患者，男。", "患者，男。"),
        ("頭痛のときは薬を飲む", "頭痛のときは薬を飲む"),
    ],
)
def test_traditional_characters(traditional: str, plain: str) -> None:
    assert simplified(traditional) == plain
    on, off = (NormaliseConfig(traditional_to_simplified=state).build() for state in (True, False))
    batch = batch_of([traditional])
    assert (on(batch).texts[0] or traditional) == plain
    assert off(batch).texts[0] is None
    other = Batch(batch.ids, batch.texts, ["other"], batch.sources, batch.metas)
    assert on(other).texts[0] is None
