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
from data_tools.local_model import cpu_threads
from data_tools.passes import passes

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


class TeacherForcing:
    """A loaded model, and how its passes are shaped.

    Passes through the model and products with its head are of few shapes, filled up where rows are lacking, so that a
    row's losses do not follow its neighbours.

    Raises:
        InputError: the logits of the model are not what its output embedding makes of its last hidden states (some
            models cap or scale them).
    """

    def __init__(self, causal: CausalModel) -> None:
        self.model = causal.model
        self.body = causal.model.base_model
        self.head = causal.model.get_output_embeddings()
        self.device = causal.device
        self.kind = "cpu" if causal.device == "cpu" else "cuda"
        self.batch_tokens = causal.settings.batch_tokens
        self.max_length = causal.max_length
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
        """−ln p of each row's wanted tokens, in nats: float64 [wanted], one array a row, by groups as `groups`. NaN or
        infinite where the model's are.
        """
        torch = import_module("torch")
        rows = [row for group in groups for row in group]
        found: list[npt.NDArray[np.float64]] = [np.zeros(0)] * len(rows)
        places: list[int] = []
        losses: list[npt.NDArray[np.float64]] = []
        with torch.inference_mode(), cpu_threads(self.model, self.device):
            for hidden_WH, targets_W in self._in_equal_parts(rows, places):
                losses.append(self._cross_entropy(hidden_WH, targets_W))
        if places:
            ends = np.cumsum([len(rows[at].wanted) for at in places])
            for at, part in zip(places, np.split(np.concatenate(losses)[: ends[-1]], ends[:-1])):
                found[at] = part
        flat = iter(found)
        return [[next(flat) for _ in group] for group in groups]

    def _in_equal_parts(self, rows: Sequence[Row], places: list[int]) -> Iterator[tuple[Any, Any]]:
        """The hidden states before wanted tokens, [W, H], and these tokens, int64 [W]: of all rows one after another
        in parts of one W, the last filled up with zeros. `places` gets whose they are.
        """
        torch = import_module("torch")
        pad = torch.nn.functional.pad
        size = _POSITIONS[self.kind]
        waiting_WH = targets_W = None
        for taken, hidden_WH in self._wanted(rows):
            places += taken
            ids_W = torch.from_numpy(np.concatenate([rows[at].ids[rows[at].wanted] for at in taken])).to(self.device)
            waiting_WH = hidden_WH if waiting_WH is None else torch.cat([waiting_WH, hidden_WH])
            targets_W = ids_W if targets_W is None else torch.cat([targets_W, ids_W])
            while len(targets_W) >= size:
                yield waiting_WH[:size], targets_W[:size]
                waiting_WH, targets_W = waiting_WH[size:], targets_W[size:]
        if targets_W is not None and len(targets_W):
            short = size - len(targets_W)
            yield pad(waiting_WH, (0, 0, 0, short)), pad(targets_W, (0, short))

    def _wanted(self, rows: Sequence[Row]) -> Iterator[tuple[list[int], Any]]:
        """Places of rows, and the hidden states [W, H] before their wanted tokens. The last token of a row is foretold
        and never read; rows of which nothing is wanted are in no pass.
        """
        torch = import_module("torch")
        asked = [at for at, row in enumerate(rows) if len(row.wanted)]
        read = [rows[at].ids[: rows[at].wanted[-1]] for at in asked]
        for each in passes(read, at_most=self.batch_tokens, longest=self.max_length, device=self.kind):
            taken = [asked[place] for place in each.places]
            hidden_RTH = self._hidden(torch.from_numpy(each.ids_RT).to(self.device))
            numbers_W = np.repeat(np.arange(len(taken)), [len(rows[at].wanted) for at in taken])
            before_W = np.concatenate([rows[at].wanted for at in taken]) - 1
            yield taken, hidden_RTH[torch.from_numpy(numbers_W), torch.from_numpy(before_W)]

    def _hidden(self, ids_RT: Any) -> Any:
        """The hidden states that the head reads, [R, T, H]."""
        return self.body(input_ids=ids_RT, use_cache=False).last_hidden_state

    def _cross_entropy(self, hidden_WH: Any, targets_W: Any) -> npt.NDArray[np.float64]:
        """ln Σ exp(logit) − logit of the target, over the vocabulary block by block, so that a CPU finds its logits in
        the cache; sums over blocks in float64.

        What is taken off the logits before `exp` is the larger of the target's and the first entries', not the largest
        of all, for which each block would be read once more. Where that overflows, the largest is taken.
        """
        torch = import_module("torch")
        picked_W = (hidden_WH.float() * self.head.weight[targets_W].float()).sum(1)
        if self.head.bias is not None:
            picked_W += self.head.bias[targets_W].float()
        shift_W = torch.maximum(picked_W, self._logits(hidden_WH, slice(0, _LEAST_BLOCK)).amax(1))
        block = max(_LEAST_BLOCK, _BLOCK_LOGITS[self.kind] // len(targets_W))
        blocks = [slice(start, start + block) for start in range(0, self.head.out_features, block)]
        sums_W = self._sums(hidden_WH, blocks, shift_W)
        fits_W = torch.isfinite(sums_W)
        if not bool(fits_W.all()):
            most_W = torch.stack([self._logits(hidden_WH, each).amax(1) for each in blocks]).amax(0)
            shift_W = torch.where(fits_W, shift_W, most_W)  # of its own position alone, not of a neighbour
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
