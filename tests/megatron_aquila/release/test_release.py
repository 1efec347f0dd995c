"""`aquila export`: what the directory holds, what its cards say, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from huggingface_hub import DatasetCard, EvalResult, ModelCard
from markdown_it import MarkdownIt
from safetensors.torch import load_file, save_file

from data_tools.publish import sha256_file
from megatron_aquila.checkpoint import open_checkpoint
from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation import results
from megatron_aquila.evaluation.contamination import Contamination
from megatron_aquila.evaluation.contamination import write as write_contamination
from megatron_aquila.evaluation.judge.summary import PairSummary
from megatron_aquila.evaluation.judge.summary import write as write_judgement
from megatron_aquila.huggingface import HuggingFaceError
from megatron_aquila.manifest import weights_digest
from megatron_aquila.release.check import check_export
from megatron_aquila.release.evidence import ReleaseError, gather
from megatron_aquila.release.export import Released, ReleaseOptions, release
from tests.data_tools.one_thread import one_thread  # noqa: F401 (a fixture)
from tests.megatron_aquila.release.runs_on_disk import SHAPE, fingerprint_of, make_run, random_tensors
from tests.world import world

FULL = ReleaseOptions(name="Aquila | Med <b>", licence="apache-2.0", base_model="BAAI/Aquila2-7B")


def _dataset(prefix: Path, kind: str, *, published: bool = True) -> Path:
    """The manifest of an indexed dataset, and beside it what the step before has published."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    source = {"path": f"/home/someone/secret/{prefix.name}.jsonl", "sha256": "ab" * 32, "documents": 7, "tokens": 90}
    manifest = {
        "kind": kind,
        "counts": {"documents": 7, "tokens": 90, "dropped": {"too-long": 2}},
        "quarantined": {"not-json": 1},
        "tokenizer": {"name": "tokenizer", "digest": "cd" * 32},
        "inputs": [source],
        "files": {"bin": {"bytes": 1, "sha256": prefix.name.encode().hex().ljust(64, "0")}},
    }
    Path(f"{prefix}.manifest.json").write_bytes(orjson.dumps(manifest))
    files = {"documents/x.jsonl": {"sha256": "ab" * 32 if published else "ef" * 32}}
    (prefix.parent / "manifest.json").write_bytes(orjson.dumps({"files": files}))
    drops = [{"reason": "near-duplicate", "source": name, "lang": "zh", "documents": 2} for name in "ab"]
    examples = [{"excerpt": "PRIVATE EXCERPT"}]
    size = {"characters": 0, "tokens": 0}
    step = {"name": "deduplicate", "in": {"documents": 11, **size}, "out": {"documents": 7, **size}}
    funnel = {
        "noun": "documents",
        "read": {"documents": 11, "quarantined": {"not-json": 3}},
        "steps": [{**step, "dropped": drops, "examples": examples}],
    }
    (prefix.parent / "funnel.json").write_bytes(orjson.dumps(funnel))
    return prefix


def _evaluation(run: Path, name: str, **facts: Any) -> results.Evaluation:
    """An evaluation of the newest checkpoint of `run`, in its folder; `facts` are of the model."""
    checkpoint = open_checkpoint(run)
    shards = [file["sha256"] for shard, file in checkpoint.manifest["files"].items() if shard.endswith(".safetensors")]
    model = {
        "name": run.name,
        "path": str(run),
        "kind": "checkpoint",
        "digest": weights_digest(shards),
        "step": checkpoint.step,
        "backend": "aquila",
        "layout": "TP1×PP1×DP1",
        "precision": "fp32",
        "chat_template": None,
        **facts,
    }
    interval = {"low": 0.2345, "high": 0.5432}
    task = {
        "group": "aqm_ceval",
        "n": 49,
        "right": 18,
        "invalid": 3,
        "accuracy": 18 / 49,
        "interval": interval,
        "standard_error": 0.07,
        "clusters": 49,
        "metrics": {"macro_f1": 0.3111},
        "shots": 3,
        "kind": "log-likelihood",
        "data": "0" * 64,
        "prompt": "0" * 64,
        "warnings": ["n = 49: see the interval"],
    }
    average = {"value": 0.4567, "interval": interval}
    evaluation = results.Evaluation.model_validate(
        {
            "model": model,
            "suite": "paper-cpt",
            "seed": 0,
            "tasks": {"aqm_ceval_physician": task, "aqm_pubmedqa": {**task, "accuracy": 0.5, "group": None}},
            "groups": {"aqm_ceval": {"tasks": ["aqm_ceval_physician"], "n": 49, "macro": average, "micro": average}},
            "versions": {},
            "began": "2026-01-01T00:00:00+00:00",
            "seconds": 1.0,
        }
    )
    results.write(run / "evaluation" / name, evaluation, {})
    return evaluation


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`cpt`, and `sft` made from it, with data, and with an evaluation of the newest of its two checkpoints."""
    directory = tmp_path_factory.mktemp("runs")
    data = directory / "corpora"
    corpus = [{"path": _dataset(data / "one" / "corpus", "documents"), "weight": 1.0}]
    other = [{"path": _dataset(data / "two" / "corpus", "dialogues", published=False), "weight": 1.0}]
    Path(f"{other[0]['path']}.manifest.json").write_bytes(
        Path(f"{other[0]['path']}.manifest.json").read_bytes().replace(b"636f72707573", b"777777777777")
    )
    make_run(directory / "cpt", random_tensors(seed=1), stage="cpt", data__train=corpus)
    tune = {"chat_template": "chatml", "data__train": other, "model__weights": str(directory / "cpt")}
    for step in (5, 10):
        sft = make_run(directory / "sft", random_tensors(seed=step), step=step, stage="sft", **tune)
    _evaluation(sft, "paper-cpt")
    return directory


@pytest.fixture(scope="module")
def released(runs: Path) -> Released:
    return release(runs / "sft", runs / "export", FULL)


def test_the_directory_opens_in_transformers_with_the_trained_logits(runs: Path, released: Released) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    here = released.directory
    names = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert names >= {"README.md", "chat_template.jinja", "generation_config.json", "datasets/corpus.md"}
    assert not list(here.rglob("*.py")) and "auto_map" not in (here / "config.json").read_text(encoding="utf-8")
    model = AutoModelForCausalLM.from_pretrained(here, trust_remote_code=False)
    assert type(model).__name__ == "LlamaForCausalLM"
    weights = random_tensors(seed=10)
    assert torch.equal(model.get_input_embeddings().weight, weights["embedding.word_embeddings.weight"])
    tokenizer = AutoTokenizer.from_pretrained(here)
    assert tokenizer.chat_template == (here / "chat_template.jinja").read_text(encoding="utf-8")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert GenerationConfig.from_pretrained(here).eos_token_id == [SHAPE.eos_id, end]
    assert GenerationConfig.from_pretrained(here).to_diff_dict().keys().isdisjoint({"temperature", "top_p", "top_k"})


def test_the_model_card_is_one_of_the_hub(runs: Path, released: Released) -> None:
    card = ModelCard.load(released.directory / "README.md")
    data = card.data
    assert (data.license, data.base_model, data.language) == ("apache-2.0", "BAAI/Aquila2-7B", ["zh", "en"])
    assert (data.library_name, data.pipeline_tag, data.model_name) == (
        "transformers",
        "text-generation",
        "Aquila | Med <b>",
    )
    found = {(one.dataset_name, one.metric_type): one for one in data.eval_results}
    assert all(isinstance(one, EvalResult) for one in found.values())
    values = {key: one.metric_value for key, one in found.items()}
    assert values == {
        ("aqm_ceval_physician", "accuracy"): 0.3673,
        ("aqm_ceval_physician", "macro_f1"): 0.3111,
        ("aqm_pubmedqa", "accuracy"): 0.5,
        ("aqm_pubmedqa", "macro_f1"): 0.3111,
    }


def test_the_model_card_tells_results_history_and_limits(runs: Path, released: Released) -> None:
    text = (released.directory / "README.md").read_text(encoding="utf-8")
    assert "| `aqm_ceval_physician` | 49 | 36.7 % | 23.4 – 54.3 | 3 | 3 | log-likelihood | macro\\_f1 0.311 |" in text
    assert "| `aqm_ceval` | 1 | 49 | 45.7 % | 23.4 – 54.3 | 45.7 % | 23.4 – 54.3 |" in text
    assert "n = 49: see the interval" in text.replace("\\", "")
    assert "not a doctor" in text and "不构成医疗建议" in text
    assert "the quality of its dialogues" in text  # nobody judged them
    assert "knowledge, by questions" not in text
    for run, step in (("cpt", 10), ("sft", 10)):
        checkpoint = open_checkpoint(runs / run)
        seal = (checkpoint.path / "manifest.json.sha256").read_text(encoding="utf-8")
        row = f"| `{run}` | {step} | {256 * step:,} "
        assert row in text and f"`{checkpoint.state['config_hash'][:16]}` | `{seal[:16]}` |" in text.split(row)[1]
    assert text.index("| `cpt` |") < text.index("| `sft` |")
    for file in released.directory.rglob("*.md"):
        said = file.read_text(encoding="utf-8")
        assert str(runs) not in said and "/home/someone" not in said and "PRIVATE EXCERPT" not in said


def test_dataset_cards(released: Released) -> None:
    """Two datasets of one name have a card each; only the one whose funnel is its own shows it."""
    folder = released.directory / "datasets"
    assert sorted(path.name for path in folder.iterdir()) == ["corpus-2.md", "corpus.md"]
    first, second = ((folder / name).read_text(encoding="utf-8") for name in ("corpus.md", "corpus-2.md"))
    data = DatasetCard(first).data
    assert (data.size_categories, data.task_categories, data.language) == (["n<1K"], ["text-generation"], ["zh", "en"])
    for row in (
        "| documents | 7 |",
        "| tokens | 90 |",
        "| too-long | dropped | 2 |",
        f"| `corpus.jsonl` | 7 | 90 | `{'ab' * 32}` |",
        "| deduplicate | 11 | 7 | near-duplicate 4 |",
        "None is recorded in the data's manifest.",
    ):
        assert row in first
    assert "deduplicate" not in second
    links = (released.directory / "README.md").read_text(encoding="utf-8")
    assert "(datasets/corpus.md)" in links and "(datasets/corpus-2.md)" in links


def test_nothing_is_invented_where_nothing_is_known(runs: Path, tmp_path: Path) -> None:
    """Neither licence nor results; and a run that started from one that is gone says so."""
    run = make_run(tmp_path / "alone", random_tensors(), model__weights="gone/base")
    done = release(run, tmp_path / "export", ReleaseOptions(check=False))
    text = (done.directory / "README.md").read_text(encoding="utf-8")
    data = ModelCard(text).data
    assert data.license is None and data.eval_results is None and data.base_model is None
    assert "No evaluation of these weights was recorded." in text and "Not stated" in text
    assert "`base`, which could not be read" in text and "gone" not in text
    notes = " ".join(done.notes)
    for word in ("base", "unused", "aquila eval run", "--license"):
        assert word in notes


def test_results_of_other_weights_stay_out(runs: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", random_tensors(seed=1), step=1)
    make_run(run, random_tensors(seed=2), step=2)
    _evaluation(run, "right")
    _evaluation(run, "of-step-1", step=1)
    _evaluation(run, "trained-anew", digest="0" * 64)
    _evaluation(run, "of-an-export", kind="huggingface", step=None)
    evidence = gather(open_checkpoint(run))
    assert list(evidence.evaluations) == ["right"]
    assert [sentence.split()[0] for sentence in evidence.left_out] == ["of-an-export", "of-step-1", "trained-anew"]
    with pytest.raises(ReleaseError, match="of-step-1 is an evaluation of step 1, and step 2 is exported"):
        release(run, tmp_path / "export", ReleaseOptions(evaluations=(run / "evaluation" / "of-step-1",)))
    with pytest.raises(ReleaseError, match=r"holds none of results\.json"):
        gather(open_checkpoint(run), [tmp_path])
    # one of an export counts where the export is the same, byte for byte
    options = ReleaseOptions(evaluations=(run / "evaluation" / "of-an-export",), check=False)
    with pytest.raises(ReleaseError, match="of-an-export is an evaluation of other weights"):
        release(run, tmp_path / "export", options)
    assert not (tmp_path / "export").exists()
    first = release(run, tmp_path / "first", ReleaseOptions(card=False, check=False)).directory
    _evaluation(
        run,
        "of-an-export",
        kind="huggingface",
        step=None,
        digest=weights_digest([sha256_file(first / "model.safetensors")]),
    )
    text = (release(run, tmp_path / "export", options).directory / "README.md").read_text(encoding="utf-8")
    assert "### `of-an-export`" in text and "### `right`" in text


def test_hostile_names_act_on_neither_card(tmp_path: Path) -> None:
    """Read by another implementation of Markdown: no HTML, no image, no link but those to dataset cards."""
    evil = "<img src=x> [a](http://evil) | ``b`` \x1b[0m"
    data = _dataset(tmp_path / "data" / "<script>alert(1)", "documents")
    run = make_run(tmp_path / "run", random_tensors(), data__train=[{"path": data}])
    evaluation = _evaluation(run, "<b>x")
    task = evaluation.tasks["aqm_pubmedqa"].model_copy(update={"warnings": (evil,), "metrics": {evil: 1.0}})
    hostile = evaluation.model_copy(update={"tasks": {evil: task}, "groups": {evil: evaluation.groups["aqm_ceval"]}})
    results.write(run / "evaluation" / "<b>x", hostile, {})
    done = release(run, tmp_path / "export", ReleaseOptions(check=False, name=f"{evil}\n\n# top"))
    [card_of_data] = (done.directory / "datasets").iterdir()
    assert card_of_data.name == "script-alert-1.md"
    for path in (done.directory / "README.md", card_of_data):
        card = ModelCard.load(path)
        tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(card.text)
        leaves = [leaf for token in tokens for leaf in [token, *(token.children or [])]]
        assert not {leaf.type for leaf in leaves} & {"html_inline", "html_block", "image"}
        assert {leaf.attrs["href"] for leaf in leaves if leaf.type == "link_open"} <= {"datasets/script-alert-1.md"}
        assert [token.tag for token in tokens if token.type == "heading_open"].count("h1") == 1
        assert "\x1b" not in path.read_text(encoding="utf-8")


def test_judgements_and_contamination_stand_in_the_card(tmp_path: Path) -> None:
    """A judgement only where the answers that it judged are of these weights."""
    run = make_run(tmp_path / "run", random_tensors())
    _evaluation(run, "chat")
    answers = run / "evaluation" / "chat" / "answers" / "huatuo.jsonl"
    answers.parent.mkdir()
    answers.write_text('{"id": "1"}\n', encoding="utf-8")
    _judgement(run / "evaluation" / "judged", sha256_file(answers))
    _judgement(run / "evaluation" / "of-others", "0" * 64)
    share = {"n": 200, "flagged": 3, "too_short": 0, "share": 0.015, "interval": {"low": 0.005, "high": 0.0431}}
    searched = {"path": "/home/someone/corpus", "digest": "ab" * 32, "files": []}
    report = Contamination.model_validate(
        {"settings": {}, "training": [searched], "digest": "0" * 64, "sets": {}, "tasks": {"aqm_medqa": share}}
    )
    write_contamination(report, run / "evaluation")
    done = release(run, tmp_path / "export", ReleaseOptions(check=False))
    text = (done.directory / "README.md").read_text(encoding="utf-8")
    assert "Answers of `ours` against the reference answers of the set:" in text
    assert "40.0 % (25.0 – 55.0) | not distinguishable |" in text and "`judge-model`; 39 of 40 answers" in text
    assert "Both orders agree on 80.0 % of the items" in text and "60.0 % are for the answer that stood first" in text
    assert "### `judged`" in text and "of-others" not in text and "of-others judges answers" in " ".join(done.notes)
    assert "| `aqm_medqa` | 200 | 3 | 1.5 % | 0.5 – 4.3 |" in text
    assert "`corpus` (`abababababababab`)" in text and "/home/someone" not in text
    missing = text.split("Not evaluated here:")[1].split("\n")[0]
    assert "dialogues" not in missing and "test questions" not in missing


def _judgement(directory: Path, answers: str) -> None:
    interval = {"low": 0.25, "high": 0.55}
    keys = ("win", "tie", "loss")
    outcomes: dict[str, Any] = {"win": 16, "tie": 8, "loss": 16, "n": 40}
    outcomes |= {"shares": dict.fromkeys(keys, 0.4), "intervals": dict.fromkeys(keys, interval)}
    outcomes |= dict.fromkeys(("net_win", "net_win_error", "net_win_interval", "sign_test", "half_ties"))
    outcomes["verdict"] = "not distinguishable"
    length = dict.fromkeys(("answer_characters", "against_characters", "difference", "correlation", "longer_wins"))
    counted = {"rows": 40, "drawn": 40, "skipped": {}, "items": 40, "judged": 39, "invalid": 1, "failed": {}}
    counted |= {"invalid_answers": {}, "coverage": 0.975, "suspicious": {}, "suspicious_items": 0, "unfinished": 0}
    asked = {"model": "judge-model", "served": [], "temperature": 0.0, "top_p": None, "seed": None}
    place = {"consistency": 0.8, "first_preference": 0.6, "flips_to_first": 5, "flips_to_second": 3}
    summary = PairSummary.model_validate(
        {
            "judge": {**asked, "max_tokens": 9, "retries": 1, "prompts": {}},
            "answers": {"name": "ours", "file": "huatuo.jsonl", "rows": 40, "sha256": answers},
            "against": None,
            "counted": counted,
            "strict": outcomes,
            "lax": outcomes,
            "matrix": {},
            "position": {
                **place,
                "consistency_interval": interval,
                "first_preference_interval": interval,
                "flips_sign_test": None,
            },
            "length": {**length, "longer_wins_interval": None, "longer_wins_n": 0, "quarters": []},
            "languages": {},
            "canaries": None,
        }
    )
    directory.mkdir()
    write_judgement(directory, summary)


@pytest.mark.parametrize("place", ["export", "plain"])
def test_the_code_in_the_card_runs(
    runs: Path, released: Released, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a chat template, and of a model without one."""
    done = released if place == "export" else release(runs / "cpt", runs / place, ReleaseOptions(check=False))
    text = (done.directory / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace('"PATH"', repr(str(done.directory))).replace("=256", "=4"), names)
    prompt, output = names["inputs"]["input_ids"], names["output"]
    assert torch.equal(output[:, : prompt.shape[1]], prompt) and 1 <= output.shape[1] - prompt.shape[1] <= 4
    assert ("apply_chat_template" in code) == (place == "export")


def test_the_digest_is_the_one_that_evaluations_write(runs: Path) -> None:
    checkpoint = open_checkpoint(runs / "cpt")
    files = checkpoint.manifest["files"]
    ours = weights_digest([file["sha256"] for name, file in files.items() if name.endswith(".safetensors")])
    assert world(1, fingerprint_of, checkpoint=str(checkpoint.path)) == [ours]


def test_step_and_dtype(runs: Path, tmp_path: Path) -> None:
    options = ReleaseOptions(step=5, dtype="bf16", card=False)
    done = release(runs / "sft", tmp_path / "export", options)
    assert done.step == 5 and not (done.directory / "README.md").exists()
    assert json.loads((done.directory / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    written = load_file(done.directory / "model.safetensors")
    expected = random_tensors(seed=5)["output_layer.weight"]
    assert torch.equal(written["lm_head.weight"], expected.to(torch.bfloat16))
    with pytest.raises(ReleaseError, match="no checkpoint of step 7: kept are 5, 10"):
        release(runs / "sft", tmp_path / "other", ReleaseOptions(step=7))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (ReleaseOptions(licence="Apache 2.0"), "--license 'Apache 2.0' is no identifier of the Hub"),
        (ReleaseOptions(licence="mit\nfoo: bar"), "is no identifier of the Hub"),
        (ReleaseOptions(base_model="/data/models/base"), "--base-model '/data/models/base' is no model of the Hub"),
    ],
)
def test_what_the_hub_would_refuse(options: ReleaseOptions, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=sentence):
        release(tmp_path, tmp_path / "export", options)


def test_weights_that_are_not_finite_are_not_released(tmp_path: Path) -> None:
    tensors = random_tensors()
    tensors["decoder.layers.1.mlp.linear_fc2.weight"][3, 4] = float("nan")
    tensors["decoder.layers.1.mlp.linear_fc2.weight"][0, 0] = float("inf")
    run = make_run(tmp_path / "run", tensors)
    with pytest.raises(ReleaseError, match=r"model.layers.1.mlp.down_proj.weight holds 2 values that are not finite"):
        release(run, tmp_path / "export", ReleaseOptions())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_the_check_finds_what_is_wrong_with_a_directory(runs: Path, tmp_path: Path) -> None:
    done = release(runs / "sft", tmp_path / "export", ReleaseOptions(card=False))
    weights = load_file(done.directory / "model.safetensors")

    def damaged(change: dict[str, Any], sentence: str, kind: type[AquilaError] = ReleaseError) -> None:
        changed = {name: value for name, value in {**weights, **change}.items() if value is not None}
        save_file(changed, done.directory / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(kind, match=sentence):
            check_export(done.directory)

    damaged({"lm_head.weight": None}, "has no tensor lm_head.weight", HuggingFaceError)
    damaged({"model.norm.weight": torch.ones(63)}, "model.norm.weight is", HuggingFaceError)
    damaged({"model.extra": torch.ones(1)}, r"model.extra is \[1\], and transformers' Llama .* has it absent")
    save_file(weights, done.directory / "model.safetensors", metadata={"format": "pt"})
    check_export(done.directory)
    path = done.directory / "generation_config.json"
    sound = path.read_text(encoding="utf-8")
    path.write_text(json.dumps({"eos_token_id": [2, 320]}), encoding="utf-8")
    with pytest.raises(ReleaseError, match="end-of-text id 320 is outside the vocabulary of 320"):
        check_export(done.directory)
    path.write_text(sound, encoding="utf-8")
    template = done.directory / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8").replace("user", "User"), encoding="utf-8")
    with pytest.raises(ReleaseError, match="is not a template of this version"):
        check_export(done.directory)
