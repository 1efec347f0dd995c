"""The statistics of the rules once more, in slow and plain Python."""

import math
import re
from collections import Counter

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
    grams = ["".join(words[k : k + 10]) for k in range(len(words) - 9)]
    found["repeated_10_grams"] = ratio(sum(count > 1 for count in Counter(grams).values()), len(grams))
    counts = sorted(Counter(ink[k : k + 10] for k in range(len(ink) - 9)).values(), reverse=True)
    taken = min(int(math.sqrt(len(counts))), sum(count > 1 for count in counts))
    found["repeated_10_characters"] = ratio(sum(counts[:taken]), sum(counts))
    return found
