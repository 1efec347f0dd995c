"""The statistics of the rules once more, in slow and plain Python."""

import math
import re
from collections import Counter

from data_tools.corpus import rule_words
from data_tools.corpus.rule_characters import PUNCTUATION, TERMINAL, traditional

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
WORD = re.compile(rf"[{HAN}]|[^\W{HAN}]+(?:['’][^\W{HAN}]+)*|[^\w\s]")


def words_of(text: str, unit: str) -> list[str]:
    if unit == "characters":
        return [character for character in text if not character.isspace()]
    return text.split() if unit == "blanks" else WORD.findall(text)


def ratio(a: float, b: float) -> float:
    return a / b if b else 0.0


def duplicates(parts: list[str]) -> tuple[int, int]:
    """How many stood before, and their characters."""
    counts = Counter(parts)
    return len(parts) - len(counts), sum(len(part) * (count - 1) for part, count in counts.items())


PHRASES = {
    "flagged": [word for words in rule_words.FLAGGED.values() for word in words],
    "boilerplate": list(rule_words.BOILERPLATE),
    "advertising": list(rule_words.ADVERTISING),
    "links": list(rule_words.LINKS),
    "broken": list(rule_words.BROKEN),
    "solicitation": list(rule_words.SOLICITATION),
}
PHONE = re.compile(r"(?<![0-9])(?:1[3-9][0-9]{9}|0[0-9]{2,3}-[0-9]{7,8}|[0-9]{3}-[0-9]{3}-[0-9]{4})(?![0-9])")
ACCOUNT = re.compile(r"[^\nA-Za-z0-9_@+-]{0,6}([A-Za-z0-9_@+-]{5,40})")
BROKEN = re.compile("[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufffd\ue000-\uf8ff\ud800-\udfff\U000f0000-\U0010ffff]")


def occurrences(text: str, group: str) -> list[tuple[int, int]]:
    """Where phrases of a group stand, overlapping ones too; Latin ones of the first three groups as whole words."""
    lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    found = []
    for phrase in PHRASES[group]:
        whole = group in ("flagged", "boilerplate", "advertising") and max(phrase) < "\u0250"
        pattern = re.escape("".join(c.lower() if len(c.lower()) == 1 else c for c in phrase))
        edge = rf"[^\W{HAN}]" if whole else "(?!)"
        for match in re.finditer(f"(?<!{edge})(?={pattern}(?!{edge}))" if whole else f"(?={pattern})", lower):
            found.append((match.start(), match.start() + len(phrase)))
    return sorted(found)


def phrase_statistics(text: str, ink: int) -> dict[str, float]:
    covered = {}
    for group in PHRASES:
        places: set[int] = set()
        for first, last in occurrences(text, group):
            end = re.compile("[!-~]*").match(text, last).end() if group == "links" else last  # type: ignore[union-attr]
            places.update(range(first, end))
        covered[group] = len(places)
    solicitations = until = 0
    for first, last in occurrences(text, "solicitation"):
        account = ACCOUNT.match(text, last)
        if first >= until and account and len(re.findall("[0-9]", account[1])) >= 3:
            solicitations, until = solicitations + 1, last
    return {
        **{group: ratio(covered[group], ink) for group in ("flagged", "boilerplate", "advertising", "links")},
        "broken": ratio(covered["broken"] + len(BROKEN.findall(text)), len(text)),
        "phones": len(PHONE.findall(text)),
        "solicitations": solicitations,
    }


def statistics(text: str, unit: str, stop_words: tuple[str, ...], short_line: int) -> dict[str, float]:
    words, size, ink = words_of(text, unit), len(text), "".join(text.split())
    texts = [word for word in words if not set(word) <= set(PUNCTUATION)]
    lines, paragraphs = re.split("\n+", text), re.split("\n{2,}", text.strip()) if text.strip() else []
    split, filled = text.splitlines(), [line for line in text.split("\n") if line.strip()]
    found: dict[str, float] = {
        "characters": size,
        "ink": len(ink),
        "words": len(words),
        "text_words": len(texts),
        "mean_word_length": ratio(sum(map(len, texts)), len(texts)),
        "hashes_per_word": ratio(text.count("#"), len(words)),
        "ellipses_per_word": ratio(text.count("...") + text.count("…"), len(words)),
        "bullet_lines": ratio(sum(line.lstrip().startswith(("•", "-")) for line in split), len(split)),
        "ellipsis_lines": ratio(sum(line.rstrip().endswith(("...", "…")) for line in split), len(split)),
        "alphabetic_words": ratio(sum(any(map(str.isalpha, word)) for word in words), len(words)),
        "stop_words": len(set(words) & set(stop_words)),
        "stop_word_share": ratio(sum(word in stop_words for word in words), len(words)),
        "duplicate_paragraphs": ratio(duplicates(paragraphs)[0], len(paragraphs)),
        "duplicate_paragraph_characters": ratio(duplicates(paragraphs)[1], size),
        "duplicate_lines": ratio(duplicates(lines)[0], len(lines) if text else 0),
        "duplicate_line_characters": ratio(duplicates(lines)[1], size),
        "terminal_lines": ratio(sum(line.endswith(tuple(TERMINAL)) for line in filled), len(filled)),
        "short_lines": ratio(sum(len(line) <= short_line for line in filled), len(filled)),
        "duplicate_ink_lines": ratio(duplicates(filled)[1], size - text.count("\n")),
        "newlines_per_word": ratio(text.count("\n"), len(words)),
        "mean_line_length": ratio(sum(map(len, split)), len(split)),
        "max_line_length": max(map(len, split), default=0),
        "special": ratio(sum(not (c.isalnum() or c.isspace()) for c in text), size),
        "digits": ratio(sum(map(str.isdigit, text)), size),
        "alphanumeric": ratio(sum(map(str.isalnum, text)), size),
        "han": ratio(len(re.findall(f"[{HAN}]", text)), len(ink)),
        "traditional": ratio(sum(c in traditional() for c in text), len(re.findall(f"[{HAN}]", text))),
        "unique_words": ratio(len(set(words[:10_000])), len(words[:10_000])),
        "unigram_entropy": -sum(n / len(words) * math.log(n / len(words)) for n in Counter(words).values()),
    }
    for n in (2, 3, 4):
        grams = [" ".join(words[k : k + n]) for k in range(len(words) - n + 1)]
        top = Counter(grams).most_common(1)
        found[f"top_{n}_gram"] = ratio(sum(len(gram) * count for gram, count in top), size)
    for n in range(5, 11):
        seen: set[str] = set()
        place = again = 0
        while place + n <= len(words):
            gram = "".join(words[place : place + n])
            again += len(gram) * (gram in seen)
            place += n if gram in seen else 1
            seen.add(gram)
        found[f"duplicate_{n}_grams"] = ratio(again, size)
    found |= phrase_statistics(text, len(ink))
    grams = ["".join(words[k : k + 10]) for k in range(len(words) - 9)]
    found["repeated_10_grams"] = ratio(sum(count > 1 for count in Counter(grams).values()), len(grams))
    counts = sorted(Counter(ink[k : k + 10] for k in range(len(ink) - 9)).values(), reverse=True)
    taken = min(int(math.sqrt(len(counts))), sum(count > 1 for count in counts))
    found["repeated_10_characters"] = ratio(sum(counts[:taken]), sum(counts))
    return found
