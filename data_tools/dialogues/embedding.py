"""A vector for each dialogue, for the diversity of a selection: a model's last hidden state, as Deita's embedder takes
it, or counted n-grams, which need no model.

N: dialogues. D: numbers of a vector (H, the hidden size, of a model). T: tokens of a dialogue.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, Field

from data_tools.causal_model import CausalModel, CausalSettings, load_causal_model
from data_tools.chat import TEMPLATES, ChatError, get_template
from data_tools.corpus.batch import Batch, dialogue_text
from data_tools.inputs import InputError
from data_tools.local_model import cpu_threads
from data_tools.passes import passes
from data_tools.records import Messages

Embed = Callable[[Batch], npt.NDArray[np.float32]]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


class NgramEmbedding(BaseModel):
    """Counts of n-grams, hashed (Weinberger et al., arXiv 0902.2206): dialogues of the same words and phrases are
    similar, whatever they mean. For pools where no GPU is at hand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["n-grams"] = "n-grams"
    algorithm: Literal["aquila n-grams 1"] = "aquila n-grams 1"
    """Goes up whenever the same dialogue would get another vector."""
    dimensions: Annotated[int, Field(ge=16, le=8192)] = 256
    """Ours: two unrelated dialogues then have a cosine of 0 with a deviation of 1 / sqrt(256) = 0.06 from hashing."""
    n: Annotated[int, Field(ge=1, le=8)] = 2
    """The longest n-gram; shorter ones count too. Of folded characters where a text is Chinese, of words where not."""

    def files(self) -> tuple[Path, ...]:
        return ()

    def size(self, key: str) -> int:
        """D. `key`: what error messages call these settings."""
        return self.dimensions

    def embedder(self, key: str) -> Embed:
        """A function that gives float32 [N, D] of length 1, zeros where a dialogue has neither letter nor digit."""
        return lambda batch: self.vectors(batch.texts, batch.langs)

    def vectors(self, texts: Sequence[str], langs: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [N, D]: each n-gram that occurs c times adds ±(1 + ln c) to the number that its hash names."""
        from data_tools import _text
        from data_tools.corpus.folding import CHARACTERS, GUESS, folding, unit_of, units

        out = np.zeros((len(texts), self.dimensions), np.float32)
        for place, (text, unit) in enumerate(zip(texts, units(langs).tolist())):
            unit = unit_of(text) if unit == GUESS else unit
            characters, _, starts = _text.fold(folding(), text)
            tokens = characters.astype(np.uint64) if unit == CHARACTERS else _words(characters, starts)
            if len(tokens):
                out[place] = self._vector(tokens)
        return out

    def _vector(self, tokens: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
        grams = []
        hashes = np.zeros(len(tokens), np.uint64)
        for n in range(1, min(self.n, len(tokens)) + 1):
            hashes = _mixed(hashes[: len(tokens) - n + 1] * _MULTIPLIER + tokens[n - 1 :])
            grams.append(hashes)
        known, counts = np.unique(np.concatenate(grams), return_counts=True)
        signs = np.where(known >> np.uint64(63), 1.0, -1.0)
        bins = (known % np.uint64(self.dimensions)).astype(np.int64)
        vector = np.bincount(bins, signs * (1 + np.log(counts)), self.dimensions)
        length = np.sqrt(np.add.reduce(vector * vector))
        return np.asarray(vector / length if length else vector)


class ModelEmbedding(CausalSettings):
    """The last layer's state at the last token of the whole dialogue: Deita's `CLM_Embedder`."""

    kind: Literal["model"] = "model"
    template: str = "plain"
    """A chat template's name, or plain: the messages with a line end between two. Deita takes vicuna_v1.1 for
    Mistral-7B-v0.1, and of a longer dialogue the first 2048 tokens."""

    def size(self, key: str) -> int:
        """D, from the model's config.json.

        Raises:
            InputError: no such file, or it names no hidden size.
        """
        path = self.model / "config.json"
        try:
            config = orjson.loads(path.read_bytes())
            size = config.get("hidden_size") or config.get("n_embd") or config["text_config"]["hidden_size"]
            return int(size)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{key}.model is {self.model}, whose config.json does not tell the hidden size: name a directory "
                "with a causal language model of transformers"
            ) from error

    def embedder(self, key: str) -> Embed:
        """A function that gives float32 [N, H] of length 1, zeros where a dialogue cannot be rendered.

        A dialogue's vector does not follow its neighbours (`passes`).

        Raises:
            InputError: as `load_causal_model`, or no such template.
        """
        render = _renderer(self.template, key)
        return Embedder(load_causal_model(self, key), render)


Embedding = Annotated[NgramEmbedding | ModelEmbedding, Field(discriminator="kind")]


class Embedder:
    """Last hidden states of a loaded model. `render` gives a dialogue's text, or None where it has none."""

    def __init__(self, loaded: CausalModel, render: Callable[[Messages], str | None]) -> None:
        self._loaded = loaded
        self._render = render

    @cached_property
    def size(self) -> int:
        """H."""
        return int(self._loaded.model.config.get_text_config().hidden_size)

    def __call__(self, batch: Batch) -> npt.NDArray[np.float32]:
        """float32 [N, H], each of length 1 or zeros."""
        torch = import_module("torch")
        loaded = self._loaded
        rows = [self._ids(messages) for messages in batch.messages]
        asked = [place for place, ids in enumerate(rows) if ids]
        read = [rows[place] for place in asked]
        out = np.zeros((len(batch), self.size), np.float32)
        at_most = loaded.settings.batch_tokens
        with torch.inference_mode(), cpu_threads(loaded.model, loaded.device):
            for each in passes(read, at_most=at_most, longest=loaded.max_length, device=loaded.device):
                taken = [asked[place] for place in each.places]
                ids_NT = torch.from_numpy(each.ids_RT).to(loaded.device)
                states_NTH = loaded.model.base_model(input_ids=ids_NT, use_cache=False).last_hidden_state
                last_N = each.lengths_R[: len(taken)] - 1
                states_NH = states_NTH[range(len(taken)), last_N].double().cpu().numpy()
                out[taken] = _of_length_one(states_NH)
        return out

    def _ids(self, messages: Messages) -> list[int]:
        text = self._render(messages)
        return self._loaded.encode(text)[: self._loaded.max_length] if text else []


def _of_length_one(states_NH: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Zeros where a vector has no length, or none that is finite."""
    lengths_N = np.sqrt(np.add.reduce(states_NH * states_NH, axis=1, keepdims=True))
    usable = np.isfinite(lengths_N) & (lengths_N > 0)
    return np.divide(states_NH, lengths_N, out=np.zeros_like(states_NH), where=usable)


def _renderer(template: str, key: str) -> Callable[[Messages], str | None]:
    if template == "plain":
        return dialogue_text
    if template not in TEMPLATES:
        raise InputError(f"{key}.template is {template}: it is plain or one of {', '.join(sorted(TEMPLATES))}")
    chat = get_template(template)

    def render(messages: Messages) -> str | None:
        try:
            return chat.text(messages)
        except ChatError:
            return None

    return render


def _words(characters: npt.NDArray[np.uint32], starts: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """A hash of each word: a polynomial in its characters, which are counted from its beginning."""
    if not len(starts):
        return np.empty(0, np.uint64)
    begins = starts.astype(np.int64)
    lengths = np.diff(begins, append=len(characters))
    powers = np.cumprod(np.full(int(lengths.max()), _MULTIPLIER, np.uint64))
    place = np.arange(int(begins[0]), len(characters)) - np.repeat(begins, lengths)
    products = characters[begins[0] :].astype(np.uint64) * powers[place]
    return np.add.reduceat(products, begins - begins[0])


def _mixed(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread over all bits (the finaliser of splitmix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * _MIX
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
