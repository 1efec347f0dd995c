"""How lm-eval wants an answer written, in our terms."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from megatron_aquila.engine.sampling import Decoding
from megatron_aquila.errors import AquilaError

_MAX_NEW_TOKENS = 256  # where a task does not say, as lm-eval's hf
_KNOWN = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}


class DecodingError(AquilaError):
    """A task asks for a decoding that there is not."""


@dataclass(frozen=True)
class Asked:
    """`until`: texts at which an answer ends, the end token's among them."""

    decoding: Decoding
    until: tuple[str, ...]


class Decodings:
    """Decodings of the requests of one call. A seed depends on its own request, and on how often that was made
    before: repeats of a question are drawn anew, and neighbours change nothing."""

    def __init__(self, stop_ids: frozenset[int], end_text: str) -> None:
        self._stop_ids, self._end_text = stop_ids, end_text
        self._made: Counter[str] = Counter()

    def of(self, context: str, options: Mapping[str, Any]) -> Asked:
        """Raises: DecodingError: an option is not known."""
        wanted: dict[str, Any] = dict(normalize_gen_kwargs(dict(options), _MAX_NEW_TOKENS))
        unknown = sorted(set(wanted) - _KNOWN)
        if unknown:
            raise DecodingError(
                f"generation_kwargs names {', '.join(unknown)}; known here are {', '.join(sorted(_KNOWN))}"
            )
        until = handle_stop_sequences(wanted.get("until"), eos=self._end_text)
        sampled = bool(wanted.get("do_sample"))
        decoding = Decoding(
            max_new_tokens=wanted["max_gen_toks"],
            stop_ids=self._stop_ids,
            temperature=float(wanted["temperature"]) if sampled else 0.0,
            top_p=float(wanted.get("top_p", 1.0)),
            top_k=int(wanted.get("top_k", 0)),
            seed=self._seed(context, options),
        )
        return Asked(decoding, tuple(term for term in until if term))

    def _seed(self, context: str, options: Mapping[str, Any]) -> int:
        key = json.dumps([context, options], sort_keys=True, default=str)
        digest = hashlib.sha256(f"{self._made[key]} {key}".encode()).digest()
        self._made[key] += 1
        return int.from_bytes(digest[:6], "big")
