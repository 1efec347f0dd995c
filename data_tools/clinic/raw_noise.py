"""Damage: garbage that a crawl holds, texts as a bad scan leaves them, duplicates, and questions in disguise."""

import random
from collections.abc import Mapping
from typing import Any

from data_tools.clinic.raw_texts import FILLERS, REPRINTS
from data_tools.clinic.world import Language

# Words of English and characters of Chinese in a shingle.
SHINGLE = 5

_SYMBOLS = "#*=-+~^|/\\<>{}[]@%$&_■◆★●※→▲░"
_BROKEN = ("锟斤拷", "\ufffd\ufffd", "烫烫烫", "Ã\ufffd", "\ufffd¤\ufffd", "ï¿½", "æ\ufffd‘", "ç»\ufffd")


def shingles(text: str, lang: Language) -> frozenset[tuple[str, ...]]:
    """Every run of SHINGLE words, or of as many characters of Chinese, without punctuation and in lower case."""
    if lang == "zh":
        units = [character for character in text if character.isalnum()]
    else:
        units = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return frozenset(tuple(units[i : i + SHINGLE]) for i in range(max(1, len(units) - SHINGLE + 1)))


def jaccard(a: str, b: str, lang: Language) -> float:
    """Of the sets of shingles of two texts."""
    one, other = shingles(a, lang), shingles(b, lang)
    return len(one & other) / len(one | other)


def same_text(rng: random.Random, text: str) -> str:
    """A duplicate: byte for byte, or with other white space."""
    if rng.random() < 0.5:
        return text
    return rng.choice(("\n{}\n", "{}   ", "\t{}", "{}\r\n")).format(text)


def near_text(rng: random.Random, text: str, lang: Language, highest: float) -> tuple[str, float]:
    """An edited text of the same facts and its Jaccard similarity, at most `highest`.

    A line of a reprint is added, then words that say nothing go in behind commas and full stops until the similarity
    is low enough.
    """
    edited = f"{text}\n{rng.choice(REPRINTS[lang]).format(n=rng.randint(2, 999))}"
    marks, gap, comma = ("，。；", "", "，") if lang == "zh" else (",.;?", " ", ",")
    while (similarity := jaccard(text, edited, lang)) > highest:
        places = [place + 1 for place, character in enumerate(edited[:-1]) if character in marks]
        place = rng.choice(places)
        edited = f"{edited[:place]}{gap}{rng.choice(FILLERS[lang])}{comma}{edited[place:]}"
    return edited, similarity


def symbols(rng: random.Random) -> str:
    """Lines of signs with hardly a word."""
    lines = []
    for _ in range(rng.randint(4, 12)):
        signs = "".join(rng.choices(_SYMBOLS, k=rng.randint(15, 60)))
        lines.append(signs + (f" {rng.randint(0, 9999)}" if rng.random() < 0.4 else ""))
    return "\n".join(lines)


def repeated(rng: random.Random, sentence: str) -> str:
    """One sentence over and over."""
    return rng.choice(("\n", " ")).join([sentence] * rng.randint(8, 30))


def broken(rng: random.Random, text: str) -> str:
    """Text after a wrong decoding that lost bytes: nobody can repair it."""
    pieces = [rng.choice(_BROKEN) if rng.random() < 0.6 else character for character in text[:160] if character.strip()]
    return "".join(pieces)


def scanned(rng: random.Random, text: str, lang: Language) -> str:
    """Text as a bad scan leaves it: wrong characters, words run together, lines cut anywhere."""
    confused = {"l": "1", "o": "0", "e": "c", "m": "rn", "i": "|", "a": "@", "s": "5", "t": "f", "n": "ri"}
    out = []
    for character in text:
        chance = rng.random()
        if lang == "en" and character in confused and chance < 0.25:
            out.append(confused[character])
        elif lang == "en" and character == " " and chance < 0.3:
            out.append(rng.choice(("", "  ", "- ")))
        elif lang == "zh" and character.isalpha() and chance < 0.2:
            out.append(rng.choice("囗亍乂乜仝仵伣侊倞冘冚凊刄劦卂厃叀吅圥夊"))
        elif lang == "zh" and character in "，。：" and chance < 0.6:
            out.append(rng.choice((" ", "·", "．", "")))
        else:
            out.append(character)
        if chance > 0.985:
            out.append("\n")
    return "".join(out)


def disguised(rng: random.Random, question: Mapping[str, Any], lang: Language) -> tuple[str, str]:
    """A test question as it leaks into a web page, and how it was changed: not at all, with its options, or in case,
    punctuation, width or white space."""
    text, told = question["question"], question["explanation"]
    rest = told[len(text) :]
    way = rng.choice(("verbatim", "verbatim", "options", "case", "punctuation", "width", "space"))
    if way == "options":
        point = "．" if lang == "zh" else ". "
        options = (f"{letter}{point}{option}" for letter, option in question["options"].items())
        return f"{text}\n" + "\n".join(options), way
    if way == "case" and lang == "en":
        return text.upper() + rest, way
    if way == "punctuation":
        if lang == "en":
            words = text.split(" ")
            words[rng.randrange(1, len(words) - 1)] += rng.choice((",", " -", ";"))
            return f"*{' '.join(words)}*: {rest.strip()}", way
        place = rng.randrange(1, len(text))
        return f"“{text[:place]}{rng.choice('，、·')}{text[place:]}”：{rest}", way
    if way == "width" and lang == "en":
        return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" for c in text) + rest, way
    if way == "space":
        if lang == "en":
            return text.replace(" ", rng.choice(("  ", "\u00a0", "\n"))) + rest, way
        return rng.choice((" ", "\u3000")).join(text) + rest, way
    return told, "verbatim"
