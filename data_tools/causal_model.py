"""Causal language models on this machine, for scores that need logits: through transformers, torch imported inside
functions only. Needs the extra `[scorers]`.

No code of a model's repository is run, and nothing is downloaded. N: rows; R: rows of a forward pass; T: tokens of a
row; V: vocabulary; H: hidden size; K: tokens asked for.
"""

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from data_tools.inputs import InputError
from data_tools.local_model import cpu_threads, libraries
from data_tools.passes import Pass, passes

_LOGITS_BYTES = 1 << 30  # of a forward pass that needs the logits of all its tokens


class CausalSettings(BaseModel):
    """Which model, and how it is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path
    """A directory with a transformers model and its tokenizer, such as `aquila export` writes. Its files enter the
    run's digest."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one. Worker processes take the GPUs in turn."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of weights and products. auto: bfloat16 on a GPU, float32 on a CPU."""
    max_length: int = Field(2048, ge=8)
    """Tokens of a row that are looked at; no more than the model has positions for."""
    batch_tokens: int = Field(16384, ge=1)
    """Tokens of a forward pass, padding included, of which a CPU takes 512 at most; decides time and memory."""

    def files(self) -> tuple[Path, ...]:
        """What decides the scores."""
        return (self.model,)


@dataclass(frozen=True)
class CausalModel:
    """A loaded model: `model` is transformers', in eval mode, `coder` its tokenizer, `device` torch's name of where it
    is ("cpu", "cuda:1").
    """

    settings: CausalSettings
    model: Any
    coder: Any
    device: str

    @property
    def max_length(self) -> int:
        """Tokens that a row may have: of the settings, or the positions of the model where they are fewer."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        return min(self.settings.max_length, positions or self.settings.max_length)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text by the model's tokenizer; of any length."""
        ids: list[int] = self.coder(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
        return ids

    def next_token_logits(self, rows: Sequence[Sequence[int]], token_ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """The logits [N, K] of `token_ids` at the position after each row.

        A row's logits do not follow its neighbours (`passes`), and in float32 they are those of the row alone within
        1e-5 of their size. Of each row one position's logits are ever computed: [R, V].

        Raises:
            ValueError: a row that is empty, or longer than `max_length`.
        """
        torch, _ = libraries()
        wanted_K = torch.as_tensor(list(token_ids), device=self.device)
        logits_NK = np.zeros((len(rows), len(token_ids)))
        head = self.model.get_output_embeddings()
        with torch.inference_mode(), cpu_threads(self.model, self.device):
            for each, ids_RT in self._passes(rows, self.settings.batch_tokens):
                with _only_last(head, each.lengths_R):
                    last_RV = self.model(input_ids=ids_RT, use_cache=False).logits[:, 0]
                logits_NK[each.places] = last_RV[: len(each.places), wanted_K].double().cpu().numpy()
        return logits_NK

    def token_logps(self, rows: Sequence[Sequence[int]]) -> list[npt.NDArray[np.float64]]:
        """ln p(row[t + 1] | row[: t + 1]) for each row, [T - 1]; passes and raises as `next_token_logits`.

        The logits of a pass take at most 1 GiB in float32, or those of one row.
        """
        torch, _ = libraries()
        at_most = _LOGITS_BYTES // (4 * self.model.config.get_text_config().vocab_size)
        logps: list[npt.NDArray[np.float64]] = [np.zeros(0)] * len(rows)
        with torch.inference_mode(), cpu_threads(self.model, self.device):
            for each, ids_RT in self._passes(rows, at_most):
                logits_RTV = self.model(input_ids=ids_RT, use_cache=False).logits
                for place, logits_TV, ids_T, length in zip(each.places, logits_RTV, ids_RT, each.lengths_R):
                    logps_TV = logits_TV[: length - 1].float().log_softmax(-1)
                    logps[place] = logps_TV.gather(-1, ids_T[1:length, None])[:, 0].double().cpu().numpy()
        return logps

    def _passes(self, rows: Sequence[Sequence[int]], at_most: int) -> Iterator[tuple[Pass, Any]]:
        """Passes of `at_most` tokens, or of one row, and their ids where the model is."""
        torch, _ = libraries()
        for place, row in enumerate(rows):
            if not 0 < len(row) <= self.max_length:
                raise ValueError(f"row {place} has {len(row)} tokens: it must have 1 to {self.max_length}")
        at_most = min(at_most, self.settings.batch_tokens)
        for each in passes(rows, at_most=at_most, longest=self.max_length, device=self.device):
            yield each, torch.from_numpy(each.ids_RT).to(self.device)


def load_causal_model(settings: CausalSettings, key: str = "model") -> CausalModel:
    """The model that `settings` name; `key` is what error messages call them.

    Raises:
        InputError: torch or transformers is not installed, no such model, one without its tokenizer or without a head
            that foretells the next token, a GPU is asked for and not there.
    """
    torch, transformers = libraries()
    place = settings.model
    if not place.is_dir():
        raise InputError(
            f"{key}.model is {place}, and there is no such directory: name one with a model of transformers"
        )
    device = _device(settings, key)
    half = settings.dtype == "bfloat16" or (settings.dtype == "auto" and device != "cpu")
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        coder = transformers.AutoTokenizer.from_pretrained(place, **local)
    except Exception as error:
        raise InputError(
            f"{key}.model is {place}, whose tokenizer cannot be loaded ({_first_line(error)}): save the model's "
            "tokenizer beside it"
        ) from error
    try:
        with _without_bars(transformers.utils.logging):
            model, found = transformers.AutoModelForCausalLM.from_pretrained(
                place,
                dtype=torch.bfloat16 if half else torch.float32,
                output_loading_info=True,
                use_safetensors=True,
                **local,
            )
    except Exception as error:
        raise InputError(
            f"{key}.model is {place}, which cannot be loaded ({_first_line(error)}): name a directory with a causal "
            "language model of transformers"
        ) from error
    if missing := sorted(found["missing_keys"]):
        raise InputError(
            f"{key}.model is {place}, which lacks {', '.join(missing[:3])}: it was saved without the head that "
            "foretells the next token, or is no causal language model"
        )
    ids, rows = coder.vocab_size, model.get_input_embeddings().weight.shape[0]
    if ids > rows:
        raise InputError(
            f"{key}.model is {place}, whose tokenizer has {ids} ids and whose model {rows}: they do not belong "
            "together, save the model's own tokenizer beside it"
        )
    loaded = CausalModel(settings, model.eval().to(device), coder, device)
    if not _is_causal(loaded):
        raise InputError(f"{key}.model is {place}, whose tokens look at later ones: it is no causal language model")
    return loaded


def _device(settings: CausalSettings, key: str) -> str:
    torch, _ = libraries()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if settings.device == "cuda" and not count:
        raise InputError(f"{key}.device is cuda, and torch finds no GPU: set it to auto or cpu")
    if settings.device == "cpu" or not count:
        return "cpu"
    return f"cuda:{gpu_of_process(multiprocessing.current_process()._identity, count)}"


def gpu_of_process(identity: tuple[int, ...], count: int) -> int:
    """Which of `count` GPUs a process works on: they are taken in turn by the processes that multiprocessing starts,
    whose identities are (1,), (2,), …; the first process of all has (), and takes the first GPU.
    """
    return (identity[-1] - 1) % count if identity else 0


def _is_causal(loaded: CausalModel) -> bool:
    """Whether the logits after token 0 stay when token 1 changes: those of an encoder with a language model's head (a
    BERT can be loaded as one) do not.
    """
    torch, _ = libraries()
    ids_RT = torch.tensor([[3, 4], [3, 5]], device=loaded.device)
    with torch.inference_mode():
        logits_RV = loaded.model(input_ids=ids_RT, use_cache=False).logits[:, 0].float()
    return bool(torch.allclose(logits_RV[0], logits_RV[1], rtol=1e-3, atol=1e-3, equal_nan=True))


@contextmanager
def _only_last(head: Any, lengths_R: npt.NDArray[np.int64]) -> Iterator[None]:
    """Within it the head of a model gets the last hidden state of each row alone, [R, 1, H]. What a model does to
    logits after its head (scales, caps) it does to these.
    """

    def last(module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_RTH, *others = given
        return hidden_RTH[range(len(lengths_R)), lengths_R - 1][:, None], *others

    hook = head.register_forward_pre_hook(last)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _without_bars(bars: Any) -> Iterator[None]:
    """transformers shows how far it has loaded, in the midst of what the command says."""
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
