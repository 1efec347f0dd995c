"""A plan in words: tables of 80 columns for people, one JSON object for programs."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from megatron_aquila.plan.assessment import Assessment
from megatron_aquila.plan.peak import GIB, RESERVE, StageBytes
from megatron_aquila.plan.planning import Plan
from megatron_aquila.plan.search import Candidate

_ROWS = {
    "weights": "weights",
    "gradients": "gradients (float32)",
    "optimizer": "optimizer",
    "activations": "activations",
    "logits": "output layer at work",
    "backward": "or a layer's backward",
    "communication": "communication",
    "context": "CUDA context",
}
_CERTAINTY = {"weights": "exact", "gradients": "exact", "optimizer": "exact", "activations": "counted"}
_COLUMNS = 4  # stages that fit into a line


def render(plan: Plan, console: Console) -> None:
    """Print a plan."""
    machine = plan.machine
    console.print(
        f"[bold]{plan.run.name}[/] ({plan.run.stage}) on {plan.gpus} × {machine.gpu.name}, {machine.node} a node",
        highlight=False,
    )
    console.print(_facts(plan))
    for problem in plan.problems:
        console.print(f"[red]It cannot run so:[/] {problem}.", highlight=False)
    if plan.assessment is not None:
        console.print(_memory(plan.assessment))
        _verdict(plan, plan.assessment, console)
    if plan.remedies:
        console.print("Each of these makes it fit:", highlight=False)
        for remedy in plan.remedies:
            _override(remedy, console)
    if plan.top:
        _ranking(plan, console)
    for note in plan.work.notes:
        console.print(note, style="dim", highlight=False)


def _facts(plan: Plan) -> Table:
    shape, work, run = plan.shape, plan.work, plan.run
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    groups = "" if shape.num_query_groups == shape.num_attention_heads else f" in {shape.num_query_groups} groups"
    table.add_row("parameters", f"{shape.parameters():,}")
    table.add_row(
        "shape",
        f"{shape.num_layers} layers, hidden {shape.hidden_size:,}, FFN {shape.ffn_hidden_size:,}, "
        f"{shape.num_attention_heads} heads{groups}, {shape.vocab_size:,} tokens",
    )
    table.add_row("vocabulary padding", _padding(plan))
    whole = "" if work.steps is None else f"{work.steps:,} of "
    if work.sample_name == "sequences":
        batch = f"{whole}{work.samples:,} × {run.data.sequence_length:,} tokens"
    else:
        packed = f"{work.sequences:,.1f} sequences of {run.data.sequence_length:,} tokens"
        batch = f"{whole}{work.samples:,} {work.sample_name}: {packed}"
    table.add_row("steps", batch)
    if work.total_tokens is not None:
        reference = f", and {_short(work.reference_tokens)} in the reference pass" if work.reference_tokens else ""
        table.add_row("tokens", f"{_short(work.total_tokens)}{reference}")
    per_token = shape.flops_per_token(work.attended) / 1e9
    convention = f"{per_token:.3g} GFLOP a token: 6·(P − E) + 12·L·a·{work.attended:,.0f}"
    total = "" if plan.flops is None else f"{plan.flops:.3g}; "
    table.add_row("FLOPs", f"{total}{convention}")
    speed = f"{plan.tokens_per_second:,.0f} tokens/s, {plan.tokens_per_second / plan.gpus:,.0f} a GPU"
    peak = f"{plan.machine.mfu:.0%} MFU of {plan.machine.gpu.tflops:,.0f} TFLOP/s"
    table.add_row("time", f"{_duration(plan.seconds)}{speed}, at {peak}, all included")
    kept = f"{run.checkpoint.keep}{' and the best' if run.checkpoint.best else ''}"
    table.add_row(
        "checkpoints",
        f"{_gb(plan.checkpoint_bytes)}; {kept} kept: {_gb(plan.checkpoint_bytes * plan.checkpoints)}, "
        "and one more while saving",
    )
    return table


def _padding(plan: Plan) -> str:
    if not plan.padding:
        return "none"
    matrices = 1 if plan.shape.tie_embeddings else 2
    wasted = plan.padding * plan.shape.hidden_size * matrices * (2 if plan.run.training.precision != "fp32" else 4)
    return f"{plan.padding:,} rows, {wasted / (1 << 20):,.1f} MiB of weights in all"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 3600:
        return f"{seconds / 60:,.1f} minutes; "
    days = f" ({seconds / 86400:,.1f} days)" if seconds >= 2 * 86400 else ""
    return f"{seconds / 3600:,.1f} hours{days}; "


def _memory(assessment: Assessment) -> Table:
    """GiB of the worst rank of each stage; of many stages the first two, the fullest and the last."""
    sizes = assessment.sizes
    table = _table()
    table.add_column(f"GiB a rank, {sizes.describe()}")
    stages = _shown(assessment)
    for stage in stages:
        table.add_column("rank" if sizes.pipeline == 1 else f"stage {stage + 1}", justify="right")
    table.add_column("", style="dim")
    for field, words in _ROWS.items():
        values = [getattr(assessment.stages[stage], field) for stage in stages]
        if any(values):
            table.add_row(words, *map(_gib, values), _CERTAINTY.get(field, "estimate"))
    table.add_section()
    table.add_row("at its peak", *(_gib(assessment.stages[stage].total) for stage in stages), "", style="bold")
    return table


def _shown(assessment: Assessment) -> list[int]:
    stages = list(range(len(assessment.stages)))
    if len(stages) <= _COLUMNS:
        return stages
    fullest = max(stages, key=lambda stage: assessment.stages[stage].total)
    return sorted({0, 1, fullest, stages[-1]})


def _verdict(plan: Plan, assessment: Assessment, console: Console) -> None:
    limit, needed = assessment.limit / GIB, assessment.worst.total / GIB
    of = f"{limit:.1f} GiB ({plan.memory / GIB:.1f} less {RESERVE:.0%} for pieces that the allocator cannot use)"
    if assessment.fits:
        console.print(f"[green]It fits:[/] {needed:.1f} of {of}.", highlight=False)
    else:
        console.print(f"[red]It does not fit:[/] {needed:.1f} GiB needed, {of} there.", highlight=False)
    batches = assessment.micro_batches
    waiting = "" if assessment.sizes.pipeline == 1 else f"; the pipeline waits {assessment.bubble:.1%} of the time"
    replicas = _count(assessment.sizes.data, "replica")
    console.print(f"{_count(batches, 'micro-batch', 'es')} a step on each of {replicas}{waiting}.", highlight=False)


def _ranking(plan: Plan, console: Console) -> None:
    if not plan.layouts:
        console.print(
            f"[red]No layout fits on {plan.gpus} GPUs:[/] take more of them, or larger ones, or a shorter "
            "data.sequence_length.",
            highlight=False,
        )
        return
    table = _table()
    table.add_column("")
    table.add_column("layouts that fit", no_wrap=True)
    for name in ("s/step", "recompute", "bubble", "exchange", "GiB"):
        table.add_column(name, justify="right")
    for number, candidate in enumerate(plan.layouts, 1):
        table.add_row(str(number), *_measures(candidate.assessment))
    if plan.assessment is not None:
        table.add_section()
        table.add_row("", *_measures(plan.assessment), style="dim")
    console.print(table)
    for number, candidate in enumerate(plan.layouts, 1):
        _override(candidate, console, f"{number}  ")
    console.print(
        "Estimates that rank: products at the stated MFU; recomputation, bubble and exchange over links of the data "
        "sheets on top. Last: the recipe as it is.",
        style="dim",
        highlight=False,
    )


def _measures(found: Assessment) -> list[str]:
    time = found.time
    exchange = time.tensor + time.context + time.pipeline + time.data
    shares = (f"{seconds / time.total:.1%}" for seconds in (time.recompute, time.bubble, exchange))
    layout = f"{found.sizes.describe()} {found.run.parallel.sharding}"
    return [layout, f"{time.total:,.1f}", *shares, _gib(found.worst.total)]


def _override(candidate: Candidate, console: Console, before: str = "") -> None:
    words = " ".join(candidate.overrides()) or "as the recipe has it"
    console.print(f"  {before}{words}", highlight=False, soft_wrap=True)


def as_json(plan: Plan) -> dict[str, Any]:
    """The same as one JSON object; bytes, seconds, FLOPs."""
    work, shape = plan.work, plan.shape
    return {
        "name": plan.run.name,
        "stage": plan.run.stage,
        "gpus": plan.gpus,
        "gpu": plan.machine.gpu.name,
        "gpu_bytes": plan.memory,
        "mfu": plan.machine.mfu,
        "parameters": shape.parameters(),
        "vocabulary_padding_rows": plan.padding,
        "steps": work.steps,
        "tokens_per_step": work.tokens,
        "tokens": work.total_tokens,
        "flops_per_token": shape.flops_per_token(work.attended),
        "flops": plan.flops,
        "seconds": plan.seconds,
        "tokens_per_second": plan.tokens_per_second,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "checkpoints_kept": plan.checkpoints,
        "problems": list(plan.problems),
        "fits": plan.fits,
        "layout": None if plan.assessment is None else _assessment(plan.assessment),
        "remedies": [_candidate(candidate) for candidate in plan.remedies],
        "layouts": [_candidate(candidate) for candidate in plan.layouts],
        "notes": list(work.notes),
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {"overrides": candidate.overrides(), **_assessment(candidate.assessment)}


def _assessment(found: Assessment) -> dict[str, Any]:
    return {
        "sizes": found.sizes.describe(),
        "sharding": found.run.parallel.sharding,
        "recompute": found.run.training.recompute,
        "micro_batches": found.micro_batches,
        "bubble": found.bubble,
        "limit_bytes": found.limit,
        "stages": [_stage(stage) for stage in found.stages],
        "step_seconds": {**vars(found.time), "total": found.time.total},
    }


def _stage(stage: StageBytes) -> dict[str, int]:
    return {**vars(stage), "total": stage.total}


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def _count(number: int, word: str, plural: str = "s") -> str:
    return f"{number:,} {word}{plural if number != 1 else ''}"


def _gib(value: int) -> str:
    return f"{value / GIB:,.2f}"


def _gb(value: int) -> str:
    return f"{value / 1e9:,.1f} GB" if value >= 1e9 else f"{value / 1e6:,.1f} MB"


def _short(tokens: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if tokens >= size:
            return f"{tokens / size:.4g} {letter}"
    return f"{tokens:,.0f}"
