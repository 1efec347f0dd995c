"""Indexed datasets as a run finds them: whole, and made with the tokenizer that it trains with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_tools.manifest import dataset_files, manifest_path, read_manifest
from data_tools.tokenizers import Tokenizer
from megatron_aquila.errors import ConfigError

_COMMAND = {
    "documents": "aquila data index",
    "dialogues": "aquila data index --kind dialogues",
    "pairs": "aquila data index --kind pairs",
}


def checked_manifest(prefix: Path, tokenizer: Tokenizer, kind: str) -> dict[str, Any]:
    """The manifest of an indexed dataset of `kind` that is whole and was made with `tokenizer`.

    Raises:
        ConfigError: it is missing, of another kind, of another size than it says, or of another tokenizer.
    """
    manifest = read_manifest(manifest_path(prefix))
    if manifest is None:
        raise ConfigError(
            f"{manifest_path(prefix)} does not exist: data paths are the PREFIX that `{_COMMAND[kind]}` was given"
        )
    found = manifest.get("kind", "documents")
    if found != kind:
        raise ConfigError(f"{prefix} holds {found}, and this stage trains on {kind}: `{_COMMAND[kind]}`")
    for name, path in dataset_files(prefix, masked=kind != "documents").items():
        expected = manifest["files"][name]["bytes"]
        if not path.exists() or path.stat().st_size != expected:
            raise ConfigError(f"{path} is not the {expected} bytes that its manifest says: index it again")
    if manifest["tokenizer"]["digest"] != tokenizer.digest:
        raise ConfigError(
            f"{prefix} was indexed with another tokenizer ({manifest['tokenizer']['name']}) than "
            f"data.tokenizer ({tokenizer.name}): index it again, or give the tokenizer it was made with"
        )
    if manifest["tokenizer"]["eod_id"] != tokenizer.eod_id:
        raise ConfigError(
            f"{prefix} ends its documents with id {manifest['tokenizer']['eod_id']}, but data.tokenizer "
            f"({tokenizer.name}) says {tokenizer.eod_id}"
        )
    return manifest


def content_digest(manifest: dict[str, Any]) -> str:
    """Of the tokens, how they are cut into documents, and which of them are trained on."""
    files = manifest["files"]
    return "/".join(files[name]["sha256"] for name in ("bin", "idx", "loss_mask.bin", "loss_mask.idx") if name in files)
