"""The folder of a run: what it holds beside checkpoints and logs."""

from __future__ import annotations

import shutil
from pathlib import Path

from data_tools.manifest import manifest_path
from data_tools.tokenizers import Tokenizer
from megatron_aquila.config import RunConfig
from megatron_aquila.config_loader import dump_config

DATA = "data"


def prepare_output(run: RunConfig, tokenizer: Tokenizer) -> None:
    """Write the resolved configuration, a copy of the tokenizer, and copies of the manifests of the data: PART-N of
    `data.PART.N`, where a stage has indexed data.
    """
    for name in ("tokenizer", DATA):
        (run.output / name).mkdir(parents=True, exist_ok=True)
    (run.output / "config.yaml").write_text(dump_config(run), encoding="utf-8")
    for file in tokenizer.files:
        shutil.copyfile(file, run.output / "tokenizer" / Path(file).name)
    for part, corpora in (("train", run.data.train), ("valid", run.data.valid or ())):
        for number, corpus in enumerate(corpora):
            manifest = manifest_path(corpus.path)
            if manifest.is_file():
                shutil.copyfile(manifest, run.output / DATA / f"{part}-{number}.manifest.json")
