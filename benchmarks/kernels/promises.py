"""What the project promises of its kernels, beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.kernels.linear import TRAINED
from benchmarks.kernels.measure import OURS, Absent, Case, is_ours
from benchmarks.kernels.memory import Peak
from benchmarks.kernels.peers import CROSS_ENTROPY, LINEAR_CROSS_ENTROPY, OURS_KEPT
from benchmarks.kernels.run import Report
from benchmarks.kernels.tokens import BOTH, FORWARD

_AT_LEAST = {(FORWARD, "bf16"): 2.3, (FORWARD, "fp32"): 4.0, (BOTH, "bf16"): 1.4, (BOTH, "fp32"): 1.4}
_TOKEN_BYTES = 16
_BYTES_NOISE = 0.25  # pages that threads and the interpreter touch meanwhile
_SHARE = 0.25


@dataclass(frozen=True)
class Promise:
    """`met` is None where it was not measured, or nothing was promised."""

    what: str
    measured: str
    met: bool | None


@dataclass(frozen=True)
class Slower:
    """A peer that was faster than ours. `in_noise`: by less than ours differs from itself."""

    case: str
    peer: str
    ratio: float
    in_noise: bool


def promises(report: Report) -> list[Promise]:
    found = [_speed(report, step, dtype, least, OURS) for (step, dtype), least in _AT_LEAST.items()]
    found += [_speed(report, BOTH, dtype, _AT_LEAST[BOTH, dtype], OURS_KEPT) for dtype in ("bf16", "fp32")]
    losses = slower(report)
    clear = [loss for loss in losses if not loss.in_noise]
    text = f"{len(clear)} exceptions beyond the noise, {len(losses) - len(clear)} within it"
    found.append(Promise("log-probs from logits: no peer faster at any shape", text, not clear))
    for step in (FORWARD, BOTH):
        found.append(_token_bytes(report, step))
    return found + _recompute(report)


def slower(report: Report) -> list[Slower]:
    """Where a peer beats ours in the log-probs from logits."""
    found = []
    for case in report.of("token_logps"):
        for name in case.results:
            ratio = case.ratio(name)
            if ratio is not None and ratio < 1 and not is_ours(name):
                found.append(Slower(label(case), name, ratio, 1 - ratio <= case.noise()))
    return found


def label(case: Case) -> str:
    shown = ("step", "dtype", "rows", "columns") if "rows" in case.labels else ("step", "dtype")
    rest = {name: value for name, value in case.labels.items() if name not in shown}
    masked = rest.pop("masked", 0.0)
    parts = [str(case.labels[name]) for name in shown[:2] if name in case.labels]
    if "rows" in case.labels:
        parts.append(f"{case.labels['rows']} x {case.labels['columns']}")
    parts += [f"{value} {name}" for name, value in rest.items()]
    return ", ".join([*parts, *([f"{masked:.0%} masked"] if masked else [])])


def _speed(report: Report, step: str, dtype: str, least: float, ours: str) -> Promise:
    rows, columns = report.sizes.shown
    where = {"step": step, "dtype": dtype, "rows": rows, "columns": columns, "masked": 0.0}
    how = f" ({ours.partition(', ')[2] or 'in place'})" if step == BOTH else ""
    what = f"{step}{how}, {dtype}, {rows} x {columns}: at least {least} x {CROSS_ENTROPY}"
    for case in report.of("token_logps"):
        ratio = case.ratio(CROSS_ENTROPY, of=ours)
        if case.labels == where and ratio is not None:
            return Promise(what, f"{ratio:.2f} x", ratio >= least)
    return Promise(what, "not measured", None)


def _token_bytes(report: Report, step: str) -> Promise:
    what = f"{step}: at most {_TOKEN_BYTES} bytes a token beyond the logits"
    value = report.token_bytes(f"{OURS}, {step}")
    if isinstance(value, Absent):
        return Promise(what, f"not measured: {value.reason}", None)
    return Promise(what, f"{value:.1f} bytes", value <= _TOKEN_BYTES + _BYTES_NOISE)


def _recompute(report: Report) -> list[Promise]:
    peaks = report.peaks["linear_logps"]
    ours = peaks[f"ours, recompute, {TRAINED}"]
    found = []
    for name, whose in ((LINEAR_CROSS_ENTROPY, LINEAR_CROSS_ENTROPY), (OURS, "our store mode")):
        theirs = peaks[f"{name}, {TRAINED}"]
        for field, beyond in (("beyond_inputs", "the inputs"), ("beyond_gradients", "inputs and gradients")):
            promised = name != OURS
            what = f"recompute: peak beyond {beyond}, {'at most 1/4 of' if promised else 'share of'} {whose}"
            if isinstance(ours, Peak) and isinstance(theirs, Peak):
                share = getattr(ours, field) / getattr(theirs, field)
                found.append(Promise(what, f"{share:.3f}", share <= _SHARE if promised else None))
            else:
                reasons = [peak.reason for peak in (ours, theirs) if isinstance(peak, Absent)]
                found.append(Promise(what, f"not measured: {reasons[0]}", None))
    return found
