"""What spoils a text: Unicode that was read in the wrong encoding, left-overs of HTML, terminal sequences."""

import html
import re


def repair(text: str, unescape_html: bool) -> tuple[str, int]:
    """`text` without mojibake, entities, tags and terminal sequences, and how many broken characters were removed."""
    lost = 0
    if not text.isascii():
        if _LATIN_LEAD.search(text) and _LATIN_MOJIBAKE.search(text):
            text = _repaired_latin(text)
        if _GBK_MOJIBAKE.search(text):
            text = "\n".join(map(_repaired_gbk, text.split("\n")))
        if _BROKEN_LEAD.search(text):
            length = len(text)
            text = _BROKEN.sub("", text)
            lost = length - len(text)
    if unescape_html and "&" in text:
        text = _ENTITY.sub(_decoded, text)
    if unescape_html and "<" in text:
        text = _without_tags(text)
    if "\x1b" in text:
        text = _ESCAPE_SEQUENCE.sub("", text)
    return text, lost


# --- broken Unicode -------------------------------------------------------------------------------------------------

# The 64 continuation bytes of UTF-8 as Latin-1 or Windows-1252 shows them.
_CONTINUATION = "\x80-\xbf" + "".join(
    bytes([byte]).decode("cp1252") for byte in range(0x80, 0xA0) if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
)
_LATIN_MOJIBAKE = re.compile(
    f"[\xc2-\xd6\xd8-\xdf][{_CONTINUATION}]|[\xe0-\xef][{_CONTINUATION}]{{2}}|\xf0[{_CONTINUATION}]{{3}}"
)
_LATIN_LEAD = re.compile("[\xc2-\xd6\xd8-\xf0]")
# UTF-8 of Chinese punctuation read as GBK shows as 锛, 紝 or 銆, which true text hardly has.
_GBK_MOJIBAKE = re.compile("[锛紝銆]")
# Beyond repair: the replacement character, private use, non-characters, and U+FFFD read as GBK.
_BROKEN = re.compile("[\ufffd\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff]|(?:锟斤拷)+|锟斤|斤拷")
_BROKEN_LEAD = re.compile("[\ufffd\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff锟斤]")


def _repaired_latin(text: str) -> str:
    import ftfy

    return ftfy.fix_encoding(text)


def _repaired_gbk(line: str) -> str:
    """The line with UTF-8 that was read as GBK read again, where it is that to the last byte; else unchanged."""
    if not _GBK_MOJIBAKE.search(line):
        return line
    try:
        return line.encode("gb18030").decode("utf-8")
    except UnicodeError:
        return line


_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;]{0,16}[A-Za-z]")


# --- HTML -----------------------------------------------------------------------------------------------------------

_ENTITY = re.compile("&(?:amp;)*(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_SCRIPT_TAG = re.compile("<(su[pb])>([0-9+\\-]{1,12})</\\1>")
_ATTRIBUTES = r"""(?:\s+[A-Za-z_:][\w:.\-]*\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>=]+))*\s*"""
_BREAK = re.compile(f"<br{_ATTRIBUTES}/?>|</(?:p|div|li|tr|h[1-6])>", re.IGNORECASE)
_LAYOUT = re.compile(
    f"</?(?:p|div|span|font|strong|em|ul|ol|li|table|tbody|thead|tr|td|th|h[1-6]|img|center){_ATTRIBUTES}/?>"
    f"|</(?:a|b|i|u|s|sup|sub)>|<a\\s+href\\s*=[^<>]{{0,2000}}>",
    re.IGNORECASE,
)
_PAIRED = re.compile("<([biu])>([^<>]{0,2000})</\\1>", re.IGNORECASE)
_RAISED = {"sup": str.maketrans("0123456789+-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"), "sub": str.maketrans("0123456789+-", "₀₁₂₃₄₅₆₇₈₉₊₋")}


def _decoded(match: re.Match[str]) -> str:
    entity = "&" + match[0].rpartition("&")[2].removeprefix("amp;").rpartition("amp;")[2].removeprefix("&")
    if entity == "&":
        return "&"
    result = html.unescape(entity)
    # Python reads "&notit;" as "¬it;": such a prefix match is not unambiguous.
    return match[0] if result.endswith(";") and entity != "&semi;" and len(result) > 1 else result


def _without_tags(text: str) -> str:
    text = _SCRIPT_TAG.sub(lambda match: match[2].translate(_RAISED[match[1]]), text)
    text = _PAIRED.sub(r"\2", text)
    return _LAYOUT.sub("", _BREAK.sub("\n", text))
