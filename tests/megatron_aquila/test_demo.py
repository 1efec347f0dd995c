"""The demo's parts; as a whole it takes minutes, and is run by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from data_tools.manifest import manifest_path, read_manifest
from megatron_aquila.config_loader import load_config
from megatron_aquila.demo import DOCUMENTS, MAX_LENGTH, SAMPLES, STAGES, TEMPLATE, _prepare_data, overrides, recipe
from megatron_aquila.demo_table import Row, closing_table


@pytest.mark.parametrize("stage", [stage.recipe for stage in STAGES])
def test_a_recipe_is_moved_with_every_path_it_has(stage: str, tmp_path: Path) -> None:
    assert "demo/" in load_config(recipe(stage)).model_dump_json()
    moved = load_config(recipe(stage), overrides(tmp_path / "elsewhere", stage))
    assert moved.output == tmp_path / "elsewhere" / "runs" / moved.output.name
    assert '"demo/' not in moved.model_dump_json()
    assert {corpus.path.parent for corpus in (*moved.data.train, *(moved.data.valid or ()))} == {
        tmp_path / "elsewhere" / "data"
    }


def test_each_stage_starts_from_the_one_before() -> None:
    runs = [load_config(recipe(stage.recipe)) for stage in STAGES]
    assert runs[0].model.weights is None
    assert [run.model.weights for run in runs[1:]] == [run.output for run in runs[:-1]]
    assert [run.output.name for run in runs] == [stage.run for stage in STAGES]
    assert [run.stage for run in runs] == ["cpt", "cpt", "sft", "dpo"]


def test_data_is_prepared_again_over_what_an_earlier_demo_left(tmp_path: Path) -> None:
    """And is the same: whatever was trained on it may go on."""
    digests = []
    for _ in range(2):
        _prepare_data(tmp_path, Console(quiet=True))
        manifests = {name: _manifest(tmp_path / "data" / name) for name in (*DOCUMENTS, *SAMPLES)}
        digests.append({name: manifest["files"] for name, manifest in manifests.items()})
    assert digests[0] == digests[1]
    kinds = {name: manifest["kind"] for name, manifest in manifests.items()}
    assert kinds == {**dict.fromkeys(DOCUMENTS, "documents"), **SAMPLES}
    for name in SAMPLES:
        counts = manifests[name]["counts"]
        assert manifests[name]["template"]["name"] == TEMPLATE
        assert manifests[name]["options"]["max_length"] == MAX_LENGTH
        assert (counts["truncated"], counts["dropped"]) == (0, {})
        assert counts["trained_tokens"] > counts["tokens"] / 4


def _manifest(prefix: Path) -> dict[str, Any]:
    manifest = read_manifest(manifest_path(prefix))
    assert manifest is not None
    return manifest


def test_the_closing_table_fits_a_screen() -> None:
    rows = [
        Row("before", 0.24),
        Row("stage 1", 0.434, None, None, None, 0.712, 0.744, 13886.2, 138.4),
        Row("DPO", 1.0, 0.991, 0.75, 0.9375, 0.112, 0.2, 2000.0, 99.0),
    ]
    console = Console(width=80)
    with console.capture() as capture:
        console.print(closing_table(rows, cloze=288, pairs=240))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    (last,) = [line for line in lines if line.lstrip().startswith("DPO")]
    assert last.split() == ["DPO", "100.0%", "99.1%", "75.0%", "93.8%", "0.112", "0.200", "2,000", "99", "s"]
    (first,) = [line for line in lines if "before" in line]
    assert first.split() == ["before", "24.0%"]
    (one,) = [line for line in lines if "stage 1" in line]
    assert one.index("0.712") + len("0.712") == last.index("0.112") + len("0.112"), "a number under another heading"
    assert "Cloze: 288 questions" in capture.get() and "240 held-out pairs" in " ".join(capture.get().split())
