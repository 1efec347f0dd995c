"""Masking against tables written by hand and numbers that hypothesis makes; every value here is invented."""

import re
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpus.privacy import PrivacyConfig
from data_tools.corpus.privacy_rules import TAGS
from tests.data_tools.corpus.text_batches import batch_of

STEP = PrivacyConfig().build()

# The value stands in ⟨ ⟩; the tag takes its place.
POSITIVE = [
    ("resident-id", "身份证⟨11010519491231002X⟩，已核对"),
    ("resident-id", "身份证号：⟨110105491231002⟩"),
    ("resident-id", "ID ⟨110105 19491231 002x⟩"),
    ("bank-card", "打到⟨6222 0212 3456 7890 128⟩这张卡"),
    ("bank-card", "card number: ⟨4111111111111111⟩"),
    ("bank-card", "pay by ⟨4111-1111-1111-1111⟩."),
    ("mobile", "请拨打⟨13812345678⟩联系我"),
    ("mobile", "手机⟨138-1234-5678⟩"),
    ("mobile", "电话 ⟨+86 18812345678⟩。"),
    ("mobile", "call me at ⟨13812345678⟩"),
    ("landline", "座机⟨010-62551234⟩"),
    ("landline", "电话：⟨0755-26001234-801⟩"),
    ("landline", "（南京）⟨(025)83106666⟩"),
    ("landline", "电话：⟨62551234⟩"),
    ("phone", "phone ⟨(617) 555-1234⟩ today"),
    ("phone", "or ⟨617-555-1234⟩."),
    ("phone", "call ⟨+1 617-555-1234⟩"),
    ("ssn", "SSN ⟨123-45-6789⟩"),
    ("e-mail", "发到⟨zhang.san@example.com.cn⟩即可"),
    ("e-mail", "(⟨a_b+c@mail.example.org⟩)"),
    ("ip-address", "from ⟨114.114.115.115⟩ at noon"),
    ("ip-address", "来自⟨2001:da8:200:900e:0:5efe:b66:1⟩的访问"),
    ("passport", "护照号：⟨E12345678⟩"),
    ("passport", "passport number ⟨512345678⟩"),
    ("record-number", "住院号：⟨ZY2015012345⟩"),
    ("record-number", "病历号⟨0012345678⟩，姓名不详"),
    ("record-number", "MRN: ⟨7654321⟩"),
    ("record-number", "medical record number ⟨A-1234567⟩"),
    ("insurance-number", "医保卡号：⟨A123456789⟩"),
    ("social-account", "加QQ：⟨123456789⟩"),
    ("social-account", "微信号：⟨zhang_san88⟩"),
    ("plate", "车牌⟨京A12345⟩的车"),
    ("plate", "新能源⟨粤B·D12345⟩"),
    ("address", "家庭住址：⟨北京市海淀区中关村大街5号院⟩ 已婚"),
    ("address", "姓名不详\n地址：⟨河南省郑州市金水区文化路18号⟩"),
    ("address", "Home address: ⟨12 Long Street, Springfield⟩"),
    ("name", "姓名：⟨王小明⟩，性别：男"),
    ("name", "患者⟨李某⟩，女，45岁"),
    ("name", "患者：⟨张建国⟩，男"),
    ("name", "⟨张⟩医生您好"),
    ("name", "请问⟨欧阳⟩大夫在吗"),
    ("name", "感谢⟨王建华⟩主任医师的治疗"),
    ("name", "Patient name: ⟨John Q. Smith⟩"),
    ("name", "seen by Dr. ⟨Smith⟩ today"),
]

NEGATIVE = [
    "谢谢医生！感谢大夫，多谢医生",
    "向医生咨询，和医生商量，问医生，高血压医生，主任医师，任何医生，如何医治",
    "患者：我最近头痛，患者王浆过敏",
    "姓名：不详，姓名、性别、年龄",
    "阿莫西林500mg tid，血糖12.5mmol/L，WBC 12×10^9/L，BP 150/90mmHg",
    "2015-03-12至2015-04-18住院，20150312，10:30:45",
    "基因EGFR T790M、BRCA1 c.5266dupC、NM_007294.3，ICD-10 E11.900x001",
    "doi:10.1016/j.ab.13812345678 PMID: 13812345678 https://example.org/13812345678",
    "国药准字H20044121，批准文号：国药准字Z20025001，NCT01234567，ISBN 978-7-117-12345-6",
    "热线400-810-1234、800-810-1234，call 1-800-633-4227 or (800) 633-4227",
    "身份证11010519491231002Y 110105194912310021",
    "条形码：6222021234567890128",
    "版本1.2.3.4，第3.2.1.1节，192.168.1.100，127.0.0.1，version v 10.20.30.40",
    "新H1N1流感，C57BL/6小鼠，沪ICP备12345678号",
    "医院地址：见官网，网址 http://example.org/，微信公众号：healthcare",
    "CAS 50-78-2, pages 123-45, tel: see below, ratio 12-34-56",
    "TTY 18007721213",
    "The doctor needs to know. Doctor Who? Ask your Doctor When you visit. Brand Name: Lipitor",
    "10000000000000000 3.14159265358979323846 0123456789012345678901234567890",
]


@pytest.mark.parametrize("type, marked", POSITIVE)
def test_masks_exactly_the_value(type: str, marked: str) -> None:
    text = marked.replace("⟨", "").replace("⟩", "")
    outcome = STEP(batch_of([text]))
    chinese = re.search("[一-鿿]", text) is not None
    assert outcome.texts[0] == re.sub("⟨.*⟩", TAGS[type][0 if chinese else 1], marked)  # type: ignore[index]
    assert outcome.counts == {f"masked {type}": 1}


@pytest.mark.parametrize("text", NEGATIVE)
def test_leaves_what_only_looks_private(text: str) -> None:
    outcome = STEP(batch_of([text]))
    assert outcome.texts[0] is None and not outcome.counts
    assert STEP.masked(text)[0] == text  # all forms, whatever the quick look says


def test_types_are_independent_and_links_are_an_option() -> None:
    text = "电话13812345678，邮箱a@example.com，见https://example.com/a?b=1。"
    mail_only = PrivacyConfig(types=("e-mail",)).build()
    assert mail_only(batch_of([text])).texts == [text.replace("a@example.com", "[邮箱]", 1)]
    links = PrivacyConfig(types=("link",), tags="en").build()
    assert links(batch_of([text])).texts == ["电话13812345678，邮箱a@example.com，见[LINK]。"]


def test_a_document_is_noted_with_how_many_values_of_each_type() -> None:
    outcome = STEP(batch_of(["电话13812345678或13912345678，发到zhang@example.cn", "无", "患者李某，女"]))
    assert outcome.notes == [{"privacy": {"e-mail": 1, "mobile": 2}}, None, {"privacy": {"name": 1}}]


def test_a_list_of_people_is_dropped_without_their_values() -> None:
    text = "\n".join(f"1381234567{digit}" for digit in range(6))
    outcome = PrivacyConfig(most_values=5).build()(batch_of([text, "电话13812345678"]))
    drop = outcome.drops[0]
    assert drop is not None and (drop.reason, drop.detail) == ("private-values", {"value": 6, "limit": 5})
    assert outcome.drops[1] is None and outcome.measures["private values"].tolist() == [6, 1]
    assert "13812345" not in repr(outcome)


def _resident_id(region: str, born: date, serial: int) -> str:
    """By the congruence of ISO 7064: the sum of digit times 2^place is 1 modulo 11."""
    first = f"{region}{born:%Y%m%d}{serial:03d}"
    return next(
        first + last
        for last in "0123456789X"
        if sum((10 if sign == "X" else int(sign)) * 2 ** (17 - place) for place, sign in enumerate(first + last)) % 11
        == 1
    )


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["110105", "440304", "659001", "820000"]), st.dates(date(1900, 1, 1), date(2024, 12, 31)),
    st.integers(0, 999), st.integers(0, 16), st.integers(1, 9),
)  # fmt: skip
def test_resident_ids(region: str, born: date, serial: int, place: int, change: int) -> None:
    value = _resident_id(region, born, serial)
    assert STEP.masked(f"患者证件{value}。")[0] == "患者证件[身份证号]。"
    wrong = value[:place] + str((int(value[place]) + change) % 10) + value[place + 1 :]
    assert "身份证号" not in STEP.masked(f"编码{wrong}。")[0]  # one wrong digit never passes


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["622202", "621700", "625500"]), st.integers(0, 10**12 - 1))
def test_bank_cards(issuer: str, number: int) -> None:
    first = f"{issuer}{number:012d}"
    valid = [last for last in "0123456789" if _luhn(first + last)]
    assert len(valid) == 1
    for last in "0123456789":
        masked = STEP.masked(f"转账{first}{last}。")[0]
        assert (masked == "转账[银行卡号]。") == (last == valid[0])


def _luhn(number: str) -> bool:
    doubled = "".join(str(int(digit) * (2 if place % 2 else 1)) for place, digit in enumerate(reversed(number)))
    return sum(map(int, doubled)) % 10 == 0 if all(map(str.isdigit, doubled)) else False


_pieces = st.lists(
    st.one_of(
        st.sampled_from([marked.replace("⟨", "").replace("⟩", "") for _, marked in POSITIVE] + NEGATIVE),
        st.sampled_from(["0", "1", "-", ".", "号", "：", "[姓名]", "[手机号]", "医生", "张", "@", " ", "\n", "地址："]),
        st.text(max_size=8),
    ),
    max_size=8,
).map("".join)


@settings(max_examples=200, deadline=None)
@given(_pieces)
def test_again_changes_nothing_and_the_rest_stays(text: str) -> None:
    outcome = STEP(batch_of([text]))
    masked = outcome.texts[0] or text
    assert STEP(batch_of([masked])).texts[0] is None
    assert masked == STEP.masked(text)[0]  # the quick look overlooks nothing
    # What lies between the tags stood in the text, in that order.
    tags = "|".join(re.escape(tag) for pair in TAGS.values() for tag in pair)
    assert re.fullmatch(".*?".join(map(re.escape, re.split(tags, masked))), text, re.DOTALL) or re.search(tags, text)
    assert sum(outcome.counts.values()) == outcome.measures["private values"].sum()


@settings(max_examples=40, deadline=None)
@given(st.lists(_pieces, max_size=5))
def test_a_document_fares_the_same_in_any_batch(texts: list[str]) -> None:
    together = STEP(batch_of(texts))
    for place, text in enumerate(texts):
        assert STEP(batch_of([text])).texts[0] == together.texts[place]
