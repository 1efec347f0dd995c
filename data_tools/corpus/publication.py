"""The end of a run: check that nothing got lost, write the report, and move every file to its place.

OUTPUT/documents/STAGE/*.jsonl.zst (of dialogues: OUTPUT/dialogues) are the documents, OUTPUT/decisions/ says what
became of every other one, OUTPUT/funnel.json and funnel.html are the report. OUTPUT/manifest.json is removed first and
written last.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from data_tools.commits import counts_of
from data_tools.config_files import dump_config
from data_tools.corpus import funnel as reports
from data_tools.corpus.deduplicate import DeduplicateConfig
from data_tools.corpus.funnel import Funnel, mixture
from data_tools.corpus.page import funnel_page
from data_tools.corpus.plan import CorpusPlan
from data_tools.corpus.work import MIX, plans_of, verdicts_marker
from data_tools.files import FileReader, ReadOptions
from data_tools.inputs import RunError
from data_tools.manifest import dataset_files, manifest_path, package_versions, read_manifest, write_manifest
from data_tools.publish import sha256_file, write_whole
from data_tools.quarantine import Fault
from data_tools.ranges import range_problem
from data_tools.record_writer import RecordWriter
from data_tools.tokenizers import Tokenizer

FORMAT, VERSION = "corpus", 1
DECISIONS = "decisions"
_CLUSTERS_AT_ONCE = 1 << 20  # members of clusters that are sorted together
_SHARD = re.compile(r"-\d{5,}\.jsonl\.zst$")
_DECISION = re.compile(r"-\d{5,}\.(\d+\.jsonl\.zst|\d+\.ids|in\..+\.ids)$")
_SHOWN_CLUSTERS = 5
_SHOWN_MEMBERS = 6


class CorpusError(RunError):
    """The corpus cannot be made as asked."""


def publish(plan: CorpusPlan, directory: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Publish what lies in `directory`; all of its pieces are done. Returns the funnel.

    Raises:
        CorpusError: too many bad records, a damaged file, an empty stage; the funnel is there then, to be looked at.
        StorageError: no space left.
    """
    output = plan.recipe.output
    funnel = _funnel(plan, directory, tokenizer)
    _remove_former(plan, output)
    quarantine, clusters = output / "quarantine.jsonl", output / "clusters.jsonl.zst"
    _join_quarantines(plan, directory, quarantine, funnel)
    if "clusters" in funnel:
        examples, largest = _join_clusters(plan, directory, clusters)
        funnel["clusters"] |= {"largest": largest, "examples": examples}
    write_whole(output / "funnel.json", orjson.dumps(funnel, option=orjson.OPT_INDENT_2))
    write_whole(output / "funnel.html", funnel_page(funnel).encode())
    _judge(plan, funnel, output)
    _move(plan, directory, output)
    reported = [
        path for path in (quarantine, clusters, output / "funnel.json", output / "funnel.html") if path.exists()
    ]
    facts = {str(path.relative_to(output)): _facts(path) for path in reported + sorted((output / DECISIONS).iterdir())}
    facts |= {entry["path"]: {key: entry[key] for key in ("bytes", "sha256")} for entry in funnel["outputs"]}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "plan": plan.digest,
        "noun": plan.recipe.noun,
        "recipe": dump_config(plan.recipe),
        "tokenizer": funnel["tokenizer"],
        "stages": funnel["stages"],
        "files": facts,
        "packages": package_versions(),
    }
    write_manifest(output / "manifest.json", manifest)
    return funnel


def _funnel(plan: CorpusPlan, directory: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    recipe = plan.recipe
    funnel = Funnel()
    spans: Counter[int] = Counter()
    outputs = []
    for phase in range(len(plan.phases) + 1):
        for number, shard in enumerate(plan.shards):
            counts = counts_of(plan.files_of(directory, phase, number).marker)
            if phase == 0:
                funnel.add_read(shard.file, counts["read"])
                spans[shard.file] += counts["read"]["span"]
            steps = counts["steps"] if recipe.mixes else {k: v for k, v in counts["steps"].items() if k != MIX}
            funnel.add_steps(plan.inputs[shard.source].name, steps)
            for stage, facts in counts.get("stages", {}).items():
                if facts["documents"]:
                    outputs.append({"path": f"{recipe.noun}/{stage}/{shard.name}.jsonl.zst", **facts})
    for file, span in zip(plan.files, (spans[number] for number in range(len(plan.files)))):
        if problem := range_problem(file, span):
            raise CorpusError(problem)
    if problem := funnel.imbalance():
        raise CorpusError(f"the counts do not add up ({problem}): please report this")
    files = [
        {"path": str(file.path), "source": plan.inputs[source].name, "bytes": file.size}
        for file, source in zip(plan.files, plan.sources)
    ]
    report: dict[str, Any] = {
        "format": reports.FORMAT,
        "version": reports.VERSION,
        "name": recipe.output.name,
        "noun": recipe.noun,
        "mixes": recipe.mixes,
        "seed": recipe.seed,
        "recipe": recipe.model_dump(mode="json"),
        "digest": plan.digest,
        "tokenizer": {"name": tokenizer.name, "digest": tokenizer.digest},
        "read": recipe.account(funnel.read(files)),
        "steps": funnel.steps(),
        "stages": [mixture(stage, parts) for stage, parts in zip(recipe.mixtures, plans_of(directory, plan))],
        "outputs": sorted(outputs, key=lambda entry: str(entry["path"])),
        "packages": package_versions(),
    }
    for number, row in enumerate(plan.phases):
        if row.ending is None:
            continue
        found = counts_of(verdicts_marker(directory, plan, number))
        if isinstance(row.ending, DeduplicateConfig):
            members = found["clusters"] + found["exact"] + found["near"]
            report["clusters"] = {"exact": found["exact"], "near": found["near"], "documents": members}
        else:
            step = next(step for step in report["steps"] if step["name"] == row.ending.step)
            step["counts"] |= found
    return report


def _judge(plan: CorpusPlan, funnel: dict[str, Any], output: Path) -> None:
    recipe, read = plan.recipe, funnel["read"]
    damaged = [file for file in read["files"] if file["damage"]]
    if damaged and not recipe.allow_truncated:
        more = f" (and {len(damaged) - 1} more damaged files)" if len(damaged) > 1 else ""
        raise CorpusError(
            f"{damaged[0]['path']}: {damaged[0]['damage']}; {damaged[0]['documents']:,} {recipe.noun} stand before "
            f"it{more}: get a whole copy, or set allow_truncated to take what is there"
        )
    bad = sum(read["quarantined"].values())
    if bad > recipe.max_bad_fraction * (read["documents"] + bad):
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in read["quarantined"].items())
        raise CorpusError(
            f"{bad:,} of {read['documents'] + bad:,} records are bad ({reasons}), more than the "
            f"{recipe.max_bad_fraction:.1%} allowed: see {output / 'quarantine.jsonl'}, mend them or raise "
            "max_bad_fraction"
        )
    for stage in funnel["stages"]:
        if not stage["documents"]:
            raise CorpusError(
                f"none of the {recipe.noun} is left for {stage['name']}: see {output / 'funnel.html'} for where they "
                "went"
            )


def _join_quarantines(plan: CorpusPlan, directory: Path, target: Path, funnel: dict[str, Any]) -> None:
    """The shards' quarantines in one file; only now are the lines before a shard known."""
    if not funnel["read"]["quarantined"]:
        return
    lines_before: Counter[int] = Counter()
    with RecordWriter(target) as joined:
        for path in plan.recipe.quarantines():
            with path.open("rb") as refused:
                for line in refused:
                    joined.write(orjson.loads(line))
        for number, shard in enumerate(plan.shards):
            files = plan.files_of(directory, 0, number)
            with files.quarantine.open("rb") as part:
                for line in part:
                    fault = orjson.loads(line)
                    fault["line"] += lines_before[shard.file]
                    joined.write(fault)
            lines_before[shard.file] += counts_of(files.marker)["read"]["units"]


def _join_clusters(plan: CorpusPlan, directory: Path, target: Path) -> tuple[list[dict[str, Any]], int]:
    """All clusters of duplicates by their number, a member a line; returns the largest few for the report, and the
    number of members of the largest.
    """
    paths = [
        plan.files_of(directory, phase, shard).clusters
        for phase in range(1, len(plan.phases))
        for shard in range(len(plan.shards))
    ]
    members, highest = 0, 0
    for row in _rows(paths):
        members, highest = members + 1, max(highest, row["cluster"])
    width = max(1, (highest + 1) * _CLUSTERS_AT_ONCE // max(members, 1))  # clusters a pass, spread evenly
    largest: list[tuple[int, int, list[dict[str, Any]]]] = []
    with RecordWriter(target) as writer:
        for low in range(0, highest + 1, width) if members else ():
            rows = sorted(
                (row for row in _rows(paths) if low <= row["cluster"] < low + width), key=lambda row: row["cluster"]
            )
            for cluster, group in itertools.groupby(rows, key=lambda row: row["cluster"]):
                found = list(group)
                largest.append((-len(found), cluster, found[:_SHOWN_MEMBERS]))
                for row in found:
                    writer.write(row)
            largest = sorted(largest, key=lambda entry: entry[:2])[:_SHOWN_CLUSTERS]
    examples = [
        {
            "members": [row["id"] for row in found],
            "kept": next((row["id"] for row in found if row["kept"]), None),
            "similarity": min((row["similarity"] for row in found if not row["kept"]), default=None),
        }
        for _, _, found in largest
    ]
    return examples, -largest[0][0] if largest else 0


def _rows(paths: list[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        for item in FileReader(path, ReadOptions()):
            assert not isinstance(item, Fault)
            yield item.value


def _move(plan: CorpusPlan, directory: Path, output: Path) -> None:
    """Publish decisions and stages."""
    decisions = output / DECISIONS
    decisions.mkdir(exist_ok=True)
    for stage in plan.recipe.mixtures:
        (output / plan.recipe.noun / stage.name).mkdir(parents=True, exist_ok=True)
    for phase in range(len(plan.phases) + 1):
        for number, shard in enumerate(plan.shards):
            files = plan.files_of(directory, phase, number)
            if files.decision_ids.stat().st_size:
                _place(files.decisions, decisions / f"{shard.name}.{phase}.jsonl.zst")
                _place(files.decision_ids, decisions / f"{shard.name}.{phase}.ids")
            if phase < len(plan.phases):
                continue
            for stage in plan.recipe.mixtures:
                documents, ids = files.stage(stage.name)
                if ids.stat().st_size:
                    _place(documents, output / plan.recipe.noun / stage.name / f"{shard.name}.jsonl.zst")
                    _place(ids, decisions / f"{shard.name}.in.{stage.name}.ids")


def _place(source: Path, target: Path) -> None:
    """Link a file of the work directory to its place, so that a run that is killed now need not make it again."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without links
        source.replace(target)


def _remove_former(plan: CorpusPlan, output: Path) -> None:
    """Remove what a former run published, or was about to when it was killed, and nothing else."""
    manifest = read_manifest(output / "manifest.json")
    (output / "manifest.json").unlink(missing_ok=True)
    for name in (manifest or {}).get("files", {}):
        (output / name).unlink(missing_ok=True)
    leftovers = [output / "quarantine.jsonl", output / "clusters.jsonl.zst"]
    for name in {stage["name"] for stage in (manifest or {}).get("stages", ())} - {
        s.name for s in plan.recipe.mixtures
    }:
        leftovers += [*dataset_files(output / name, masked=True).values(), manifest_path(output / name)]
    leftovers += [path for path in (output / DECISIONS).glob("*") if _DECISION.search(path.name)]
    for stage in plan.recipe.mixtures:
        leftovers += [path for path in (output / plan.recipe.noun / stage.name).glob("*") if _SHARD.search(path.name)]
    for path in leftovers:
        path.unlink(missing_ok=True)


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
