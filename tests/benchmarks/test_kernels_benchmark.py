from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import torch

from benchmarks.kernels import measure as clocks
from benchmarks.kernels import memory, peers
from benchmarks.kernels.measure import AGAIN, OURS, Absent, Case, Timing, Variant, interleave
from benchmarks.kernels.memory import Task
from benchmarks.kernels.run import Sizes

CPU = torch.device("cpu")
TINY = Sizes(
    tokens=((5, 301, 0.0), (5, 301, 0.4)),
    shown=(5, 301),
    token_memory=(1 << 14, 8),
    pairs=(2,),
    pair_tokens=8,
    linear=(16, 300, 8),
    linear_memory=(16, 300, 8),
    linear_memory_dtype="fp32",
    dpo=(2, 4, 300, 8),
    copied=1 << 12,
    compiled=False,
)


def test_a_run_writes_what_it_measured_and_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.kernels.__main__ import measure

    monkeypatch.setattr(clocks, "_SHORT", 0.0)  # three rounds are enough here
    monkeypatch.setattr(memory, "measure", memory.main)  # in this process: what is tested is not the size of the peaks
    measure(TINY, CPU, 3, tmp_path)
    results = orjson.loads((tmp_path / "results.json").read_bytes())
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    assert results["wrong"] == []
    assert results["machine"]["instruction_set"] and results["machine"]["threads"] == torch.get_num_threads()

    parts = {case["part"] for case in results["cases"]}
    assert parts == {"token_logps", "preference", "linear_logps", "linear_dpo"}
    for case in results["cases"]:
        assert case["variants"][OURS]["ratio"] == 1
        for name, outcome in case["variants"].items():
            if "absent" in outcome:
                assert outcome["absent"]
            else:
                assert 0 < outcome["ratio"] < math.inf, name
                assert 0 < outcome["least"] <= outcome["median"] <= outcome["most"]
                assert outcome["rounds"] >= 3
    liger = [case["variants"]["Liger DPO"] for case in results["cases"] if case["part"] == "linear_dpo"]
    assert all("absent" not in outcome or "liger_kernel" in outcome["absent"] for outcome in liger)

    # Masked rows are not read: 3 of 5 rows count. Forward reads them once, the gradient of all is written.
    bytes_per_logit = {
        (case["dtype"], case["step"]): case["notes"]["bytes_per_logit"]
        for case in results["cases"]
        if case["part"] == "token_logps" and case["masked"]
    }
    assert bytes_per_logit["bf16", "forward"] == pytest.approx(2 * 0.6)
    assert bytes_per_logit["fp32", "forward + backward"] == pytest.approx(4 * (0.6 + 0.6 + 1))
    assert all(promise["measured"] for promise in results["promises"])
    assert not any("not measured" in promise["measured"] for promise in results["promises"])


def test_a_peer_that_fails_is_absent_with_its_reason_and_the_others_are_timed() -> None:
    def refuse(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no kernel for this dtype")

    def variant(call: Callable[[torch.Tensor], torch.Tensor], error: float = 0.0) -> Variant:
        return Variant(lambda: torch.ones(3), call, lambda _: error)

    missing = peers._peer("a_package_that_is_not_there", "loss", lambda function, x: function(x))
    outcomes = interleave(
        {
            OURS: variant(torch.exp),
            "refuses": variant(refuse),
            "missing": variant(missing.call),
            "computes something else": variant(torch.sin, 0.5),
            AGAIN: variant(torch.exp),
        },
        CPU,
        3,
    )
    assert outcomes["refuses"] == Absent("RuntimeError: no kernel for this dtype")
    assert isinstance(outcomes["missing"], Absent) and "a_package_that_is_not_there" in outcomes["missing"].reason
    assert isinstance(outcomes["computes something else"], Absent)
    assert "relative error 5.0e-01" in outcomes["computes something else"].reason
    assert isinstance(outcomes[OURS], Timing) and isinstance(outcomes[AGAIN], Timing)
    with pytest.raises(RuntimeError, match="no kernel"):
        interleave({OURS: variant(refuse)}, CPU, 3)


def test_ratios_and_wrong_results_are_of_ours() -> None:
    results = {
        OURS: Timing(2.0, 2.2, 3.0, 5, 1e-3),
        "a peer": Timing(5.0, 5.0, 5.0, 5, 1e-2),
        "another": Absent("not installed"),
        AGAIN: Timing(2.1, 2.2, 3.0, 5, math.nan),
    }
    case = Case("token_logps", {"dtype": "fp32"}, 1e-4, results)
    assert case.ratio("a peer") == 2.5
    assert case.ratio("another") is None
    assert case.noise() == pytest.approx(0.1)
    assert [line.rpartition(": ")[0].rpartition("} ")[2] for line in case.wrong()] == [OURS, AGAIN]


def test_peak_memory_is_of_the_call_and_counts_returned_gradients_apart() -> None:
    """4 MiB of logits: the gradient that F.cross_entropy returns is as large, and so is the softmax that it keeps."""
    rows, columns = 1 << 17, 8
    mebibyte = rows * columns  # of elements
    plain = memory.measure(Task("F.cross_entropy", rows, columns, 0, "fp32", "cpu", 1))
    assert isinstance(plain, memory.Peak), plain
    assert plain.beyond_inputs - plain.beyond_gradients == 4 * mebibyte
    assert 4 * mebibyte <= plain.beyond_gradients <= 4 * mebibyte + 40 * rows
