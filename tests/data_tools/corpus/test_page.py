"""The funnel report: every number of the funnel on the page, and nothing of a document that acts on the page."""

import copy
import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from data_tools.corpus.page import funnel_page
from data_tools.corpus.page_terminal import plants_table, terminal_summary
from data_tools.pages.html import count, percent, short, size, visible
from tests.html_page import Page

Json = dict[str, Any]

HOSTILE = (
    "</script><script>alert('x')</script><style>*{display:none}</style> </blockquote></main> & &amp; \"quoted\"\n"
    "\x00\x1b[31m\x07 \u202etxet desrever\u202c \ud800 zero\u200bwidth <!-- --> ]]>"
)


def _size(documents: int, tokens_each: int = 180) -> Json:
    return {"documents": documents, "characters": documents * tokens_each * 3, "tokens": documents * tokens_each}


def _bell(low: float, high: float, centre: float, total: int, bins: int = 40, log: bool = False) -> Json:
    """A histogram with a hump at `centre` (a share of the axis)."""
    ratio = high / low if log else 0.0
    edges = [low * ratio ** (i / bins) if log else low + (high - low) * i / bins for i in range(bins + 1)]
    weights = [max(0.0, 1 - abs((i + 0.5) / bins - centre) * 4) ** 2 for i in range(bins)]
    counts = [int(total * weight / sum(weights)) for weight in weights]
    counts[0] += total - sum(counts)
    return {"edges": edges, "counts": counts, "log": log}


def sample() -> Json:
    """A funnel as a run writes it."""
    dropped = [
        ("advertising", "web", "zh", 402),
        ("advertising", "web", "en", 317),
        ("advertising", "forum", "zh", 41),
        ("mean-word-length", "web", "en", 88),
        ("too-short", "forum", "zh", 120),
        ("duplicate-lines", "library", "en", 12),
    ]
    came, gone = 11_862, sum(row[3] for row in dropped)
    steps: list[Json] = []

    def add(name: str, now: int, rows: list[tuple[str, str, str, int]], **more: Any) -> None:
        before = steps[-1]["out"] if steps else _size(12_482)
        steps.append(
            {
                "name": name,
                "in": before,
                "out": _size(now),
                "groups": [
                    {"source": source, "lang": lang, "in": _size(n + 50), "out": _size(n)}
                    for source, lang, n in (("web", "zh", now // 2), ("web", "en", now // 3), ("forum", "zh", now // 6))
                ],
                "dropped": [
                    {"reason": reason, "source": source, "lang": lang, **_size(n)} for reason, source, lang, n in rows
                ],
                "counts": {},
                "examples": [],
                "histograms": [],
            }
            | more
        )

    add("normalise", 12_470, [("broken-text", "web", "", 12)], counts={"unicode folded": 3_401, "white space": 8_120})
    add("language", came, [("language", "web", "other", 608)])
    add(
        "rules",
        came - gone,
        dropped,
        examples=[
            {
                "id": "raw-0001234",
                "reason": "advertising",
                "source": "web",
                "lang": "zh",
                "detail": {"value": 0.31, "limit": 0.05, "phrases": ["加微信", "限时优惠"]},
                "excerpt": "【限时优惠】祖传秘方，三天见效！加微信领取免费试用装，名额有限，先到先得！！！" * 3,
            },
            {
                "id": "raw-0004321",
                "reason": "mean-word-length",
                "source": "web",
                "lang": "en",
                "detail": {"value": 11.2345678, "limit": 10},
                "excerpt": HOSTILE,
            },
            {
                "id": "raw-0000777",
                "reason": "duplicate-lines",
                "source": "library",
                "lang": "en",
                "detail": {"value": 0.81, "limit": 0.3},
                "excerpt": "Click here to continue reading this page\n" * 9 + "x" * 400,
            },
        ],
        histograms=[
            {"measure": "mean_word_length", "lang": "en", "limits": [3, 10]} | _bell(0, 14, 0.35, 4_200),
            {"measure": "characters", "lang": "zh", "limits": [50.0]} | _bell(10, 100_000, 0.45, 7_662, log=True),
            {"measure": "characters", "lang": "en", "limits": [200.0]} | _bell(10, 100_000, 0.55, 4_200, log=True),
            {"measure": "duplicate_line_share", "lang": "zh", "limits": [0.28, 0.3]} | _bell(0, 1, 0.05, 7_662),
        ],
    )
    add("privacy", came - gone, [], counts={"masked e-mail": 12, "masked mobile": 140, "masked resident id": 33})
    add("domain", 6_120, [("not-medical", "web", "zh", 2_500), ("not-medical", "web", "en", came - gone - 8_620)])
    add("deduplicate", 5_400, [("duplicate", "web", "zh", 300), ("near-duplicate", "web", "en", 420)])
    add("decontaminate", 5_381, [("contaminated", "forum", "en", 19)])
    return {
        "format": "corpus-funnel",
        "version": 1,
        "name": "clinic <corpus> 诊所语料",
        "seed": 1234,
        "recipe": {"name": "clinic", "steps": [{"step": "language", "keep": ["zh", "en"]}, {"step": "rules"}]},
        "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "tokenizer": {"name": "sentencepiece", "digest": "2c26b46b68ffc68f"},
        "read": {
            "units": 12_493,
            "blank": 4,
            "quarantined": {"not UTF-8": 5, "not JSON": 2},
            "files": [
                {
                    "path": f"raw/{source}.jsonl.gz",
                    "source": source,
                    "bytes": 18_345_678,
                    "documents": 4_160,
                    "quarantined": 2,
                    "damage": "the last line is cut" if source == "forum" else None,
                }
                for source in ("web", "forum", "library")
            ],
            **_size(12_482),
        },
        "steps": steps,
        "stages": [
            {
                "name": "stage1",
                "documents": 9_000,
                "characters": 4_100_000,
                "tokens": 1_400_000,
                "tokens_asked": 1_500_000,
                "parts": [
                    _part("medical zh", 0.4, 500_000, 560_000),
                    _part("medical en", 0.4, 700_000, 560_000),
                    _part("general", None, 100_000, 280_000, capped=True),
                ],
            },
            {
                "name": "stage2",
                "documents": 3_000,
                "characters": 1_100_000,
                "tokens": 400_000,
                "tokens_asked": None,
                "parts": [_part("medical", 1.0, 300_000, 400_000)],
            },
        ],
        "clusters": {
            "exact": 300,
            "near": 420,
            "documents": 1_203,
            "largest": 17,
            "examples": [{"members": ["raw-0000012", "raw-0003456"], "kept": "raw-0000012", "similarity": 0.91}],
        },
        "plants": [
            _plant("rules", "all", 900, 12, 880, 8, 3),
            _plant("rules", "advertisement", 800, 2, 790, 8, None),
            _plant("decontaminate", "all", 19, 0, 19, 0, 0),
            _plant("quality", "all", 0, 0, 0, 0, 0),
        ],
        "outputs": [{"path": "stage1.jsonl.zst", "documents": 9_000, "bytes": 5_400_000, "sha256": "ab" * 32}],
        "packages": {"numpy": "2.4.6", "rensa": "0.5.0"},
    }


def _part(name: str, asked: float | None, available: int, tokens: int, *, capped: bool = False) -> Json:
    share = 0.4 if asked is None else asked
    return {
        "name": name,
        "share_asked": asked,
        "share": share,
        "available_tokens": available,
        "tokens": tokens,
        "documents": tokens // 180,
        "epochs": tokens / available,
        "capped": capped,
    }


def _plant(step: str, kind: str, planted: int, earlier: int, caught: int, missed: int, alarms: int | None) -> Json:
    recall = caught / (caught + missed) if caught + missed else None
    precision = caught / (caught + alarms) if alarms is not None and caught + alarms else None
    counts = {"planted": planted, "earlier": earlier, "caught": caught, "missed": missed}
    return {"step": step, "kind": kind, **counts, "recall": recall, "false_alarms": alarms, "precision": precision}


def test_the_page_says_every_number_of_the_funnel() -> None:
    funnel = sample()
    said = Page(funnel_page(funnel)).said
    numbers = [funnel["read"]["documents"], funnel["read"]["units"], funnel["clusters"]["documents"]]
    for step in funnel["steps"]:
        numbers += [step["in"]["documents"], step["out"]["documents"], *step["counts"].values()]
        numbers += [row[key] for row in step["dropped"] for key in ("documents", "characters", "tokens")]
        numbers += [group[key]["tokens"] for group in step["groups"] for key in ("in", "out")]
    for stage in funnel["stages"]:
        numbers += [stage["documents"], *(part["available_tokens"] for part in stage["parts"])]
    missing = [number for number in numbers if f"{number:,}" not in said]
    assert not missing
    # 402 + 317 + 41 advertisements of 11,862 documents, by language, largest first.
    assert re.search(r"advertising 760 6\.4 % 443 317 .{0,40}web 719, forum 41", said)
    assert "1.12 " in said and "0.80 " in said  # epochs: 560,000 tokens of 500,000 and of 700,000
    for text in ("9f86d081884c7d65", "keep: - zh - en", "numpy 2.4.6", "not UTF-8 5", "the last line is cut", "> 99.9"):
        assert text in said, text


def test_reasons_are_summed_per_language() -> None:
    page = funnel_page(sample())
    row = re.search(r"<tr><th scope=\"row\">advertising</th>(.*?)</tr>", page)
    assert row is not None
    cells = re.findall(r'data-label="([^"]+)">(?:<b>)?([^<]*)', row.group(1))
    assert dict(cells) | {"tokens": ""} == {
        "documents": "760",
        "share": "6.4\u00a0%",
        "zh": "443",
        "en": "317",
        "tokens": "",
        "sources": "web 719, forum 41",
    }


def test_a_hostile_document_is_shown_and_does_nothing() -> None:
    funnel = sample()
    plain = Page(funnel_page(funnel))
    for example in funnel["steps"][2]["examples"]:
        example |= {"id": HOSTILE, "source": HOSTILE, "reason": HOSTILE, "lang": HOSTILE, "excerpt": HOSTILE}
        example["detail"] = {HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}}
    for row in funnel["steps"][2]["dropped"]:
        row |= {"reason": HOSTILE, "source": HOSTILE}
    funnel["steps"][2]["histograms"][0] |= {"measure": HOSTILE, "lang": HOSTILE}
    funnel["read"]["files"][0] |= {"path": HOSTILE, "damage": HOSTILE}
    funnel["read"]["quarantined"] = {HOSTILE: 3}
    funnel["stages"][0]["parts"][0]["name"] = HOSTILE
    funnel["clusters"]["examples"][0] |= {"kept": HOSTILE, "members": [HOSTILE]}
    funnel["recipe"] = {"name": HOSTILE.replace("\ud800", "")}
    page = funnel_page(funnel)
    read = Page(page)
    assert not {name for name, _ in read.tags} - {name for name, _ in plain.tags}
    assert "script" not in {name for name, _ in read.tags}
    assert sum(name == "style" for name, _ in read.tags) == 1
    assert "alert('x')" in read.said  # shown
    page.encode("utf-8")  # no lone surrogate is left
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u200b]", page)
    assert "[U+202E]txet desrever" in read.said and "␛[31m" in read.said and "[U+D800]" in read.said


def test_the_page_stands_alone() -> None:
    page = funnel_page(sample())
    for name, attributes in Page(page).tags:
        assert name not in {"link", "img", "iframe", "object", "script"}
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
        assert not [key for key in attributes if key.startswith("on")]
    assert "url(" not in page and "@import" not in page
    # Every link of the page leads somewhere on it.
    read = Page(page)
    anchors = {attributes["id"] for _, attributes in read.tags if "id" in attributes}
    assert {(a["href"] or "")[1:] for _, a in read.tags if a.get("href")} <= anchors


def test_bars_and_columns_are_to_scale() -> None:
    funnel = sample()
    page = funnel_page(funnel)
    (drawn,) = re.findall(r'<svg class="bar"[^>]*aria-label="language: [^"]*">(.*?)</svg>', page)
    widths = dict(re.findall(r'<rect class="(kept|lost)"[^>]* width="([\d.]+)"', drawn))
    assert float(widths["kept"]) == pytest.approx(1000 * 11_862 / 12_482, abs=0.01)
    assert float(widths["lost"]) == pytest.approx(1000 * 608 / 12_482, abs=0.01)
    data = funnel["steps"][2]["histograms"][1]  # log scale
    (figure,) = re.findall(r"<figure>(?:(?!</figure>).)*characters(?:(?!</figure>).)*>zh<.*?</figure>", page)
    heights = [float(h) for h in re.findall(r'class="column"[^>]* height="([\d.]+)"', figure)]
    counts = [number for number in data["counts"] if number]
    assert len(heights) == len(counts)
    for height, number in zip(heights, counts):
        assert height == pytest.approx(max(1, 100 * number / max(counts)), abs=0.01)
    (x,) = re.findall(r'<line class="limit" x1="([\d.]+)"', figure)
    assert float(x) == pytest.approx(8 + 304 * 0.17474, abs=0.02)  # log(50 / 10) / log(100,000 / 10)


def _emptied(value: Any) -> Any:
    """The same with nothing in it."""
    if isinstance(value, dict):
        return {key: _emptied(one) for key, one in value.items()}
    return [] if isinstance(value, list) else 0 if isinstance(value, int | float) else value


def test_an_empty_run_has_a_page_and_a_summary() -> None:
    funnel = _emptied(sample()) | {"version": 1}
    del funnel["clusters"], funnel["plants"]
    funnel["read"]["quarantined"] = {}
    said = Page(funnel_page(funnel)).said
    assert "0 documents went through 0 steps; 0 came out." in said
    assert "nan" not in said.lower()
    nothing = copy.deepcopy(sample())
    for step in nothing["steps"]:
        step |= {"in": _size(0), "out": _size(0), "dropped": [], "groups": [], "counts": {}}
        for data in step["histograms"]:
            data["counts"] = [0] * len(data["counts"])
    nothing["read"] |= _size(0)
    assert "Nothing was dropped here." in Page(funnel_page(nothing)).said
    assert "0 –" in " ".join(_terminal(nothing))


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="corpus-funnel version 2, and the page shows corpus-funnel version 1"):
        funnel_page(sample() | {"version": 2})


def _terminal(funnel: Json, width: int = 110) -> Iterator[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(terminal_summary(funnel))
    console.print(plants_table(funnel.get("plants", ())))
    return (" ".join(line.split()) for line in console.export_text().splitlines())


def test_the_terminal_summary() -> None:
    funnel = sample()
    funnel["steps"][2]["dropped"][0]["reason"] = "[bold]markup[/bold]"
    lines = list(_terminal(funnel))
    assert "read 12,482 100 % 2.25 M 100 % 7 records quarantined" in lines
    assert "rules 10,882 87.2 % 1.96 M 87.2 % [bold]markup[/bold] 402, advertising 358," in lines
    text = " ".join(lines)
    assert "privacy 10,882 87.2 % 1.96 M 87.2 % masked mobile 140, masked" in text
    assert "stage1: 1.40 M tokens of 1.50 M asked: medical zh 40.0 % (1.12 epochs)" in text
    assert "(2.80 epochs, capped)" in text
    assert "rules all 900 12 880 8 99.1 % 3 99.7 %" in lines
    assert "quality all 0 0 0 0 0" in lines


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (count(1_234_567), "1,234,567"),
        (short(0), "0"),
        (short(999), "999"),
        (short(12_345), "12.3 k"),
        (short(999_999), "1.00 M"),
        (short(4_560_000), "4.56 M"),
        (short(60_000_000_000), "60.0 G"),
        (percent(0, 7), "0 %"),
        (percent(7, 7), "100 %"),
        (percent(1, 100_000), "< 0.1 %"),
        (percent(99_999, 100_000), "> 99.9 %"),
        (percent(1, 0), "–"),
        (percent(0.4567), "45.7 %"),
        (size(999), "999 B"),
        (size(18_345_678), "18.3 MB"),
        (visible("a\tb\nc é 中文 👩\u200d⚕️"), "a\tb\nc é 中文 👩\u200d⚕️"),
        (visible("\u2066\x85\ufeff"), "[U+2066][U+0085][U+FEFF]"),
    ],
)
def test_how_numbers_and_text_are_written(shown: str, expected: str) -> None:
    assert shown.replace("\u00a0", " ") == expected
