"""The JSON file beside every artefact that says what it was made of, with what, and what came out."""

from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from data_tools.indexed import bin_path, idx_path
from data_tools.publish import write_whole

_PACKAGES = (
    "megatron-aquila",
    "numpy",
    "orjson",
    "zstandard",
    "pyarrow",
    "tokenizers",
    "sentencepiece",
    "gigatoken",
)


class ManifestError(ValueError):
    """A manifest that cannot be read."""


def loss_mask_prefix(prefix: Path) -> Path:
    """The twin dataset of `prefix` (dialogues and pairs): uint8, the same sequences, 1 where a token is trained."""
    return prefix.with_name(f"{prefix.name}.loss_mask")


def dataset_files(prefix: Path, *, masked: bool) -> dict[str, Path]:
    """The files of the dataset `prefix` by their names in a manifest; `masked`: with those of its loss masks."""
    files = {"bin": bin_path(prefix), "idx": idx_path(prefix)}
    if masked:
        twin = loss_mask_prefix(prefix)
        files |= {"loss_mask.bin": bin_path(twin), "loss_mask.idx": idx_path(twin)}
    return files


def manifest_path(prefix: Path) -> Path:
    """Where the manifest of the dataset `prefix` stands."""
    return prefix.with_name(f"{prefix.name}.manifest.json")


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """Publish a manifest. It holds no times, so that equal artefacts have equal manifests.

    Raises:
        StorageError: no space left.
    """
    write_whole(path, orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest at `path`, or None if there is no such file.

    Raises:
        ManifestError: it is not a JSON object.
    """
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except orjson.JSONDecodeError as error:
        raise ManifestError(f"{path} is not JSON ({error}): make the dataset again") from error
    if not isinstance(content, dict):
        raise ManifestError(f"{path} is not a manifest: it must hold a JSON object")
    return content


def published(output: Path, digest: str) -> dict[str, Any] | None:
    """The funnel of a former run in `output`, if it did the same and its files have the sizes it says."""
    manifest = read_manifest(output / "manifest.json")
    if manifest is None or manifest.get("plan") != digest:
        return None
    for name, facts in manifest["files"].items():
        path = output / name
        if not path.exists() or path.stat().st_size != facts["bytes"]:
            return None
    funnel: dict[str, Any] = orjson.loads((output / "funnel.json").read_bytes())
    return funnel


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide the bytes of a token dataset."""
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):  # an optional one; or this one, run from a checkout
            found[name] = version(name)
    return found
