"""The end of a run of pairs: balance, split, write, index, report. manifest.json, which a run removes first, is written
last.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from data_tools.config_files import dump_config
from data_tools.corpus.batch import dialogue_text
from data_tools.indexing import build_index, quarantine_file
from data_tools.inputs import RunError
from data_tools.manifest import dataset_files, manifest_path, package_versions, write_manifest
from data_tools.preferences.accounts import FILE as ACCOUNTS_FILE
from data_tools.preferences.accounts import Accounts
from data_tools.preferences.length_bias import length_bias, unbalanced
from data_tools.preferences.making import Kept, Making, Progress
from data_tools.preferences.page import pairs_page
from data_tools.preferences.recipe import PairsRecipe
from data_tools.preferences.report import FORMAT, KINDS, VERSION
from data_tools.preferences.split import Prompted, held_out
from data_tools.preferences.strata import prompt_rank
from data_tools.publish import sha256_file, write_whole
from data_tools.record_writer import RecordWriter
from data_tools.samples import PAIRS, IndexOptions
from data_tools.tokenizers import Tokenizer

TRAIN, VALID = "pairs_train", "pairs_valid"
# Beside the indexes and manifest.json, which is the last.
WRITTEN = (
    f"{TRAIN}.jsonl",
    f"{VALID}.jsonl",
    "audit.jsonl.zst",
    "quarantine.jsonl",
    ACCOUNTS_FILE,
    "funnel.json",
    "funnel.html",
)
_EXAMPLES = 3  # pairs shown of each kind and language
_SHOWN_CHARACTERS = 600


def audit_file(output: Path) -> Path:
    """What became of every candidate that was used, and what the models said of it."""
    return output / "audit.jsonl.zst"


def finish(
    recipe: PairsRecipe,
    digest: str,
    tokenizer: Tokenizer,
    making: Making,
    made: Sequence[Kept],
    accounts: Accounts,
    workers: int,
    on_progress: Progress,
) -> dict[str, Any]:
    """Publish what was made. Returns the funnel.

    Raises:
        RunError: nothing is left, or the counts do not add up. StorageError.
    """
    output, seed = recipe.output, recipe.seed
    before = [pair.lengths for pair in made]
    gone = unbalanced(before, recipe.length_bias, seed)
    for pair in made:
        lang, source = pair.made.lang, pair.made.source
        making.tally.enter(pair.lengths.kind, "length balance", source, lang)
        if pair.lengths.id in gone:
            making.tally.drop(pair.lengths.kind, "length balance", "length-balance", source, lang)
    if problem := making.tally.imbalance():
        raise RunError(f"the counts do not add up ({problem}): please report this")
    kept = [pair for pair in made if pair.lengths.id not in gone]
    if not kept:
        raise RunError(f"no pair at all is left: {_whither(making)}")
    kept.sort(key=lambda pair: (prompt_rank(pair.lengths.key, seed, "order"), pair.lengths.id))
    valid = held_out([Prompted(p.lengths.id, p.lengths.kind, p.lengths.key) for p in kept], recipe.split, seed)
    sides = {
        TRAIN: [pair for pair in kept if pair.lengths.id not in valid],
        VALID: [pair for pair in kept if pair.lengths.id in valid],
    }
    if not sides[TRAIN]:
        raise RunError(f"all {len(kept):,} pairs are held out for validation: lower split.valid_share or valid_count")
    _remove_former(recipe)
    for name, pairs in sides.items():
        if pairs:
            with RecordWriter(output / f"{name}.jsonl") as writer:
                for pair in pairs:
                    writer.write(_record(pair))
    indexes = _index(recipe, sides, workers, on_progress) if recipe.index else {}
    funnel: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": output.name,
        "seed": seed,
        "digest": digest,
        "recipe": recipe.model_dump(mode="json"),
        "tokenizer": {"name": tokenizer.name, "digest": tokenizer.digest},
        "read": {name: [file.to_json() for file in files] for name, files in making.files.items()},
        "kinds": [{"kind": kind, "steps": making.tally.to_json(kind)} for kind in KINDS if kind in making.strata],
        "strata": making.strata,
        "masked": dict(sorted(making.gates.counts.items())),
        "looked_for": dict(making.gates.facts),
        "judge": making.summary.to_json() if recipe.subjective is not None else None,
        "prompts": recipe.prompts(),
        "accounts": accounts.total(),
        "length_bias": {
            "before": length_bias(before, recipe.length_bias) if gone else None,
            **length_bias([pair.lengths for pair in kept], recipe.length_bias),
        },
        "split": {name: _split_counts(pairs) for name, pairs in sides.items()},
        "indexes": indexes,
        "examples": _examples(kept),
        "packages": package_versions(),
    }
    write_whole(output / "funnel.json", orjson.dumps(funnel, option=orjson.OPT_INDENT_2))
    write_whole(output / "funnel.html", pairs_page(funnel).encode())
    _write_manifest(recipe, digest, funnel, indexes)
    return funnel


def _record(pair: Kept) -> dict[str, Any]:
    made = pair.made
    return {**made.pair.to_json(), "lang": made.lang, "source": made.source, "meta": dict(made.meta)}


def _whither(making: Making) -> str:
    lost: Counter[str] = Counter()
    for kind in KINDS:
        for step in making.tally.to_json(kind):
            for row in step["dropped"]:
                lost[row["reason"]] += row["count"]
    return ", ".join(f"{number:,} {reason}" for reason, number in sorted(lost.items())) or "the inputs are empty"


def _index(
    recipe: PairsRecipe, sides: Mapping[str, Sequence[Kept]], workers: int, on_progress: Progress
) -> dict[str, Any]:
    """Make the indexes; their counts."""
    options = IndexOptions(kind=PAIRS, template=recipe.template, max_length=recipe.max_length)
    counts = {}
    for name, pairs in sides.items():
        if not pairs:
            continue
        summary = build_index(
            [str(recipe.output / f"{name}.jsonl")],
            recipe.tokenizer,
            recipe.output / name,
            options,
            eod=recipe.eod,
            workers=workers,
            on_progress=lambda done, total, name=name: on_progress(f"index {name}", done, total),  # type: ignore[misc]
        )
        counts[name] = summary.manifest["counts"]
    return counts


def _split_counts(pairs: Sequence[Kept]) -> dict[str, Any]:
    by_kind: dict[str, int] = {}
    for pair in pairs:
        by_kind[pair.lengths.kind] = by_kind.get(pair.lengths.kind, 0) + 1
    return {"pairs": len(pairs), "prompts": len({p.lengths.key for p in pairs}), "kinds": dict(sorted(by_kind.items()))}


def _examples(kept: Sequence[Kept]) -> list[dict[str, Any]]:
    """The first pairs of each kind and language, texts cut."""
    shown: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for pair in kept:
        group = shown.setdefault((pair.lengths.kind, pair.made.lang), [])
        if len(group) < _EXAMPLES:
            texts = {
                side: dialogue_text(messages)
                for side, messages in (
                    ("prompt", pair.made.pair.prompt[-1:]),
                    ("chosen", pair.made.pair.chosen),
                    ("rejected", pair.made.pair.rejected),
                )
            }
            cut = {
                side: text[:_SHOWN_CHARACTERS] + "…" * (len(text) > _SHOWN_CHARACTERS) for side, text in texts.items()
            }
            facts = {
                "id": pair.lengths.id,
                "kind": pair.lengths.kind,
                "lang": pair.made.lang,
                "source": pair.made.source,
            }
            turns = sum(message["role"] == "user" for message in pair.made.pair.prompt)
            group.append({**facts, "turns": turns, **cut})
    return [example for _, group in sorted(shown.items()) for example in group]


def _remove_former(recipe: PairsRecipe) -> None:
    """Remove what a former run published and this one may not replace. An index that is made again looks after itself;
    there may be no pairs for validation, or no indexes are asked for.
    """
    output = recipe.output
    for name in (TRAIN, VALID):
        (output / f"{name}.jsonl").unlink(missing_ok=True)
    for prefix in (output / VALID,) if recipe.index else (output / TRAIN, output / VALID):
        for path in (*dataset_files(prefix, masked=True).values(), manifest_path(prefix), quarantine_file(prefix)):
            path.unlink(missing_ok=True)


def _write_manifest(recipe: PairsRecipe, digest: str, funnel: Mapping[str, Any], indexes: Mapping[str, Any]) -> None:
    output = recipe.output
    paths = [path for name in WRITTEN if (path := output / name).exists()]
    for name in indexes:
        paths += [*dataset_files(output / name, masked=True).values(), manifest_path(output / name)]
    write_manifest(
        output / "manifest.json",
        {
            "format": "preferences",
            "version": VERSION,
            "plan": digest,
            "recipe": dump_config(recipe),
            "tokenizer": funnel["tokenizer"],
            "prompts": funnel["prompts"],
            "split": funnel["split"],
            "files": {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in paths},
            "packages": package_versions(),
        },
    )
