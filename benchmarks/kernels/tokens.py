"""Log-probabilities from logits: forward, and forward with backward, at every shape.

Axes: N tokens (rows), V vocabulary (columns).
"""

from __future__ import annotations

import torch

from benchmarks.kernels.ceilings import DTYPES
from benchmarks.kernels.measure import OURS, Case, Labels, Timing, Variant, interleave, relative_error
from benchmarks.kernels.peers import COMPILED, NOT_COMPILED, Peer, Peers, token_peers
from megatron_aquila.kernels import IGNORE_INDEX

FORWARD, BOTH = "forward", "forward + backward"
_LARGE = 1 << 27  # logits, beyond which three rounds must do on a CPU


class _Sample:
    """Logits, targets and a gradient from above, and what follows from them in float64 for a few rows."""

    def __init__(self, rows: int, columns: int, masked: float, dtype: torch.dtype, device: torch.device) -> None:
        torch.manual_seed(rows * columns)
        self.logits_NV = torch.randn(rows, columns, device=device).mul_(2).to(dtype)
        self.targets_N = torch.randint(0, columns, (rows,), device=device)
        hidden_N = torch.arange(rows, device=device) < round(masked * rows)
        self.targets_N[hidden_N[torch.randperm(rows, device=device)]] = IGNORE_INDEX
        self.upstream_N = torch.randn(rows, device=device).masked_fill(self.targets_N == IGNORE_INDEX, 0.0)
        self.work_NV = torch.empty_like(self.logits_NV)
        # An outer gradient in each dtype that a peer may want, made off the clock.
        self.upstreams = {
            (losses, kind): (-self.upstream_N if losses else self.upstream_N).to(kind)
            for losses in (False, True)
            for kind in (torch.float32, torch.bfloat16)
        }
        counted = (self.targets_N != IGNORE_INDEX).nonzero().squeeze(1)
        ignored = (self.targets_N == IGNORE_INDEX).nonzero().squeeze(1)
        self.looked_at = counted[:: max(1, len(counted) // 4)][:4]
        self.with_ignored = torch.cat((self.looked_at, ignored[:1]))
        self.expected_logps, _ = self._oracle(self.looked_at)
        _, self.expected_gradient = self._oracle(self.with_ignored)

    def _oracle(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.logits_NV[rows].double()
        targets = self.targets_N[rows].clamp(min=0).unsqueeze(1)
        logps = x.log_softmax(-1)
        gradient = -logps.exp()
        gradient.scatter_add_(1, targets, torch.ones_like(targets, dtype=torch.float64))
        return logps.gather(1, targets).squeeze(1), gradient * self.upstream_N[rows].double().unsqueeze(1)

    def fresh(self) -> torch.Tensor:
        return self.work_NV.copy_(self.logits_NV)

    def fresh_leaf(self) -> torch.Tensor:
        return self.fresh().detach().requires_grad_()

    def forward(self, peer: Peer) -> Variant:
        def check(result: torch.Tensor) -> float:
            logps = result.detach()[self.looked_at]
            return relative_error(-logps if peer.losses else logps, self.expected_logps)

        return Variant(self.fresh, lambda logits: peer.call(logits, self.targets_N), check)

    def both(self, peer: Peer) -> Variant:
        def call(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            result = peer.call(logits, self.targets_N)
            (gradient,) = torch.autograd.grad(result, logits, self.upstreams[peer.losses, result.dtype])
            return result, gradient

        def check(result: tuple[torch.Tensor, torch.Tensor]) -> float:
            return relative_error(result[1][self.with_ignored], self.expected_gradient)

        return Variant(self.fresh_leaf, call, check)


def measure(
    rows: int,
    columns: int,
    masked: float,
    dtype: str,
    device: torch.device,
    *,
    rounds: int,
    compiled: bool,
    copy_rate: float,
) -> list[Case]:
    """Both passes at one shape."""
    if device.type == "cpu" and rows * columns > _LARGE:
        rounds = min(rounds, 3)
    sample = _Sample(rows, columns, masked, DTYPES[dtype], device)
    labels: Labels = {"dtype": dtype, "rows": rows, "columns": columns, "masked": masked}
    element = sample.logits_NV.element_size()
    read = element * float((sample.targets_N != IGNORE_INDEX).float().mean())
    # What must move: a row that counts is read in each pass; every gradient is written.
    needed = {FORWARD: read, BOTH: 2 * read + element}
    tolerances = {FORWARD: 2e-6, BOTH: 5e-6 if dtype == "fp32" else 4e-3}
    cases = []
    for step, make in ((FORWARD, sample.forward), (BOTH, sample.both)):
        peers: Peers = token_peers(device, gradient=step == BOTH, compiled=compiled)
        results = interleave({name: make(peer) for name, peer in peers.items()}, device, rounds)
        if not compiled:
            results[COMPILED] = NOT_COMPILED
        ours = results[OURS]
        assert isinstance(ours, Timing)
        rate = needed[step] * rows * columns / ours.least
        notes = {"bytes_per_logit": needed[step], "bytes_per_second": rate, "share_of_copy": rate / copy_rate}
        cases.append(Case("token_logps", {**labels, "step": step}, tolerances[step], results, notes))
    return cases
