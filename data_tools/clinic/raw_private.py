"""Invented private data with valid checksums, for a step to find.

Nobody has these: resident numbers are of people born before 1909, mobile numbers have the digits 0000 that are not
given out after the prefix, English telephone numbers are of the range 555-01xx kept for fiction, e-mail addresses of
domains reserved by RFC 2606.
"""

import random
from collections.abc import Callable

from data_tools.clinic.world import Language

_REGIONS = ("110101", "310104", "440106", "330106", "510107", "420106", "320102", "610103")
_SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
_GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超兰霞平刚桂英华玉建国文红"
_FIRST = ("John", "Mary", "Robert", "Linda", "James", "Susan", "David", "Karen", "Peter", "Alice")
_LAST = ("Smith", "Johnson", "Miller", "Davis", "Wilson", "Clark", "Turner", "Parker", "Cooper", "Baker")
# Not the codes of free calls (800, 888 and so on), which belong to nobody.
_AREAS = (212, 305, 312, 415, 503, 602, 617, 702, 718, 919)
_DOMAINS = ("example.com", "example.org", "example.net", "mail.example.com")


def resident_id(rng: random.Random) -> str:
    """18 digits with the check digit of GB 11643 (ISO 7064 MOD 11-2), which may be X."""
    body = f"{rng.choice(_REGIONS)}{rng.randint(1901, 1908)}{rng.randint(1, 12):02d}{rng.randint(1, 28):02d}"
    body += f"{rng.randint(1, 999):03d}"
    weighted = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(body))
    return body + "10X98765432"[weighted % 11]


def bank_card(rng: random.Random) -> str:
    """19 digits with a Luhn check digit, at times in groups of four."""
    body = rng.choice(("622202", "621700", "622848")) + "0000" + f"{rng.randint(0, 99_999_999):08d}"
    doubled = (int(digit) * (2 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(body)))
    number = body + str(-sum(value // 10 + value % 10 for value in doubled) % 10)
    return " ".join(number[i : i + 4] for i in range(0, 19, 4)) if rng.random() < 0.3 else number


def mobile(rng: random.Random) -> str:
    """A mainland mobile number."""
    prefix = rng.choice(("138", "139", "150", "176", "186", "199"))
    return f"{prefix}0000{rng.randint(1000, 9999)}"


def _landline(rng: random.Random) -> str:
    return f"{rng.choice(('010', '021', '0571', '028'))}-{rng.randint(2, 8)}5550{rng.randint(100, 999)}"


def _phone(rng: random.Random) -> str:
    return rng.choice(("({}) 555-01{:02d}", "{}-555-01{:02d}")).format(rng.choice(_AREAS), rng.randint(0, 99))


def _email(rng: random.Random) -> str:
    return f"{rng.choice(_FIRST).lower()}.{rng.choice(_LAST).lower()}{rng.randint(1, 99)}@{rng.choice(_DOMAINS)}"


def _plate(rng: random.Random) -> str:
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    return f"{rng.choice('京沪粤浙川鄂苏陕')}{rng.choice('ABCDE')}{rng.choice(letters)}{rng.randint(0, 9999):04d}"


def _record_number(rng: random.Random) -> str:
    return f"{rng.randint(0, 9_999_999):07d}"


def _chinese_name(rng: random.Random) -> str:
    return rng.choice(_SURNAMES) + "".join(rng.sample(_GIVEN, rng.randint(1, 2)))


def _english_name(rng: random.Random) -> str:
    return f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"


# kind → (what makes a value, the ways to write it)
_FIELDS: dict[Language, dict[str, tuple[Callable[[random.Random], str], tuple[str, ...]]]] = {
    "zh": {
        "name": (_chinese_name, ("姓名：{}", "患者姓名：{}", "联系人：{}")),
        "resident-id": (resident_id, ("身份证号：{}", "身份证号码{}", "证件号码：{}")),
        "mobile": (mobile, ("手机：{}", "联系电话：{}", "电话{}")),
        "landline": (_landline, ("固定电话：{}", "家庭电话：{}")),
        "e-mail": (_email, ("邮箱：{}", "电子邮件：{}")),
        "bank-card": (bank_card, ("银行卡号：{}", "退费卡号：{}")),
        "plate": (_plate, ("车牌号：{}", "车牌{}")),
        "record-number": (_record_number, ("住院号：{}", "病历号：{}", "门诊号：{}")),
    },
    "en": {
        "name": (_english_name, ("Patient name: {}", "Name: {}")),
        "phone": (_phone, ("Phone: {}", "Tel. {}", "Call {}")),
        "e-mail": (_email, ("E-mail: {}", "Mail to {}")),
        "record-number": (_record_number, ("MRN: {}", "Medical record number: {}", "Patient ID: {}")),
    },
}
KINDS = tuple(sorted({kind for fields in _FIELDS.values() for kind in fields}))


def private_line(rng: random.Random, lang: Language) -> tuple[str, dict[str, int]]:
    """A line of one to four fields, as on a registration slip, and how many values of each kind it holds."""
    fields = _FIELDS[lang]
    kinds = rng.sample(sorted(fields), rng.randint(1, min(4, len(fields))))
    told = []
    for kind in kinds:
        make, forms = fields[kind]
        told.append(rng.choice(forms).format(make(rng)))
    return ("，" if lang == "zh" else ", ").join(told) + ("。" if lang == "zh" else "."), dict.fromkeys(kinds, 1)


def contact(rng: random.Random, form: str) -> tuple[str, dict[str, int]]:
    """A line of an advertisement with `{phone}`, `{mobile}` or `{email}` filled in."""
    slots = {"phone": ("phone", _phone), "mobile": ("mobile", mobile), "email": ("e-mail", _email)}
    values = {slot: kind for slot, (kind, _) in slots.items() if f"{{{slot}}}" in form}
    return form.format(**{slot: slots[slot][1](rng) for slot in values}), dict.fromkeys(values.values(), 1)
