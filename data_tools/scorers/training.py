"""Training a scorer from labelled seeds: read, split, train, report, publish.

One trainer for a corpus's domain and quality and for the scores of dialogues.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from data_tools.inputs import InputError, resolve_inputs
from data_tools.manifest import write_manifest
from data_tools.publish import sha256_file, storage_errors
from data_tools.scorers.directory import FORMAT, MANIFEST, QUARANTINE, REPORT, kind_module
from data_tools.scorers.protocol import TASKS, Task
from data_tools.scorers.report import RECALLS, make_report
from data_tools.scorers.seeds import Part, Seed, labelled_range, read_seeds, split
from data_tools.tokenizers import Tokenizer, TokenizerError, load_tokenizer

BALANCES = ("language", "label")
_SCORE_RANGE = (0.0, 6.0)  # the paper's, of quality
_PACKAGES = {
    "linear": ("numpy",),
    "fasttext": ("numpy", "fasttext-numpy2"),
    "encoder": ("numpy", "torch", "transformers", "tokenizers"),
}


def train_scorer(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    kind: str,
    task: str,
    tokenizer: Tokenizer | str | Path | None = None,
    labels: Sequence[str] = (),
    score_range: tuple[float, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    balance: Sequence[str] = ("language",),
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    recalls: Sequence[float] = RECALLS,
    cut: float = 3.0,
    max_bad_fraction: float = 0.01,
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Train on the seeds of `inputs`, publish the directory `output` as a whole or not at all, return its report.

    kind, task: `linear`, `fasttext` or `encoder`; `classification` or `regression` (not fastText).
    tokenizer: the recipe's, which a linear scorer is bound to.
    labels: those that may occur; none: those that do.
    score_range: of a regression; None: as the manifests of labelled seeds say, or from 0 to 6.
    settings: of the kind, by name (`LinearSettings`, `FastTextSettings`, `EncoderSettings`).
    balance: groups that are up-sampled to equal shares of the training seeds: language, label, both or none. The paper:
        language.
    validation, test: shares held out; the first chooses settings, epochs and thresholds, the second is reported.
    recalls, cut: the recalls to suggest thresholds for; and the score from which a text shall be found.

    The report is also `output`/report.json. Equal inputs and seed give a linear scorer of equal bytes.

    Raises:
        InputError: what was asked for cannot be done: names the input, line, argument or setting.
        StorageError: no space left.
    """
    output = Path(output)
    module = kind_module(kind)
    options = _Options(tuple(balance), validation, test, seed, tuple(recalls), cut, max_bad_fraction)
    paths = resolve_inputs([str(path) for path in inputs])
    target = _task(kind, task, labels, score_range or labelled_range(paths) or _SCORE_RANGE)
    options.check(target)
    if output.exists():
        raise InputError(f"{output} exists: remove it or choose another output directory")
    try:
        chosen = module.SETTINGS(**(settings or {}))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"the setting {place!r} of a {kind} scorer is wrong: {first['msg'].lower()}") from error
    coder = _tokenizer(tokenizer)

    output.parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent))
    try:
        with storage_errors(output):
            report = _train(directory, paths, kind, target, chosen, coder, options, on_progress)
            directory.chmod(0o755)
            directory.rename(output)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return report


@dataclass(frozen=True)
class _Options:
    balance: tuple[str, ...]
    validation: float
    test: float
    seed: int
    recalls: tuple[float, ...]
    cut: float
    max_bad_fraction: float

    def check(self, task: Task) -> None:
        for name in self.balance:
            if name not in BALANCES:
                raise InputError(f"balance names {name!r}: it may name {', '.join(BALANCES)}")
        if "label" in self.balance and task.name == "regression":
            raise InputError("balance names 'label', and a regression has none: leave it out")
        if not (0 < self.validation < 1 and 0 < self.test < 1 and self.validation + self.test < 1):
            raise InputError(
                f"validation is {self.validation:g} and test {self.test:g}: give shares above 0 that leave a rest"
            )
        for recall in self.recalls:
            if not 0 < recall <= 1:
                raise InputError(f"recalls holds {recall:g}: give shares above 0 and up to 1")
        if task.name == "regression" and not task.low < self.cut <= task.high:
            raise InputError(f"cut is {self.cut:g}: it must lie within the scores, {task.low:g} to {task.high:g}")


def _task(kind: str, name: str, labels: Sequence[str], score_range: tuple[float, float]) -> Task:
    if name == "classification":
        if labels and (len(set(labels)) < max(2, len(labels))):
            raise InputError(
                f"labels are {', '.join(labels)}: give two or more that differ, or none to take what is found"
            )
        return Task("classification", tuple(labels))
    if name != "regression":
        raise InputError(f"the task is {name!r}: choose one of {', '.join(TASKS)}")
    if kind == "fasttext":
        raise InputError("fastText has no regression: choose the kind linear or encoder")
    if labels:
        raise InputError("a regression has no labels: leave them out")
    if not score_range[0] < score_range[1]:
        raise InputError(f"score_range is {score_range[0]:g} to {score_range[1]:g}: the first must be the smaller")
    return Task("regression", (), float(score_range[0]), float(score_range[1]))


def _tokenizer(given: Tokenizer | str | Path | None) -> Tokenizer | None:
    if not isinstance(given, str | Path):
        return given
    try:
        return load_tokenizer(given)
    except TokenizerError as error:
        raise InputError(str(error)) from error


def _train(
    directory: Path,
    paths: Sequence[Path],
    kind: str,
    task: Task,
    settings: BaseModel,
    tokenizer: Tokenizer | None,
    options: _Options,
    on_progress: Callable[[str], None],
) -> dict[str, Any]:
    on_progress("reading seeds")
    seeds, counts = read_seeds(paths, task, directory / QUARANTINE, max_bad_fraction=options.max_bad_fraction)
    if task.name == "classification" and not task.labels:
        task = Task("classification", tuple(sorted({str(seed.target) for seed in seeds})))
    parts = split(seeds, seed=options.seed, validation=options.validation, test=options.test)
    _check_parts(parts, task)
    on_progress(f"training on {len(parts['train']):,} seeds")
    module = kind_module(kind)
    facts = module.train(
        directory,
        task,
        settings,
        train=parts["train"],
        validation=parts["validation"],
        balance=options.balance,
        tokenizer=tokenizer,
        seed=options.seed,
        on_progress=on_progress,
    )
    manifest = {
        "artefact": "scorer",
        "format": FORMAT,
        "kind": kind,
        "task": task.to_json(),
        "tokenizer": None,
        "settings": settings.model_dump(mode="json"),
        **facts,
        "options": asdict(options),
        "inputs": [{"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in paths],
        "seeds": {**counts.to_json(), "parts": {name: len(part) for name, part in parts.items()}},
        "versions": {name: version(name) for name in _PACKAGES[kind]},
    }
    on_progress("scoring held-out seeds")
    scorer = module.load(directory, manifest, task, tokenizer)
    report = {
        **{name: manifest[name] for name in ("kind", "task", "seeds", "training")},
        **make_report(scorer, parts["validation"], parts["test"], options.recalls, options.cut),
    }
    write_manifest(directory / REPORT, report)
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    manifest["files"] = {path.relative_to(directory).as_posix(): sha256_file(path) for path in files}
    write_manifest(directory / MANIFEST, manifest)
    return report


def _check_parts(parts: Mapping[Part, Sequence[Seed]], task: Task) -> None:
    for name, part in parts.items():
        missing = set(task.labels) - {str(seed.target) for seed in part}
        if missing or not part:
            lack = f"none of the label {', '.join(sorted(missing))}" if missing else "no seed at all"
            raise InputError(
                f"the {name} part has {lack} among {sum(map(len, parts.values())):,} seeds: more seeds are needed"
            )
    if task.name == "classification" and len(task.labels) < 2:
        raise InputError(f"all seeds have the label {task.labels[0]!r}: a classification needs at least two")
