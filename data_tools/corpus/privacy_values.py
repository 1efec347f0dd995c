"""Checks on private values: check digits, dates, regions, ranges; each says whether a written form can be real."""

import ipaddress
from datetime import date

# GB/T 2260: the first two digits of a resident number; 81–83 are the permits of Hong Kong, Macao and Taiwan.
PROVINCES = frozenset(
    str(region * 10 + province)
    for region, provinces in ((1, 5), (2, 3), (3, 7), (4, 6), (5, 4), (6, 5), (7, 1), (8, 3))
    for province in range(int(region != 5), provinces + 1)
)
_RESIDENT_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def resident_check_digit(first: str) -> str:
    """The 18th character for 17 digits: ISO 7064 MOD 11-2, as GB 11643-1999 asks."""
    total = sum(int(digit) * weight for digit, weight in zip(first, _RESIDENT_WEIGHTS, strict=True))
    return "10X98765432"[total % 11]


def is_resident_id(value: str) -> bool:
    """18 characters with province, date of birth since 1850 and check digit."""
    return (
        len(value) == 18
        and value[:2] in PROVINCES
        and _is_date(value[6:14])
        and value[17].upper() == resident_check_digit(value[:17])
    )


def passes_luhn(digits: str) -> bool:
    """ISO/IEC 7812 check digit."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (1 + place % 2)
        total += number - 9 * (number > 9)
    return total % 10 == 0


def is_union_pay(digits: str) -> bool:
    """A card that China's banks issue (62…, 16 to 19 digits; the older 9558… of 19), with its check digit."""
    known = (digits.startswith("62") and 16 <= len(digits) <= 19) or (digits.startswith("9558") and len(digits) == 19)
    return known and passes_luhn(digits)


def is_world_card(digits: str) -> bool:
    """Visa, Mastercard, American Express, JCB or Discover by first digits and length, with its check digit."""
    first = int(digits[:4])
    sixteen = 4000 <= first < 5000 or 5100 <= first < 5600 or 2221 <= first <= 2720 or 3528 <= first < 3590
    known = (len(digits) == 16 and (sixteen or first == 6011 or 6500 <= first < 6600)) or (
        len(digits) == 15 and digits[:2] in ("34", "37")
    )
    return known and passes_luhn(digits)


def is_public_address(value: str) -> bool:
    """An IP address that names a machine on the internet; 192.168.…, 127.0.0.1 and the like name none.

    Of four short numbers most are sections ("3.2.1.1"): two of them need two digits.
    """
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    if address.version == 4 and sum(len(part) > 1 for part in value.split(".")) < 2:
        return False
    return address.is_global


def _is_date(digits: str) -> bool:
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).year >= 1850
    except ValueError:
        return False
