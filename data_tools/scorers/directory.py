"""A scorer on disk: a directory with manifest.json, report.json and the files of its kind, checked before use.

Nothing in it is pickled. fastText's and torch's readers trust their files, so every digest is compared first.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from data_tools.inputs import InputError
from data_tools.manifest import ManifestError, read_manifest
from data_tools.publish import sha256_file
from data_tools.scorers.protocol import KINDS, Scorer, Task
from data_tools.tokenizers import Tokenizer

MANIFEST, REPORT, QUARANTINE = "manifest.json", "report.json", "quarantine.jsonl"
FORMAT = 1
_MODULES = dict(
    zip(KINDS, ("data_tools.scorers.linear", "data_tools.scorers.fasttext_model", "data_tools.local_model"))
)


def kind_module(kind: str) -> ModuleType:
    """The module of a kind: its `load`, its `train` and its `SETTINGS`. Heavy libraries are imported when they run.

    Raises:
        InputError: no such kind.
    """
    if kind not in _MODULES:
        raise InputError(f"there is no scorer of the kind {kind!r}: choose one of {', '.join(KINDS)}")
    return import_module(_MODULES[kind])


def load_scorer(directory: str | Path, tokenizer: Tokenizer | None = None) -> Scorer:
    """The scorer in `directory`, its files compared with the digests of its manifest.

    `tokenizer` is the recipe's: a linear scorer is bound to one, the others do not use it.

    Raises:
        InputError: no scorer there, a file that is missing or damaged, one made by another version, the wrong
            tokenizer, or a library that is not installed.
    """
    directory = Path(directory)
    manifest = read_scorer_manifest(directory)
    for name, digest in manifest["files"].items():
        path = directory / name
        if not path.is_file():
            raise InputError(f"the scorer {directory} is not whole: {name} is missing; copy or train it again")
        if sha256_file(path) != digest:
            raise InputError(f"{path} is damaged or was changed: its SHA-256 is not the manifest's; train it again")
    scorer: Scorer = kind_module(manifest["kind"]).load(directory, manifest, manifest["task"], tokenizer)
    return scorer


def read_scorer_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a scorer, its task as a `Task`; no other file is looked at.

    Raises:
        InputError: no manifest, or not one of a scorer that this version reads.
    """
    path = directory / MANIFEST
    try:
        manifest = read_manifest(path)
    except ManifestError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    if manifest is None:
        raise InputError(f"there is no scorer in {directory}: a scorer is a directory with a {MANIFEST}, train one")
    if manifest.get("artefact") != "scorer":
        raise InputError(f"{directory} holds a {manifest.get('artefact', 'thing without a name')}, not a scorer")
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{directory} is a scorer of format {manifest.get('format')!r}, this version reads {FORMAT}: train it again"
        )
    try:
        manifest["task"] = Task.from_json(manifest["task"])
        files = manifest["files"]
        whole = isinstance(files, dict) and all(isinstance(digest, str) for digest in files.values())
        if not whole or manifest["kind"] not in KINDS or not isinstance(manifest["settings"], dict):
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: it does not say what scorer this is; train it again") from error
    return manifest
