"""Deduplication against exact Jaccard similarity, counted over sets of words or characters in plain Python."""

import random
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from data_tools import _text
from data_tools.corpus import folding
from data_tools.corpus.batch import Batch
from data_tools.corpus.deduplicate import DeduplicateConfig
from data_tools.corpus.near_duplicates import DuplicateCounts, find_duplicates
from data_tools.corpus.step_config import Resources
from data_tools.inputs import InputError

RESOURCES = Resources(None, 7)  # type: ignore[arg-type]  # signatures need no tokenizer


def signatures(config: DeduplicateConfig, texts: list[str], lang: str) -> np.ndarray:
    return config.signer(RESOURCES)(Batch([], texts, [lang] * len(texts), [], []))


def verdicts(
    place: Path, config: DeduplicateConfig, texts: list[str], lang: str, cuts: tuple[int, ...] = ()
) -> tuple[np.ndarray, DuplicateCounts]:
    """`position` counts over all parts, which end at `cuts`."""
    place.mkdir(exist_ok=True)
    rows = signatures(config, texts, lang)
    edges = [0, *cuts, len(texts)]
    parts = [place / f"rows-{k}" for k in range(len(edges) - 1)]
    for part, (start, end) in zip(parts, pairwise(edges)):
        rows[start:end].tofile(part)
    outputs = [place / f"verdicts-{k}" for k in range(len(parts))]
    scratch = place / "scratch"
    scratch.mkdir()
    counts = find_duplicates(config, parts, scratch, outputs)
    assert not list(scratch.iterdir())
    found = [np.load(output) for output in outputs]
    for some, start in zip(found, edges):
        some["position"] += start
    return np.concatenate(found), counts


def jaccard(left: list[str], right: list[str], n: int) -> float:
    a, b = ({tuple(words[i : i + n]) for i in range(len(words) - n + 1)} for words in (left, right))
    return len(a & b) / len(a | b)


def planted(lang: str, pairs: int, replaced: tuple[int, ...]) -> tuple[list[str], list[float]]:
    """Texts 2k and 2k + 1 are a pair, and the exact similarity of each pair."""
    draw = random.Random(0)
    alphabet = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)] if lang == "zh" else [
        "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(3000)
    ]  # fmt: skip
    n, joint = (8, "") if lang == "zh" else (5, " ")
    texts, exact = [], []
    for _ in range(pairs):
        first = draw.choices(alphabet, k=draw.randint(150, 400))
        second = list(first)
        for place in draw.sample(range(len(first)), draw.choice(replaced)):
            second[place] = draw.choice(alphabet)
        texts += [joint.join(first), joint.join(second)]
        exact.append(jaccard(first, second, n))
    return texts, exact


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_planted_pairs_are_found_above_the_threshold_and_not_below(tmp_path: Path, lang: str) -> None:
    config = DeduplicateConfig()
    texts, exact = planted(lang, 1500, tuple(range(1, 30)))
    found, _ = verdicts(tmp_path / "all", config, texts, lang)
    gone = {int(row["position"]): int(row["cluster"]) for row in found[found["drop"]]}
    assert all(position == kept + 1 and kept % 2 == 0 for position, kept in gone.items())  # no two pairs have met
    caught = np.array([2 * k + 1 in gone for k in range(len(exact))])
    similarity = np.array(exact)
    margin = 0.03  # of the estimate
    above, below = similarity >= config.threshold + margin, similarity < config.threshold - margin
    assert above.sum() > 200 and below.sum() > 200
    assert caught[above].mean() >= 0.99
    assert (caught & below).sum() <= 0.01 * caught.sum()
    rows = found[found["drop"]]
    assert np.abs(rows["similarity"] - similarity[rows["position"] // 2]).max() < 0.1


def test_a_text_is_equal_to_itself_in_other_case_width_and_punctuation(tmp_path: Path) -> None:
    wide = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(33, 127)})
    text = "Café au lait, 50 mg twice daily: for Type-2 diabetes."
    texts = [
        text,
        text.upper(),
        text.translate(wide),
        unicodedata.normalize("NFD", text),
        text.replace(",", " !").replace(" ", "\n "),
        text.replace("50", "55"),  # another dose
    ]
    found, counts = verdicts(tmp_path / "a", DeduplicateConfig(near=False), texts, "en")
    assert (counts.documents, counts.clusters, counts.exact, counts.near) == (6, 1, 4, 0)
    assert found["position"].tolist() == [0, 1, 2, 3, 4]
    assert found["drop"].tolist() == [False, True, True, True, True]
    assert found["exact"].all() and (found["cluster"] == 0).all() and (found["similarity"] == 1).all()


@pytest.mark.parametrize("keep", ["first", "longest"])
def test_verdicts_do_not_depend_on_parts_or_memory(tmp_path: Path, keep: str) -> None:
    texts, _ = planted("en", 4000, (1, 3, 6, 20))
    random.Random(1).shuffle(texts)
    texts += texts[:500]
    config = DeduplicateConfig(keep=keep)
    whole, counts = verdicts(tmp_path / "whole", config, texts, "en")
    tight = config.model_copy(update={"memory": 1 << 20})  # two ranges of keys, many chunks
    parts, other = verdicts(tmp_path / "parts", tight, texts, "en", cuts=(1, 1, 4000, 8_300))
    assert counts.exact > 400 and counts.near > 1000
    assert (counts.clusters, counts.exact, counts.near) == (other.clusters, other.exact, other.near)
    assert whole.tobytes() == parts.tobytes()


def test_the_longest_of_a_cluster_stays(tmp_path: Path) -> None:
    words = [f"word{chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(200)]
    texts = [" ".join(words[:190]), " ".join(words), " ".join(words[:195]), "alone " * 3, " ".join(words)]
    kept = {
        keep: set(range(5)) - {int(row["position"]) for row in found if row["drop"]}
        for keep in ("first", "longest")
        for found, _ in [verdicts(tmp_path / keep, DeduplicateConfig(keep=keep), texts, "en")]
    }
    assert kept == {"first": {0, 3}, "longest": {1, 3}}


def test_empty_and_short_texts(tmp_path: Path) -> None:
    texts = ["", "", "。", "！", "。", "痛", "痛。", "头痛", "one two", "one three"]
    found, counts = verdicts(tmp_path / "a", DeduplicateConfig(), texts, "")
    gone = {int(row["position"]): int(row["cluster"]) for row in found[found["drop"]]}
    assert gone == {1: 0, 4: 2, 6: 5}  # signs alone are equal to the same signs
    assert counts.near == 0
    assert len(verdicts(tmp_path / "none", DeduplicateConfig(), [], "en")[0]) == 0


def test_a_part_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    part = tmp_path / "part"
    config = DeduplicateConfig()
    rows = signatures(config, ["one two three four five six"] * 3, "en")
    part.write_bytes(rows.tobytes()[:-1])
    with pytest.raises(InputError, match=r"part has .* bytes"):
        find_duplicates(config, [part], tmp_path, [tmp_path / "out"])
    assert not (tmp_path / "out").exists()


def test_the_folding_table_is_the_definition_over_all_of_unicode() -> None:
    entries, pool = folding._table()
    for code in range(0x110000):
        entry, category = int(entries[code]), unicodedata.category(chr(code))
        if entry == code and category == "Cn":
            continue  # where Unicode will put ideographs
        text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", chr(code)).casefold())
        kinds = [unicodedata.category(c) for c in text]
        wanted = [
            ord(str(unicodedata.decimal(c))) if kind == "Nd" else ord(c)
            for c, kind in zip(text, kinds)
            if kind[0] in "LN" or kind == "Mc"
        ]
        if entry == folding._IGNORED:
            assert not wanted and (category in ("Mn", "Me", "Cf") or 0xE0000 <= code < 0xE1000), hex(code)
        elif entry == folding._BOUNDARY:
            assert not wanted and category not in ("Mn", "Me", "Cf"), hex(code)
        elif entry & folding._EXPANSION:
            start = entry & ~folding._EXPANSION
            assert pool[start + 1 : start + 1 + pool[start]].tolist() == wanted and len(wanted) > 1, hex(code)
        else:
            assert [entry] == wanted, hex(code)
    assert _text.fold(folding.folding(), "\uff21\ud55c\u2460")[0].tolist() == [0x61, 0x1112, 0x1161, 0x11AB, 0x31]
