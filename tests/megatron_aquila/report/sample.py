"""A made-up road of four runs with everything that a report may find, and the same with hostile text in every field."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from megatron_aquila.evaluation import contamination, results
from megatron_aquila.evaluation.judge import summary as judge
from megatron_aquila.evaluation.results import Interval, Item, write_item_file
from megatron_aquila.evaluation.statistics import wilson
from megatron_aquila.evaluation.summary import groups_of, task_result

HOSTILE = (
    "</script><script>alert('x')</script><style>*{display:none}</style></section></svg></title> & &amp; \"quoted\" "
    "<img src=http://evil.example/x onerror=alert(1)> \u202etxet desrever\u202c zero\u200bwidth <!-- --> ]]>"
)
STAGES = ("cpt", "cpt", "sft", "dpo")
NAMES = ("stage1", "stage2", "sft", "dpo")


def write_world(root: Path, text: str = "") -> list[Path]:
    """Four runs under `root`/runs, each from the one before; `text` goes into whatever can hold text."""
    draw = random.Random(7)
    write_corpus(root / "corpus", text)
    runs = []
    for place, (name, stage) in enumerate(zip(NAMES, STAGES)):
        run = root / "runs" / name
        runs.append(run)
        before = f"work/runs/{NAMES[place - 1]}" if place else None
        write_run(run, f"{name}{text}", stage, before, draw, start=6.0 / (place + 1), text=text)
        write_questions(run, draw, place)
        write_events(run, text, killed=name == "stage2")
        shares = [0.35 + 0.08 * place, 0.42 + 0.06 * place, 0.55]
        write_evaluation(run / "evaluation" / "paper-cpt", f"{name}{text}", shares, place, text)
    write_judgements(runs[-1] / "evaluation", text)
    write_contamination(runs[-1] / "evaluation", text)
    return runs


def write_run(
    run: Path,
    name: str,
    stage: str,
    weights: str | None,
    draw: random.Random,
    *,
    start: float = 4.0,
    steps: int = 300,
    lr: float = 2e-4,
    text: str = "",
) -> None:
    """A run with a configuration and metrics; its output is `work/runs/NAME`, as if it had been moved here."""
    run.mkdir(parents=True)
    config = {
        "name": name,
        "stage": stage,
        "output": f"{run.parents[1].name}/runs/{run.name}",
        "model": {
            "shape": "aquila-tiny",
            "weights": weights.replace("work/", f"{run.parents[1].name}/") if weights else None,
        },
        "data": {"train": [{"path": f"{run.parents[1].name}/corpus/stage1", "weight": 1.0}], "valid": None},
        "optimizer": {"lr": lr, "note": text or None},
        "evaluation": {
            "questions": [
                {"name": "clinic", "path": "questions.jsonl", "kind": "medical"},
                {"name": "general", "path": "general.jsonl", "kind": "general"},
            ]
        },
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    with (run / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step in range(5, steps + 1, 5):
            loss = start * math.exp(-step / 120) + 0.6 + draw.gauss(0, 0.08)
            record: dict[str, Any] = {
                "step": step,
                "train/loss": None if step == 150 else loss,
                "train/lr": lr * (1 - step / steps),
                "train/grad_norm": math.exp(draw.gauss(0, 0.4)) * (40 if step == 55 else 1),
                "train/sequences": step * 16.0,
                "train/supervised_tokens": step * 2048.0,
                "throughput/tokens_per_second": 3000 + draw.gauss(0, 150),
                "throughput/sequences_per_second": 20.0,
                "throughput/fill": 0.98,
                "memory/peak_gib": 11.5,
            }
            preference = {
                "rewards/margins": 2 * step / steps + draw.gauss(0, 0.2),
                "rewards/accuracies": min(1.0, 0.5 + 0.3 * step / steps + draw.gauss(0, 0.04)),
                "rewards/chosen": step / steps,
                "rewards/rejected": -step / steps,
                "logps/chosen": -40 - step / 30,
                "logps/rejected": -50 - step / 10,
            }
            if stage == "dpo":
                record |= {f"train/{key}": value for key, value in preference.items()}
            file.write(json.dumps(record) + "\n")
            if step % 60 == 0:
                checked = {"step": step, "validation/loss": loss + 0.05}
                if stage == "dpo":
                    checked |= {f"validation/{key}": value for key, value in preference.items()}
                file.write(json.dumps(checked) + "\n")
    checkpoint = run / "checkpoints" / f"step-{steps:08d}"
    checkpoint.mkdir(parents=True)
    versions = {"megatron-aquila": "0.1.0", "torch": f"2.13.0{text}"}
    (checkpoint / "manifest.json").write_text(json.dumps({"step": steps, "world_size": 2, "versions": versions}))


def items(share: float, n: int, seed: int, name: str = "q", invalid: int = 0) -> list[Item]:
    """n items, the same questions for every seed, a `share` of them right; a model that is better keeps what it had."""
    hard = random.Random(1).sample(range(n), n)
    right = set(hard[: round(share * n)]) ^ set(random.Random(seed).sample(range(n), n // 12))
    return [
        Item(
            id=f"{name}-{i}",
            cluster=f"{name}-{i}",
            right=i in right and i >= invalid,
            invalid=i < invalid,
            answer=("A",),
            said=None if i < invalid else ("A",) if i in right else ("B",),
            logps={"A": -1.0, "B": -1.5},
        )
        for i in range(n)
    ]


def write_questions(run: Path, draw: random.Random, place: int) -> None:
    folder = run / "questions"
    folder.mkdir()
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        for step in (0, 100, 200, 300):
            record: dict[str, Any] = {"step": step}
            for name, share in (("clinic", 0.3 + 0.0012 * step), ("general", 0.7 - 0.0008 * step)):
                found = items(share, 96, seed=3 + place, name=name)
                write_item_file(folder / f"{name}-step-{step}.jsonl", found)
                record[f"questions/{name}/accuracy"] = sum(item.right for item in found) / len(found)
                record[f"questions/{name}/probability"] = share - 0.05
            file.write(json.dumps(record) + "\n")


def write_events(run: Path, text: str, *, killed: bool) -> None:
    events: list[dict[str, Any]] = [
        {"time": 1000.0, "event": "start", "step": 0, "seconds": 10.0, "training_seconds": 0.0},
        {"time": 1110.0, "event": "evaluated", "step": 100, "seconds": 10.0, "training_seconds": 100.0},
        {"time": 1115.0, "event": "saved", "step": 100, "seconds": 5.0, "training_seconds": 100.0},
        {
            "time": 1215.0,
            "event": "warning",
            "step": 200,
            "seconds": 0.0,
            "training_seconds": 200.0,
            "message": f"worse{text}",
        },
    ]
    if killed:
        events.append(
            {"time": 1415.0, "event": "resume", "step": 100, "seconds": 20.0, "training_seconds": 0.0, "reached": 200}
        )
        events.append({"time": 1615.0, "event": "end", "step": 300, "seconds": 0.0, "training_seconds": 200.0})
    else:
        events.append({"time": 1315.0, "event": "end", "step": 300, "seconds": 0.0, "training_seconds": 300.0})
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")


def write_evaluation(
    directory: Path, model: str, shares: Sequence[float], seed: int, text: str = "", *, data: str = "d"
) -> None:
    """Two tasks of a group and one of its own, with those shares right."""
    tasks = {}
    rows = {}
    for (name, group, n), share in zip(
        (("aqm_mmlu_anatomy", "aqm_mmlu", 135), ("aqm_mmlu_virology", "aqm_mmlu", 166), ("aqm_pubmedqa", None, 500)),
        shares,
    ):
        rows[name] = items(share, n, seed + 11, name, invalid=3 if name == "aqm_pubmedqa" else 0)
        tasks[name] = task_result(
            rows[name],
            group=group,
            shots=3,
            kind="log-likelihood",
            data=f"{data}-{name}",
            prompt="p" * 64,
            metrics={"macro_f1": 0.5} if group is None else {},
            warnings=[f"three are odd{text}"] if text and group is None else [],
        )
    facts = results.ModelFacts(
        name=model,
        path=f"/somewhere/{text}",
        kind="checkpoint",
        digest=hashlib.sha256(model.encode()).hexdigest(),
        step=300,
        backend="aquila",
        layout=f"TP2{text}",
        precision="bf16",
        chat_template=text or None,
    )
    evaluation = results.Evaluation(
        model=facts,
        suite="paper-cpt",
        seed=0,
        tasks=tasks,
        groups=groups_of(tasks),
        versions={"torch": "2"},
        began="2026-11-21T00:00:00Z",
        seconds=3.0,
    )
    results.write(directory, evaluation, rows)


def write_judgements(folder: Path, text: str) -> None:
    facts = judge.JudgeFacts(
        model=f"judge{text}", served=(), temperature=0.0, top_p=None, seed=0, max_tokens=10, retries=2, prompts={}
    )
    source = judge.Source(name=f"dpo{text}", file="a.jsonl", rows=100, sha256="a" * 64)
    counted = judge.Counted(
        rows=100,
        drawn=100,
        skipped={},
        items=100,
        judged=97,
        invalid=3,
        failed={},
        invalid_answers={},
        coverage=0.97,
        suspicious={},
        suspicious_items=2,
        unfinished=1,
    )

    def outcomes(win: int, tie: int, loss: int) -> judge.Outcomes:
        n = win + tie + loss
        shares = {"win": win / n, "tie": tie / n, "loss": loss / n}
        intervals = {key: Interval(low=max(0, s - 0.1), high=min(1, s + 0.1)) for key, s in shares.items()}
        return judge.Outcomes(
            win=win,
            tie=tie,
            loss=loss,
            n=n,
            shares=shares,  # type: ignore[arg-type]
            intervals=intervals,  # type: ignore[arg-type]
            net_win=(win - loss) / n,
            net_win_error=0.06,
            net_win_interval=Interval(low=(win - loss) / n - 0.12, high=(win - loss) / n + 0.12),
            verdict="better",
            sign_test=0.0012,
            half_ties=(win + tie / 2) / n,
        )

    half = Interval(low=0.55, high=0.75)
    pair = judge.PairSummary(
        judge=facts,
        answers=source,
        against=None,
        counted=counted,
        strict=outcomes(52, 30, 15),
        lax=outcomes(60, 19, 18),
        matrix={},
        position=judge.Position(
            consistency=0.81,
            consistency_interval=half,
            first_preference=0.64,
            first_preference_interval=half,
            flips_to_first=12,
            flips_to_second=4,
            flips_sign_test=0.08,
        ),
        length=judge.Length(
            answer_characters=210.0,
            against_characters=150.0,
            difference=60.0,
            correlation=0.3,
            longer_wins=0.66,
            longer_wins_interval=half,
            longer_wins_n=50,
            quarters=(),
        ),
        languages={"zh": outcomes(30, 20, 10), "en": outcomes(22, 10, 5)},
        canaries=judge.Canaries(n=10, passed=9, invalid=0, kinds={}),
        warnings=(f"the longer answer wins too often{text}",),
    )
    judge.write(_made(folder / "judge-pair"), pair)

    def mean(value: float, n: int) -> judge.Mean:
        return judge.Mean(value=value, interval=Interval(low=value - 0.3, high=value + 0.2), n=n)

    criteria = {name: mean(3.2 + 0.2 * i, 97) for i, name in enumerate(judge.CRITERIA)}
    rounds = tuple(
        judge.Round(round=r, n=97 // r, mean=mean(4 - 0.3 * r, 97 // r), criteria=criteria) for r in range(1, 5)
    )
    rubric = judge.RubricSummary(
        judge=facts,
        answers=source,
        counted=counted,
        over_turns=mean(3.4, 97),
        over_dialogues=mean(3.5, 30),
        criteria=criteria,
        scores={},
        rounds=rounds,
        languages={},
        length_correlation=None,
        canaries=None,
    )
    judge.write(_made(folder / "judge-rubric"), rubric)


def write_contamination(folder: Path, text: str) -> None:
    """Twelve of the 500 questions of PubMedQA are held."""
    shown = contamination.Shown(
        training_id=f"web-17{text}", file=f"web.jsonl{text}", part="question", ratio=0.93, excerpt=f"Is aspirin{text}"
    )
    flagged = tuple(
        contamination.FlaggedItem(id=f"aqm_pubmedqa-{i}", records=2, evidence=(shown,)) for i in range(20, 32)
    )
    found = contamination.SetContamination(
        n=500,
        flagged=12,
        too_short=4,
        share=12 / 500,
        interval=wilson(12, 500),
        path="pubmedqa/test.jsonl",
        data="d-aqm_pubmedqa",
        parts={"question": 12},
        items=flagged,
        short_ids=(),
    )
    file = contamination.TrainingFile(
        path=f"web.jsonl{text}", bytes=10_000, sha256="f" * 64, records=8_123, holding=14, unreadable={}
    )
    report = contamination.Contamination(
        settings=contamination.Settings(),
        training=(contamination.TrainingData(path="corpus", digest="e" * 64, files=(file,)),),
        digest="e" * 64,
        sets={f"pubmedqa{text}": found},
        tasks={},
    )
    contamination.write(report, folder)


def write_corpus(directory: Path, text: str) -> None:
    """A corpus's funnel beside its tokens."""
    _made(directory)
    (directory / "stage1.idx").touch()
    (directory / "funnel.html").write_text("<!doctype html>")

    def size(documents: int) -> dict[str, int]:
        return {"documents": documents, "characters": documents * 500, "tokens": documents * 180}

    funnel = {
        "format": "corpus-funnel",
        "version": 1,
        "name": f"corpus{text}",
        "noun": "documents",
        "mixes": True,
        "digest": "abcdef0123456789" * 4,
        "read": size(12_482),
        "steps": [
            {"name": f"rules{text}", "in": size(12_482), "out": size(9_001)},
            {"name": "deduplicate", "in": size(9_001), "out": size(7_400)},
        ],
        "stages": [{"name": "stage1", **size(5_000)}],
    }
    (directory / "funnel.json").write_text(json.dumps(funnel), encoding="utf-8")


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory
