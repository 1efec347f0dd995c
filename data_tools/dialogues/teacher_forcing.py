"""How surprised a causal language model is by chosen tokens of given texts, in few and small matrix products.

The logits of a row of 2,048 tokens over a vocabulary of 100,000 are 800 MB in float32. Here the head of the model sees
only the positions whose next token is asked for, and no more logits exist at once than a CPU's cache holds.

R: rows of a forward pass; T: tokens of a row; W: wanted tokens of all rows of a pass; H: hidden size; V: vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from data_tools.causal_model import CausalModel
from data_tools.inputs import InputError

_LENGTH_STEP = 64  # on a GPU, rows are padded to a multiple of it
_POSITIONS = {"cpu": 512, "cuda": 2048}  # W of one product
_BLOCK_LOGITS = {"cpu": 1 << 19, "cuda": 1 << 28}  # that exist at once: 2 MiB and 1 GiB
_LEAST_BLOCK = 256  # entries of the vocabulary
_PROBE = 5  # tokens of the row on which the head is compared with the model


@dataclass(frozen=True)
class Row:
    """`ids`: int64 [T], T ≥ 1. `wanted`: int64, places in `ids` from 1 on, ascending: the tokens to be foretold, each
    from all that stands before it.
    """

    ids: npt.NDArray[np.int64]
    wanted: npt.NDArray[np.int64]


_Pass = tuple[list[int], npt.NDArray[np.int64]]  # places of rows, and their ids [R, T]


class TeacherForcing:
    """A loaded model, and how its passes are shaped.

    A pass on a CPU is one row, without padding; on a GPU as many as make `batch_tokens`, all padded to one of a few
    lengths and filled up with empty rows. So a group's losses do not follow its neighbours. Padding stands on the
    right, where a causal model does not look: no mask is needed.

    Raises:
        InputError: the logits of the model are not what its output embedding makes of its last hidden states (some
            models cap or scale them).
    """

    def __init__(self, causal: CausalModel) -> None:
        self.body = causal.model.base_model
        self.head = causal.model.get_output_embeddings()
        self.device = causal.device
        self.kind = "cpu" if causal.device == "cpu" else "cuda"
        self.batch_tokens = causal.settings.batch_tokens
        torch = import_module("torch")
        ids_RT = torch.arange(_PROBE, device=self.device)[None]
        with torch.inference_mode():
            expected = causal.model(input_ids=ids_RT, use_cache=False).logits.float()
            found = self.head(self._hidden(ids_RT)).float()
        plain = isinstance(self.head, torch.nn.Linear)
        if not plain or not torch.allclose(found, expected, rtol=1e-3, atol=1e-3):
            raise InputError(
                f"the model {causal.settings.model} changes its logits after its output embedding, which is not "
                "supported here: name one that does not, such as a Llama, Qwen, Mistral or Aquila"
            )

    def losses(self, groups: Sequence[Sequence[Row]]) -> list[list[npt.NDArray[np.float64]]]:
        """−ln p of each row's wanted tokens, in nats: float64 [wanted], one array a row. NaN or infinite where the
        model's are.

        Args:
            groups: rows that belong together; on a CPU their logits are made together.
        """
        torch = import_module("torch")
        rows = [row for group in groups for row in group]
        found: list[npt.NDArray[np.float64]] = [np.zeros(0)] * len(rows)
        with torch.inference_mode():
            for places, passes in self._parts(groups, rows):
                hidden_WH = torch.cat([self._wanted(ids_RT, [rows[at] for at in taken]) for taken, ids_RT in passes])
                targets_W = torch.from_numpy(np.concatenate([rows[at].ids[rows[at].wanted] for at in places]))
                losses_W = self._losses(hidden_WH, targets_W.to(self.device))
                ends = np.cumsum([len(rows[at].wanted) for at in places])[:-1]
                for at, part in zip(places, np.split(losses_W, ends)):
                    found[at] = part
        flat = iter(found)
        return [[next(flat) for _ in group] for group in groups]

    def _parts(self, groups: Sequence[Sequence[Row]], rows: Sequence[Row]) -> Iterator[tuple[list[int], list[_Pass]]]:
        """Which rows have their logits made together, and their passes through the model, in the same order. The last
        token of a row is foretold and never read; rows of which nothing is wanted are in no pass.
        """
        if self.kind == "cpu":
            first = 0
            for group in groups:
                places = [at for at in range(first, first + len(group)) if len(rows[at].wanted)]
                first += len(group)
                if places:
                    yield places, [([at], rows[at].ids[None, : rows[at].wanted[-1]]) for at in places]
            return
        by_length: dict[int, list[int]] = {}
        for at, row in enumerate(rows):
            if len(row.wanted):
                by_length.setdefault(-(-int(row.wanted[-1]) // _LENGTH_STEP) * _LENGTH_STEP, []).append(at)
        for length, places in sorted(by_length.items()):
            size = max(1, self.batch_tokens // length)
            for start in range(0, len(places), size):
                taken = places[start : start + size]
                ids_RT = np.zeros((size, length), np.int64)
                for number, at in enumerate(taken):
                    ids = rows[at].ids[: rows[at].wanted[-1]]
                    ids_RT[number, : len(ids)] = ids
                yield taken, [(taken, ids_RT)]

    def _wanted(self, ids_RT: npt.NDArray[np.int64], rows: Sequence[Row]) -> Any:
        """The hidden states before the wanted tokens of `rows`, the first ones of a pass: [W, H]."""
        torch = import_module("torch")
        hidden_RTH = self._hidden(torch.from_numpy(ids_RT).to(self.device))
        numbers_W = np.concatenate([np.full(len(row.wanted), number) for number, row in enumerate(rows)])
        before_W = np.concatenate([row.wanted for row in rows]) - 1
        return hidden_RTH[torch.from_numpy(numbers_W).to(self.device), torch.from_numpy(before_W).to(self.device)]

    def _hidden(self, ids_RT: Any) -> Any:
        """The hidden states that the head reads, [R, T, H]."""
        return self.body(input_ids=ids_RT, use_cache=False).last_hidden_state

    def _losses(self, hidden_WH: Any, targets_W: Any) -> npt.NDArray[np.float64]:
        torch = import_module("torch")
        size = _POSITIONS[self.kind]
        parts = []
        for start in range(0, len(targets_W), size):
            taken_WH, taken_W = hidden_WH[start : start + size], targets_W[start : start + size]
            short = size - len(taken_W) if self.kind == "cuda" else 0  # every product of one shape, see above
            taken_WH = torch.nn.functional.pad(taken_WH, (0, 0, 0, short))
            parts.append(self._cross_entropy(taken_WH, torch.nn.functional.pad(taken_W, (0, short)))[: len(taken_W)])
        return np.concatenate(parts)

    def _cross_entropy(self, hidden_WH: Any, targets_W: Any) -> npt.NDArray[np.float64]:
        """ln Σ exp(logit) − logit of the target, over the vocabulary block by block, so that a CPU finds its logits in
        the cache; sums over blocks in float64.

        What is taken off the logits before `exp` is the larger of the target's and the first entries', not the largest
        of all, for which each block would be read once more. Where that overflows, it is done again with the largest.
        """
        torch = import_module("torch")
        picked_W = (hidden_WH.float() * self.head.weight[targets_W].float()).sum(1)
        if self.head.bias is not None:
            picked_W += self.head.bias[targets_W].float()
        shift_W = torch.maximum(picked_W, self._logits(hidden_WH, slice(0, _LEAST_BLOCK)).amax(1))
        block = max(_LEAST_BLOCK, _BLOCK_LOGITS[self.kind] // len(targets_W))
        blocks = [slice(start, start + block) for start in range(0, self.head.out_features, block)]
        sums_W = self._sums(hidden_WH, blocks, shift_W)
        if not bool(torch.isfinite(sums_W).all()):
            most_W = [self._logits(hidden_WH, each).amax(1) for each in blocks]
            shift_W = torch.stack(most_W).amax(0)
            sums_W = self._sums(hidden_WH, blocks, shift_W)
        losses_W = sums_W.log() + (shift_W.double() - picked_W.double())
        return np.asarray(losses_W.cpu().numpy(), np.float64)

    def _sums(self, hidden_WH: Any, blocks: Sequence[slice], shift_W: Any) -> Any:
        """Σ exp(logit − shift) over the vocabulary, float64 [W]."""
        total_W = shift_W.double() * 0
        for each in blocks:
            total_W += self._logits(hidden_WH, each).sub_(shift_W[:, None]).exp_().sum(1)
        return total_W

    def _logits(self, hidden_WH: Any, block: slice) -> Any:
        """Of a block of the vocabulary, float32 [W, block]; a new array."""
        bias = None if self.head.bias is None else self.head.bias[block]
        logits_WB = import_module("torch").nn.functional.linear(hidden_WH, self.head.weight[block], bias)
        return logits_WB.float()
