"""A card for each dataset that a model was trained on: counts, what was dropped and why, digests. No text of it.

A funnel holds excerpts of what it dropped, which may be private or protected: none is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from megatron_aquila.release.figures import number, share
from megatron_aquila.release.history import TrainingData
from megatron_aquila.release.markdown import Markdown, code, front_matter, table, text

_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"),
    (10**12, "100B<n<1T"),
)
_MOST_FILES = 100
_COUNTS = (
    "documents",
    "sequences",
    "tokens",
    "trained_tokens",
    "characters",
    "text_bytes",
    "truncated",
    "duplicate_ids",
)
_WHAT = {"documents": "documents of text", "dialogues": "dialogues", "pairs": "pairs of a better and a worse answer"}


def dataset_card(data: TrainingData) -> str:
    """The card of a dataset whose manifest is at hand, front matter first."""
    manifest = data.manifest or {}
    counts = manifest.get("counts", {})
    kind = manifest.get("kind", "documents")
    licences = sorted({str(found) for found in _licences(manifest)})
    parts = [
        f"# {text(data.name)}",
        f"The {_WHAT.get(kind, 'records')} that a model was trained or validated on, as its manifest tells. The data "
        "themselves are not part of this directory.",
        table(
            ("", ""),
            [(key.replace("_", " "), number(counts[key])) for key in _COUNTS if isinstance(counts.get(key), int)],
            right=(1,),
        ),
        _dropped(counts.get("dropped", {}), manifest.get("quarantined", {})),
        "## Made of",
        _inputs(manifest),
        _digests(manifest),
    ]
    if data.funnel is not None:
        parts += ["## From raw records to these", *_funnel(data.funnel), _mixture(data)]
    parts += [
        "## Licence",
        f"Recorded: {', '.join(code(one) for one in licences)}."
        if licences
        else "None is recorded in the data's manifest. The terms of each source decide what may be done with the data, "
        "and with models trained on them.",
    ]
    return _front_matter(data.name, counts.get("documents", 0)) + "\n" + "\n\n".join(p for p in parts if p) + "\n"


def _front_matter(name: str, records: int) -> str:
    size = next((label for limit, label in _SIZES if records < limit), "n>1T")
    return front_matter(
        {
            "pretty_name": name,
            "language": ["zh", "en"],
            "task_categories": ["text-generation"],
            "size_categories": [size],
            "tags": ["medical"],
        }
    )


def _dropped(dropped: Mapping[str, int], quarantined: Mapping[str, int]) -> str:
    rows = [(text(reason), "dropped", number(count)) for reason, count in dropped.items()]
    rows += [(text(reason), "unreadable, set aside", number(count)) for reason, count in quarantined.items()]
    return table(("reason", "what became of it", "records"), rows, right=(2,)) if rows else ""


def _inputs(manifest: Mapping[str, Any]) -> str:
    """The files, the first of them where there are thousands."""
    sources = manifest.get("inputs", [])
    rows = [
        (
            code(PurePath(str(source.get("path", ""))).name),
            number(source.get("documents", 0)),
            number(source.get("tokens", 0)),
            code(str(source.get("sha256", ""))),
        )
        for source in sources[:_MOST_FILES]
    ]
    more = len(sources) - len(rows)
    rest = f"\n\nAnd {more:,} files more, which the manifest lists." if more else ""
    return table(("file", "records", "tokens", "SHA-256"), rows, right=(1, 2)) + rest


def _digests(manifest: Mapping[str, Any]) -> str:
    rows = [(code(name), code(str(facts.get("sha256", "")))) for name, facts in manifest.get("files", {}).items()]
    for what in ("tokenizer", "template"):
        if manifest.get(what):
            rows.append((Markdown(f"{what} {code(manifest[what].get('name', ''))}"), code(manifest[what]["digest"])))
    return table(("written or used", "SHA-256"), rows) if rows else ""


def _funnel(funnel: Mapping[str, Any]) -> Iterator[str]:
    """What each step of curation kept; the funnel is of everything that was published together."""
    if "kinds" in funnel:
        for kind in funnel["kinds"]:
            yield f"### {text(kind['kind'])}"
            yield _steps(kind["steps"], "count")
        return
    noun = str(funnel.get("noun", "documents"))
    read = funnel.get("read", {})
    bad = sum(read.get("quarantined", {}).values())
    yield f"{read.get('documents', 0):,} {text(noun)} were read, {bad:,} records could not be."
    yield _steps(funnel["steps"], "documents")


def _mixture(data: TrainingData) -> str:
    """Of what the dataset was mixed, where it is a part of a mixture."""
    stages = (data.funnel or {}).get("stages", [])
    parts = [part for stage in stages if stage["name"] == data.name for part in stage["parts"]]
    if len(parts) < 2:
        return ""
    rows = [
        (
            code(part["name"]),
            share(part["share"]),
            number(part["available_tokens"]),
            number(part["tokens"]),
            Markdown(f"{part['epochs']:.2f}"),
        )
        for part in parts
    ]
    return table(("part", "share", "tokens there", "tokens drawn", "epochs"), rows, right=range(1, 5))


def _steps(steps: list[Mapping[str, Any]], unit: str) -> str:
    rows = []
    for step in steps:
        reasons: dict[str, int] = {}
        for drop in step.get("dropped", []):
            reasons[drop["reason"]] = reasons.get(drop["reason"], 0) + drop[unit]
        ordered = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
        why = Markdown(", ".join(f"{text(reason)} {count:,}" for reason, count in ordered))
        rows.append((step["name"], number(_size(step["in"])), number(_size(step["out"])), why))
    return table(("step", "in", "out", "dropped"), rows, right=(1, 2))


def _size(stream: Any) -> int:
    return int(stream if isinstance(stream, int) else stream["documents"])


def _licences(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Whatever the manifest says of licences: its own field, and those of its inputs."""
    for holder in (manifest, *manifest.get("inputs", [])):
        for key in ("licence", "license"):
            if holder.get(key):
                yield holder[key]
