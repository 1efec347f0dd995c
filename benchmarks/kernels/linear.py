"""Log-probabilities from hidden states and the output weight, and a whole DPO step on top of them.

Axes: N tokens (rows), H hidden, V vocabulary (columns), S = 2P sequences of T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.kernels.ceilings import DTYPES, ProductTimes
from benchmarks.kernels.measure import AGAIN, OURS, Case, Labels, Timing, Variant, interleave, relative_error
from benchmarks.kernels.peers import LINEAR_COMPILED, NOT_COMPILED, liger_dpo, linear_peers
from megatron_aquila.kernels.linear import Mode, linear_logps
from megatron_aquila.kernels.preference import PreferenceLoss, preference_loss

TRAINED, FROZEN = "both gradients", "hidden gradient only"
_BETA = 0.1
_CHUNK = 512
_TOLERANCES = {"fp32": 1e-5, "bf16": 2e-2}  # bf16 logits are rounded before the softmax


class _Sample:
    def __init__(self, rows: int, columns: int, hidden: int, dtype: torch.dtype, device: torch.device) -> None:
        torch.manual_seed(rows + columns)
        self.hidden_NH = torch.randn(rows, hidden, device=device).to(dtype)
        self.weight_VH = torch.randn(columns, hidden, device=device).mul_(hidden**-0.5).to(dtype)
        self.targets_N = torch.randint(0, columns, (rows,), device=device)
        self.logps_N = torch.cat([self._logps(first) for first in range(0, rows, _CHUNK)])
        self.rows = torch.arange(0, rows, max(1, rows // 4), device=device)[:4]
        self.columns = self.targets_N[self.rows].unique()

    def _logps(self, first: int) -> torch.Tensor:
        """float64, a chunk of rows at a time."""
        part = slice(first, first + _CHUNK)
        logps = (self.hidden_NH[part].double() @ self.weight_VH.double().t()).log_softmax(-1)
        return logps.gather(1, self.targets_N[part].unsqueeze(1)).squeeze(1)

    def gradients(self, upstream_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """float64 gradients of some rows of the hidden states, and of some rows of the weight."""
        weight = self.weight_VH.double()
        probabilities = (self.hidden_NH[self.rows].double() @ weight.t()).softmax(-1)
        unscaled = weight[self.targets_N[self.rows]] - probabilities @ weight
        hidden = self.hidden_NH.double()
        target_logits_N = (hidden * weight[self.targets_N]).sum(1)
        lse_N = target_logits_N - self.logps_N
        share = -(hidden @ weight[self.columns].t() - lse_N.unsqueeze(1)).exp()
        share += self.targets_N.unsqueeze(1) == self.columns
        return unscaled * upstream_N[self.rows].double().unsqueeze(1), (share * upstream_N.unsqueeze(1)).t() @ hidden

    def leaves(self, trained: bool) -> tuple[torch.Tensor, torch.Tensor]:
        return self.hidden_NH.detach().requires_grad_(), self.weight_VH.detach().requires_grad_(trained)


def measure(
    rows: int, columns: int, hidden: int, dtype: str, device: torch.device, *, rounds: int, compiled: bool
) -> list[Case]:
    """With a gradient of the weight, and without."""
    sample = _Sample(rows, columns, hidden, DTYPES[dtype], device)
    upstream_N = torch.randn(rows, device=device)
    expected = sample.gradients(upstream_N)
    products = ProductTimes(rows, columns, hidden, DTYPES[dtype], device, rounds)
    cases = []
    for trained in (True, False):
        peers = linear_peers(device, trained=trained, compiled=compiled)

        def call(
            leaves: tuple[torch.Tensor, torch.Tensor], peer: Callable[..., torch.Tensor], losses: bool
        ) -> tuple[torch.Tensor, ...]:
            logps_N = peer(*leaves, sample.targets_N)
            outer_N = (-upstream_N if losses else upstream_N).to(logps_N.dtype)
            return torch.autograd.grad(logps_N, [leaf for leaf in leaves if leaf.requires_grad], outer_N)

        variants = {
            name: Variant(
                partial(sample.leaves, trained),
                partial(call, peer=peer.call, losses=peer.losses),
                partial(_gradient_error, sample, expected),
            )
            for name, peer in peers.items()
        }
        results = interleave(variants, device, rounds)
        if not compiled:
            results[LINEAR_COMPILED] = NOT_COMPILED
        case = Case(
            "linear_logps",
            {
                "dtype": dtype,
                "rows": rows,
                "columns": columns,
                "hidden": hidden,
                "step": TRAINED if trained else FROZEN,
            },
            _TOLERANCES[dtype],
            results,
            {f"{name}, products per second": rate for name, rate in products.rates().items()},
        )
        for name, outcome in results.items():
            if isinstance(outcome, Timing) and peers[name].products:
                count = peers[name].products + 1 + trained
                case.notes[f"{name}, products"] = count
                case.notes[f"{name}, flop_per_second"] = count * products.flop / outcome.least
                ideal = products.ideal(forwards=peers[name].products, trained=trained)
                case.notes[f"{name}, share_of_products"] = ideal / outcome.least
        cases.append(case)
    return cases


def _gradient_error(
    sample: _Sample, expected: tuple[torch.Tensor, torch.Tensor], gradients: tuple[torch.Tensor, ...]
) -> float:
    """The sum of both errors: a NaN in either stays one."""
    error = relative_error(gradients[0][sample.rows], expected[0])
    return error + (relative_error(gradients[1][sample.columns], expected[1]) if len(gradients) > 1 else 0.0)


def measure_dpo(
    pairs: int, tokens: int, columns: int, hidden: int, dtype: str, device: torch.device, *, rounds: int, compiled: bool
) -> Case:
    """The mean DPO loss of pairs of answers, without a reference model, with the gradients of hidden and weight."""
    sequences = 2 * pairs
    sample = _Sample(sequences * tokens, columns, hidden, DTYPES[dtype], device)
    cu_seqlens = torch.arange(sequences + 1, device=device) * tokens
    none_S = torch.zeros(sequences, dtype=torch.float64, device=device)
    settings = PreferenceLoss("sigmoid", beta=_BETA)
    # Liger wants all chosen answers first; the packed form has the two of a pair as neighbours.
    order_S = torch.cat((torch.arange(0, sequences, 2), torch.arange(1, sequences, 2))).to(device)

    def chosen_first(values_N: torch.Tensor) -> torch.Tensor:
        return values_N.view(sequences, tokens, -1)[order_S].contiguous()

    first_targets = chosen_first(sample.targets_N).squeeze(-1)
    exact_N = sample.logps_N.clone().requires_grad_()
    exact = _dpo(exact_N.view(sequences, tokens).sum(1))
    (coefficients_N,) = torch.autograd.grad(exact, exact_N)
    expected = sample.gradients(coefficients_N)

    def ours(leaves: tuple[torch.Tensor, torch.Tensor], mode: Mode) -> tuple[torch.Tensor, ...]:
        logps_N = linear_logps(*leaves, sample.targets_N, vocab_size=columns, mode=mode)
        loss = preference_loss(logps_N, sample.targets_N, cu_seqlens, none_S, settings).loss / pairs
        return loss, *torch.autograd.grad(loss, leaves)

    def plain(leaves: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        logps_NV = F.linear(*leaves).float().log_softmax(-1)
        loss = _dpo(logps_NV.gather(-1, sample.targets_N.unsqueeze(-1)).view(sequences, tokens).sum(1))
        return loss, *torch.autograd.grad(loss, leaves)

    def liger(leaves: tuple[torch.Tensor, torch.Tensor], fused: bool) -> tuple[torch.Tensor, ...]:
        loss = liger_dpo(*leaves, first_targets, beta=_BETA, compiled=fused)
        return loss, *torch.autograd.grad(loss, leaves)

    def first_leaves() -> tuple[torch.Tensor, torch.Tensor]:
        return chosen_first(sample.hidden_NH).requires_grad_(), sample.weight_VH.detach().requires_grad_()

    def check(result: tuple[torch.Tensor, ...]) -> float:
        return relative_error(result[0], exact) + _gradient_error(sample, expected, result[1:])

    def check_first(result: tuple[torch.Tensor, ...]) -> float:
        loss, grad_hidden, grad_weight = result
        packed = torch.empty_like(grad_hidden)
        packed[order_S] = grad_hidden
        return check((loss, packed.view(-1, hidden), grad_weight))

    leaves = partial(sample.leaves, True)
    variants = {
        OURS: Variant(leaves, partial(ours, mode="store"), check),
        "ours, recompute": Variant(leaves, partial(ours, mode="recompute"), check),
        "F.linear + log_softmax": Variant(leaves, plain, check),
        AGAIN: Variant(leaves, partial(ours, mode="store"), check),
        "Liger DPO": Variant(first_leaves, partial(liger, fused=False), check_first),
    }
    if compiled:
        variants["Liger DPO, compiled"] = Variant(first_leaves, partial(liger, fused=True), check_first)
    labels: Labels = {"dtype": dtype, "pairs": pairs, "tokens": tokens, "columns": columns, "hidden": hidden}
    return Case("linear_dpo", labels, _TOLERANCES[dtype], interleave(variants, device, rounds))


def _dpo(logps_S: torch.Tensor) -> torch.Tensor:
    return -F.logsigmoid(_BETA * (logps_S[0::2] - logps_S[1::2])).mean()
