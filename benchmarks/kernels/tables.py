"""What was measured, for readers: tables."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.kernels.ceilings import describe
from benchmarks.kernels.measure import Absent, Case, is_ours
from benchmarks.kernels.memory import Peak
from benchmarks.kernels.promises import label, promises, slower
from benchmarks.kernels.run import Report

_TITLES = {
    "token_logps": "Log-probs from logits",
    "preference": "Preference loss from log-probs, forward + backward",
    "linear_logps": "Log-probs from hidden states and weight, forward + backward",
    "linear_dpo": "DPO from hidden states and weight, forward + backward",
}
_MET = {True: "[green]met[/]", False: "[red]not met[/]", None: "—"}


def show_case(console: Console, case: Case) -> None:
    """One case, as soon as it is measured."""
    micro = case.part == "preference"
    unit, scale, digits = ("µs", 1e6, 1) if micro else ("ms", 1e3, 3)
    console.print(f"[bold]{_TITLES[case.part]}: {escape(label(case))}[/]")
    table = Table()
    table.add_column("")
    for heading in (f"least {unit}", f"median {unit}", "spread", "÷ ours", *_extra_headings(case)):
        table.add_column(heading, justify="right")
    table.add_column("rounds", justify="right")
    table.add_column("error", justify="right")
    absent = []
    for name, outcome in case.results.items():
        if isinstance(outcome, Absent):
            absent.append(f"{name}: {outcome.reason}")
            continue
        ratio = case.ratio(name)
        table.add_row(
            name,
            f"{outcome.least * scale:.{digits}f}",
            f"{outcome.median * scale:.{digits}f}",
            f"{outcome.spread:.0%}",
            "" if ratio is None else f"{ratio:.2f}",
            *_extra(case, name),
            str(outcome.rounds),
            f"{outcome.error:.0e}",
            style="bold" if is_ours(name) else ("red" if ratio is not None and ratio < 1 else None),
        )
    console.print(table)
    if "share_of_copy" in case.notes:
        notes = case.notes
        console.print(
            f"ours must move {notes['bytes_per_logit']:.2f} bytes a logit: {notes['bytes_per_second'] / 1e9:.1f} GB/s, "
            f"{notes['share_of_copy']:.0%} of a copy's rate"
        )
    rates = {name.split(",")[0]: rate for name, rate in case.notes.items() if name.endswith("products per second")}
    if rates:
        console.print(
            "products alone: " + ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items())
        )
    for line in absent:
        console.print(f"[dim]absent: {escape(line)}[/]")
    console.print()


def _extra_headings(case: Case) -> list[str]:
    if case.part == "preference":
        return ["aten calls", *(["kernels"] if any(name.endswith(", kernels") for name in case.notes) else [])]
    return ["products", "GFLOP/s", "of products' rate"] if case.part == "linear_logps" else []


def _extra(case: Case, name: str) -> list[str]:
    def note(key: str, scale: float = 1.0, form: str = ".0f") -> str:
        value = case.notes.get(f"{name}, {key}")
        return "" if value is None else f"{value * scale:{form}}"

    if case.part == "preference":
        return [note("aten"), *([note("kernels")] if len(_extra_headings(case)) > 1 else [])]
    if case.part == "linear_logps":
        return [note("products"), note("flop_per_second", 1e-9), note("share_of_products", form=".0%")]
    return []


def show_report(console: Console, report: Report) -> None:
    """What concerns all cases: the machine, memory, the promises."""
    console.print(f"[bold]{escape(describe(report.machine))}[/]")
    rates = ", ".join(f"{name} {rate / 1e9:.1f} GB/s" for name, rate in report.copy.items())
    console.print(f"copy, bytes read and written: {rates}\n")
    _show_token_peaks(console, report)
    _show_linear_peaks(console, report)
    console.print("\n[bold]Promises[/]")
    summary = Table()
    for heading in ("promise", "measured", ""):
        summary.add_column(heading)
    for promise in promises(report):
        summary.add_row(promise.what, promise.measured, _MET[promise.met])
    console.print(summary)
    for loss in slower(report):
        noise = "  (within the noise)" if loss.in_noise else ""
        console.print(f"faster than ours: {loss.peer}, {loss.case}: {loss.ratio:.2f} of our time{noise}")
    for line in report.wrong():
        console.print(f"[red]WRONG: {escape(line)}[/]")


def _show_token_peaks(console: Console, report: Report) -> None:
    rows, columns = report.sizes.token_memory
    console.print(f"[bold]Memory beyond the logits and their returned gradient, {rows} x {columns}, bf16[/]")
    table = Table()
    table.add_column("")
    table.add_column("bytes a token", justify="right")
    for name in report.peaks["token_logps"]:
        value = report.token_bytes(name)
        table.add_row(name, value.reason if isinstance(value, Absent) else f"{value:.1f}")
    console.print(table)


def _show_linear_peaks(console: Console, report: Report) -> None:
    rows, columns, hidden = report.sizes.linear_memory
    dtype = report.sizes.linear_memory_dtype
    console.print(f"\n[bold]Peak memory from hidden states and weight, {rows} x {columns} x {hidden}, {dtype}[/]")
    table = Table()
    table.add_column("")
    table.add_column("MiB beyond inputs", justify="right")
    table.add_column("and beyond gradients", justify="right")
    for name, peak in report.peaks["linear_logps"].items():
        if isinstance(peak, Peak):
            table.add_row(name, f"{peak.beyond_inputs / 2**20:.0f}", f"{peak.beyond_gradients / 2**20:.0f}")
        else:
            table.add_row(name, peak.reason, "")
    console.print(table)
