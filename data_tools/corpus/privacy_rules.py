"""How private values are written: for each type the forms that hold one and the check that a form must pass.

A form's group `value` is what is masked; labels, titles and everything around it stay. Digits are ASCII: the normalise
step folds full-width ones. No form needs unbounded steps back: every repetition has a limit.
"""

# ruff: noqa: E501  (a pattern reads better on one line)
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from data_tools.corpus import privacy_names as names
from data_tools.corpus import privacy_values as values

Type = Literal[
    "resident-id", "bank-card", "mobile", "landline", "phone", "ssn", "e-mail", "ip-address", "passport",
    "record-number", "insurance-number", "social-account", "plate", "address", "name", "link",
]  # fmt: skip

TAGS: dict[Type, tuple[str, str]] = {
    "resident-id": ("[身份证号]", "[RESIDENT_ID]"),
    "bank-card": ("[银行卡号]", "[BANK_CARD]"),
    "mobile": ("[手机号]", "[MOBILE]"),
    "landline": ("[电话]", "[LANDLINE]"),
    "phone": ("[电话]", "[PHONE]"),
    "ssn": ("[社会保障号]", "[SSN]"),
    "e-mail": ("[邮箱]", "[EMAIL]"),
    "ip-address": ("[IP地址]", "[IP_ADDRESS]"),
    "passport": ("[护照号]", "[PASSPORT]"),
    "record-number": ("[病历号]", "[RECORD_NUMBER]"),
    "insurance-number": ("[医保号]", "[INSURANCE_NUMBER]"),
    "social-account": ("[社交账号]", "[ACCOUNT]"),
    "plate": ("[车牌号]", "[PLATE]"),
    "address": ("[住址]", "[ADDRESS]"),
    "name": ("[姓名]", "[NAME]"),
    "link": ("[链接]", "[LINK]"),
}

Trigger = Literal["digits", "han digits", "@", "zh", "微信", "址", "en", "://"]


class Span(NamedTuple):
    start: int
    end: int
    type: Type


@dataclass(frozen=True, slots=True)
class Form:
    """One way of writing a type. trigger: what a text must hold for the form to be looked for."""

    type: Type
    trigger: Trigger
    pattern: re.Pattern[str]
    check: Callable[[str], bool] | None = None

    def spans(self, text: str) -> Iterator[Span]:
        for match in self.pattern.finditer(text):
            if self.check is None or self.check(match["value"]):
                yield Span(*match.span("value"), self.type)


def _first(signs: str) -> str:
    """A first character of those, with nothing before it that it would be a part of. The look behind stands after the
    character, so that `re` skims the text for it (ten times as fast).
    """
    return f"[{signs}](?<![0-9A-Za-z_.].)"


def _digits(check: Callable[[str], bool]) -> Callable[[str], bool]:
    """The check on the value without its blanks and hyphens."""
    return lambda value: check(re.sub("[ -]", "", value))


_END = "(?![0-9A-Za-z_]|\\.[0-9])"  # with `_first`: a number of its own, not a part of a code
_MOBILE = "[3-9][0-9](?P<gap>[- ]?)[0-9]{4}(?P=gap)[0-9]{4}"
_AREA = "(?:10|2[0-9]|[3-9][0-9]{2})"
_LANDLINE = "[2-8][0-9]{2,3}[ -]?[0-9]{4}(?:-[0-9]{1,5})?"
_US_TOLL_FREE = "(?<!(?=[2-9]00|8(?:33|44|55|66|77|88)).)"
_US_AREA = "(?![2-9]00|8(?:33|44|55|66|77|88))[2-9][0-9]{2}"
_US_LOCAL = "[2-9][0-9]{2}[-. ][0-9]{4}"
_IS = "[ \t]{0,3}(?:[:：=#]|是|为|号码|No\\.?)?[ \t:：]{0,3}"
_FAMILY = f"[{names.SURNAMES}]"
_SURNAME = f"(?:{'|'.join(names.COMPOUND_SURNAMES)}|{_FAMILY})"
_COMPOUND_FIRST = "".join(name[0] for name in names.COMPOUND_SURNAMES)
_SECOND = "|".join(f"(?<={name[0]}){name[1]}" for name in names.COMPOUND_SURNAMES)
FIRST_OF_NAMES = names.SURNAMES + _COMPOUND_FIRST
PROVINCES_ON_PLATES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤川青藏琼宁"
_HIDDEN = f"[{names.HIDDEN}]"
_GIVEN = f"[{''.join(dict.fromkeys(names.GIVEN))}]"
_NAME_ENDS = "(?=$|[\\s,，。;；、|/（()）\\[]|性别|男|女|年龄|电话|联系|就诊|住院|门诊|先生|女士|同志)"
_RECORD_LABEL = "(?:住院|病历|病案|门诊|就诊|登记|检查|影像|超声|病理|标本|条码|放射|挂号|患者|病人|CT|MR)"

_SURNAMES = frozenset((*names.SURNAMES, *names.COMPOUND_SURNAMES))
_NOT_ENGLISH_NAMES = frozenset(
    ["Chat", "Who", "The", "Patient", "In", "And", "Of", "For", "I", "You", "Please", "Thank", "Thanks"]
)

FORMS: tuple[Form, ...] = (
    Form("link", "://", re.compile(r"(?P<value>(?:https?|ftp)://[^\s<>\"'，。；：！？、（）《》【】“”]{1,2000})")),
    Form(
        "e-mail", "@",
        re.compile(
            r"(?<![A-Za-z0-9._%+-])(?P<value>[A-Za-z0-9_%+][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24})"
            r"(?![A-Za-z0-9-])"
        ),
    ),
    Form(
        "resident-id", "digits",
        re.compile(rf"(?P<value>{_first('1-8')}[0-9]{{5}}[ -]?[12][0-9]{{7}}[ -]?[0-9]{{3}}[0-9Xx]){_END}"),
        _digits(values.is_resident_id),
    ),
    # A label makes up for a mistyped check digit, and for the missing one of the form with 15 digits.
    Form(
        "resident-id", "digits",
        re.compile(rf"(?:身份证|身份号|公民身份)(?:件)?(?:号码|号)?{_IS}(?P<value>[1-8][0-9]{{16}}[0-9Xx]|[1-8][0-9]{{14}}){_END}"),
    ),
    Form(
        "bank-card", "digits",
        re.compile(rf"(?P<value>{_first('69')}[0-9]{{3}}(?:[ -]?[0-9]{{4}}){{3}}(?:[ -]?[0-9]{{1,3}})?){_END}"),
        _digits(values.is_union_pay),
    ),
    Form(
        "bank-card", "digits",
        re.compile(rf"(?P<value>{_first('2-6')}[0-9]{{3}}(?P<gap>[ -])[0-9]{{4}}(?:(?P=gap)[0-9]{{4}}){{2}}){_END}"),
        _digits(values.is_world_card),
    ),
    Form(
        "bank-card", "digits",
        re.compile(
            r"[卡账帐银信CcAa](?:号|行卡号?|用卡号?|ard(?: [Nn]umber| [Nn]o\.?)?|ccount(?: [Nn]umber)?)"
            rf"{_IS}(?P<value>[2-6][0-9]{{14,18}}){_END}"
        ),
        lambda value: values.is_world_card(value) or values.is_union_pay(value),
    ),
    Form("ssn", "digits", re.compile(rf"(?P<value>{_first('0-8')}(?<!(?=000|666).)[0-9]{{2}}-(?!00)[0-9]{{2}}-(?!0000)[0-9]{{4}})(?!-){_END}")),
    Form(
        "social-account", "digits",
        re.compile(rf"(?:QQ|qq|Qq|扣扣|企鹅)(?:号码|号|群号|群)?{_IS}(?P<value>[1-9][0-9]{{4,10}}){_END}"),
    ),
    Form(
        "social-account", "微信",
        re.compile(rf"(?:微信(?!公众|公共|平台|群|支付)|[Ww]e[Cc]hat|weixin)(?:号码|号| ID)?{_IS}(?P<value>[A-Za-z][A-Za-z0-9_-]{{5,19}}|[1-9][0-9]{{5,11}})(?![A-Za-z0-9_-])"),
        lambda value: value.lower() != "official",
    ),
    Form(
        "insurance-number", "digits",
        re.compile(rf"(?:医保|社保|医疗保险|社会保障|新农合|合作医疗)(?:卡|证|号|编号|卡号|证号|号码){{1,2}}{_IS}(?P<value>[A-Z]{{0,3}}[0-9][0-9A-Z-]{{4,20}}){_END}"),
    ),
    Form(
        "record-number", "digits",
        re.compile(rf"{_RECORD_LABEL}(?:卡|证|流水|记录|登记)?(?:号码|编号|号|ID){_IS}(?P<value>[A-Za-z]{{0,4}}-?[0-9][0-9A-Za-z-]{{3,20}}){_END}"),
    ),
    Form(
        "record-number", "digits",
        re.compile(
            r"[MmHhCcPp](?<![A-Za-z].)(?:(?<=M)RN|(?:edical|EDICAL|ospital|hart|atient|ATIENT) ?(?:[Rr]ecord|RECORD)? ?(?:[Nn]umber|NUMBER|[Nn]o\.|ID|#))"
            r"(?: is| was)?[ \t]{0,3}[:#]?[ \t]{0,3}(?P<value>[A-Z]{0,4}-?[0-9][0-9A-Z-]{3,20})" + _END
        ),
    ),
    Form(
        "passport", "digits",
        re.compile(rf"[护Pp](?:照(?:号码|号)?{_IS}|assport(?: [Nn]umber| [Nn]o\.?)?(?: is)?[ \t]?[:#]?[ \t]?)(?P<value>[A-Z]{{0,2}}[0-9]{{7,9}}){_END}"),
    ),
    Form("mobile", "han digits", re.compile(rf"(?P<value>{_first('1')}{_MOBILE}){_END}")),
    # In English text 1800 and its like begin a toll-free number.
    Form("mobile", "digits", re.compile(rf"(?P<value>{_first('1')}(?!800|833|844|855|866|877|888){_MOBILE}){_END}")),
    Form(
        "mobile", "digits",
        re.compile(rf"(?P<value>{_first('+08')}(?:(?<=[+])86|(?<=0)086|(?<=8)6)[- ]?1{_MOBILE}){_END}"),
    ),
    Form("landline", "digits", re.compile(rf"(?P<value>{_first('0')}{_AREA}[ -]{_LANDLINE}){_END}")),
    Form("landline", "digits", re.compile(rf"(?P<value>{_first('(（')}0{_AREA}[)）][ -]?{_LANDLINE}){_END}")),
    Form(
        "landline", "digits",
        re.compile(rf"[电座热传Tt](?:话|机|线|真|el|EL)(?:号码|号)?{_IS}(?P<value>(?:0{_AREA})?[2-8][0-9]{{6,7}}){_END}"),
    ),
    # Toll-free numbers (800, 888 …), as 400 and 800 in China, are a firm's or a public service's: kept.
    Form("phone", "digits", re.compile(rf"(?P<value>{_first('(')}{_US_AREA}\) ?{_US_LOCAL})(?!-){_END}")),
    Form("phone", "digits", re.compile(rf"(?P<value>{_first('2-9')}(?<!-.){_US_TOLL_FREE}[0-9]{{2}}(?P<gap>[-.])[2-9][0-9]{{2}}(?P=gap)[0-9]{{4}})(?!-){_END}")),
    Form("phone", "digits", re.compile(rf"(?P<value>{_first('+1')}(?:(?<=[+])1[-. ]?|[-. ])\(?{_US_AREA}[-.) ]{{1,2}}{_US_LOCAL})(?!-){_END}")),
    Form("ip-address", "digits", re.compile(rf"(?P<value>{_first('0-9')}(?<![vV] .)[0-9]{{0,2}}(?:\.[0-9]{{1,3}}){{3}}){_END}"), values.is_public_address),
    Form("ip-address", "digits", re.compile(r"(?P<value>[0-9A-Fa-f](?<![0-9A-Za-z:].)[0-9A-Fa-f]{0,3}:{1,2}(?:[0-9A-Fa-f]{1,4}:{1,2}){2,6}[0-9A-Fa-f]{1,4})(?![0-9A-Za-z:])"), values.is_public_address),
    Form(
        "plate", "zh",
        re.compile(
            r"(?P<value>[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤川青藏琼宁][A-HJ-NP-Z][·• ]?"
            r"(?=[A-HJ-NP-Z]{0,4}[0-9])(?:[A-HJ-NP-Z0-9]{5,6}|[A-HJ-NP-Z0-9]{4}[挂学警港澳]))(?![0-9A-Za-z/-])"
        ),
        lambda value: sum(sign.isdigit() for sign in value) >= 2,
    ),
    # Up to the end of the line or sentence; a web address is none.
    Form(
        "address", "址",
        re.compile(
            r"(?:(?:家庭|现|常)(?:居)?住(?:址|地址)|住址|(?:家庭|户籍|户口|联系|通讯|通信|邮寄|收货|居住|身份证|现居|详细)(?:所在)?地址)"
            r"[ \t]{0,3}[:：][ \t]{0,3}(?P<value>(?!https?:|www)[^\s。；;，,|\[\]]{4,80})"
        ),
    ),
    Form(
        "address", "址",
        re.compile(
            r"(?:^|[\s。；;，,])地址[ \t]{0,3}[:：][ \t]{0,3}"
            r"(?P<value>(?!https?:|www)(?=[^\s。；;，,|\[\]]{0,40}(?:[省市区县镇乡村路街巷弄][^\s。；;，,|\[\]]{0,30}[号室栋幢楼组户]))[^\s。；;，,|\[\]]{4,80})",
            re.MULTILINE,
        ),
    ),
    Form("address", "en", re.compile(r"[HhPpMmRr](?<![A-Za-z].)(?:ome|OME|atient|ailing|esidential) (?:[Aa]ddress|ADDRESS):[ \t]?(?P<value>[^\n;|\[\]]{4,120}[^\s;|\[\].])")),
    Form(
        "name", "zh",
        re.compile(rf"(?:姓[ \t]?名|联系人|紧急联系人|监护人|申请人|签名)[ \t]{{0,3}}[:：][ \t]{{0,3}}(?P<value>{_SURNAME}(?:[一-龥·]{{1,2}}|{_HIDDEN}{{1,2}}){_NAME_ENDS})"),
        lambda value: value not in names.NOT_NAMES,
    ),
    Form(
        "name", "zh",
        re.compile(
            rf"(?:患者|病人|患儿|产妇|孕妇|家属)(?:[ \t]?[:：][ \t]?)?(?P<value>{_SURNAME}(?:{_HIDDEN}{{1,2}}|{_GIVEN}{{1,2}}))"
            r"(?=[ \t]?[,，、（(]?[ \t]?(?:[男女]|[0-9]{1,3}[岁月]))"
        ),
        names.is_name,
    ),
    Form("name", "zh", re.compile(rf"(?:患者|病人|患儿|产妇|孕妇|家属|被告人?|原告)[ \t]?[:：]?[ \t]?(?P<value>{_SURNAME}某{{1,2}})")),
    # Before a title: behind a break, or behind a word that calls or names a person.
    Form(
        "name", "zh",
        re.compile(rf"(?P<value>[{FIRST_OF_NAMES}](?:(?<![一-龥A-Za-z0-9].)|(?<=[请问找让是跟给叫谢感见被您的].))(?<!(?<=[谢感致答多回])谢)(?:{_SECOND})?(?:{_GIVEN}{{1,2}}|{_HIDDEN}{{1,2}})?)(?=(?:{names.TITLES})(?![们]))"),
        lambda value: value in _SURNAMES or names.is_name(value),
    ),
    Form(
        "name", "en",
        re.compile(
            r"[Nn](?<![A-Za-z].)(?:ame|AME):[ \t]{0,3}"
            r"(?P<value>[A-Z][A-Za-z'-]{1,20}(?:, [A-Z][a-z]{1,20}|(?: (?:[A-Z]\.|[A-Z][a-z'-]{1,20})){1,3}))(?![A-Za-z])"
        ),
    ),
    Form(
        "name", "en",
        re.compile(r"[DMP](?<![A-Za-z].)(?:r|rs|s|rof)\b\.? (?P<value>(?:[A-Z]\. ){0,2}[A-Z][a-z]{1,20}(?:[-'][A-Z][a-z]{1,20})?(?: [A-Z]\.)?(?: [A-Z][a-z]{1,20})?)(?![A-Za-z])"),
        lambda value: value.split()[0] not in _NOT_ENGLISH_NAMES,
    ),
)  # fmt: skip

# Numbers that only look private: nothing inside these is masked.
PROTECTED = re.compile(
    r"\b10\.[0-9]{4,9}/[^\s，。；]{1,200}"  # DOI
    r"|\b(?:PMID|PMC|NCT|ChiCTR[A-Z-]*|ISRCTN|ISBN|ISSN|CAS|GTIN|EAN)[ :：#-]{0,3}[0-9][0-9Xx-]{3,20}"
    r"|国药准字 ?[A-Z]?[0-9]{8}|国食健[字注][A-Z]?[0-9]{6,14}|(?:批准文号|注册证号|备案号|条形码|批号|产品编号|许可证号?)[:：]? ?[^\s，。；]{4,40}"
    r"|[国京沪粤浙苏鲁]?械[注备][准进许]?字? ?[0-9]{8,14}"
    r"|(?:https?|ftp)://[^\s，。；]{1,2000}"
)
