"""Our models in lm-eval: `--model aquila`. Imports lm-eval; nothing else of this package does without need.

lm-eval runs on rank 0 and knows of one process; the other ranks answer with it (`serving.py`). From Python:

    with AquilaLM.open(path, parallel=ParallelConfig(tensor_parallel=2)) as lm:
        if lm.is_main:
            simple_evaluate(model=lm, ...)
        else:
            lm.serve()

and by lm-eval's own command, on one process or under torchrun:

    python -m megatron_aquila.evaluation run --model aquila --model_args checkpoint=runs/sft --tasks ...
    torchrun --nproc-per-node=2 -m megatron_aquila.evaluation run --model aquila \
        --model_args checkpoint=runs/sft,tensor_parallel=2 --tasks ...

Meant to give what lm-eval's `hf` gives for the export of the same checkpoint, request by request.
"""

from __future__ import annotations

import atexit
import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm  # type: ignore[import-untyped]

from megatron_aquila.config import ParallelConfig
from megatron_aquila.engine.scoring import TokenRequest
from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation.decoding import Asked, Decodings
from megatron_aquila.evaluation.opened import OpenedModel, open_model
from megatron_aquila.evaluation.pairs import Piece, Text, encode, encode_pair, end_id, prefix_id, split_controls
from megatron_aquila.evaluation.serving import ModelServer

# What is asked in one go: the next shows as progress.
_SECTION_PACKS = 64
_SECTION_BATCHES = 4

Precision = Literal["fp32", "bf16", "fp16"]
Device = Literal["auto", "cuda", "cpu"]
Encoded = tuple[tuple[str, str] | None, list[int], list[int]]


class LmError(AquilaError):
    """What lm-eval asks for cannot be had of this model."""


@dataclass(frozen=True)
class Settings:
    """How to open a model: a `ModelSettings`."""

    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    precision: Precision = "bf16"
    device: Device = "auto"


@register_model("aquila")
class AquilaLM(TemplateLM):
    """A checkpoint or a Hugging Face directory, through our engine.

    The constructor is for lm-eval's command line: on other ranks than 0 it answers until rank 0 is done, and then ends
    the process. From Python use `open`.
    """

    def __init__(
        self,
        checkpoint: str,
        tensor_parallel: int = 1,
        pipeline_parallel: int = 1,
        sequence_parallel: bool = False,
        precision: Precision = "bf16",
        pack_tokens: int = 8192,
        batch_size: int | str = 16,
        max_length: int | None = None,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        """`batch_size` and `device` come from lm-eval's own options; "auto" stands for the defaults. `max_batch_size`
        means nothing here: scoring fills packs, and does not search for a size."""
        super().__init__()
        parallel = ParallelConfig(
            tensor_parallel=tensor_parallel, pipeline_parallel=pipeline_parallel, sequence_parallel=sequence_parallel
        )
        stack = ExitStack()
        model = stack.enter_context(open_model(Path(checkpoint), Settings(parallel, precision, _device_option(device))))
        answers = 16 if str(batch_size).startswith("auto") else int(batch_size)
        self._attach(ModelServer(model, pack_tokens=pack_tokens, batch_size=answers), max_length)
        if not self.is_main:
            self.serve()
            stack.close()
            sys.exit(0)

        def end() -> None:
            self.close()
            stack.close()

        atexit.register(end)

    @classmethod
    @contextmanager
    def open(
        cls,
        path: Path,
        *,
        parallel: ParallelConfig | None = None,
        precision: Precision = "bf16",
        device: Device = "auto",
        pack_tokens: int = 8192,
        batch_size: int = 16,
        max_length: int | None = None,
    ) -> Iterator[AquilaLM]:
        """Every rank calls it; see the head of this file. When rank 0 leaves the block, by an exception too, the
        others leave `serve`.

        Args:
            pack_tokens: tokens of a scoring forward.
            batch_size: answers written side by side on a replica.
            max_length: the longest context with its continuation; None: what the model was made for.

        Raises:
            as `open_model`; ServingError: on the other ranks, when rank 0 raised.
        """
        with open_model(path, Settings(parallel or ParallelConfig(), precision, device)) as model:
            server = ModelServer(model, pack_tokens=pack_tokens, batch_size=batch_size)
            lm = cls.of(server, max_length=max_length)
            try:
                yield lm
            except BaseException as failure:
                server.close(failure)
                raise
            server.close()

    @classmethod
    def of(cls, server: ModelServer, *, max_length: int | None = None) -> AquilaLM:
        """Over a model that is open."""
        lm = cls.__new__(cls)
        TemplateLM.__init__(lm)
        lm._attach(server, max_length)
        return lm

    def _attach(self, server: ModelServer, max_length: int | None) -> None:
        self.server = server
        self.model: OpenedModel = server.model
        self.max_length = max_length or self.model.shape.max_position_embeddings
        self.batch_size = server.batch_size
        # Conversations that were laid out, by their text, which is all that lm-eval hands back.
        self._rendered: dict[str, list[Piece]] = {}

    @property
    def is_main(self) -> bool:
        return self.model.layout.is_main

    def serve(self) -> None:
        """Answer with rank 0 until it closes; for all other ranks."""
        self.server.serve()

    def close(self) -> None:
        self.server.close()

    # -- tokens -----------------------------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        return end_id(self.model.tokenizer)

    @property
    def prefix_token_id(self) -> int:
        return prefix_id(self.model.tokenizer)

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval's cache of requests: one for every tokenizer and template."""
        template = "" if self.model.chat is None else hashlib.sha256(self.model.chat.jinja.encode()).hexdigest()[:12]
        return f"{self.model.tokenizer.name}-{self.model.tokenizer.digest[:12]}-{template}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids; nothing is added before or behind them."""
        return encode(self.model.tokenizer, self._text(string))

    def tok_decode(self, tokens: Sequence[int]) -> str:
        """Text without control tokens."""
        control = set(self.model.tokenizer.special_tokens.values())
        return self.model.tokenizer.decode([token for token in tokens if token not in control])

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return encode_pair(self.model.tokenizer, self._text(context), continuation)

    def _text(self, string: str) -> Text:
        """A string of lm-eval's: a conversation in its pieces, one that it has added to with control tokens found, else
        plain text."""
        if not self._rendered:
            return string
        assert self.model.chat is not None
        found = self._rendered.get(string)
        return found if found is not None else split_controls(string, self.model.tokenizer.special_tokens)

    # -- conversations ----------------------------------------------------------------------------------------

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The Jinja that the model was trained with; None where lm-eval asks for none.

        Raises:
            LmError: the model has no chat template, or another one is asked for by name.
        """
        if not chat_template:
            return None
        if self.model.chat is None:
            raise LmError(f"{self.model.path} learned plain text and has no chat template: evaluate it without one")
        if isinstance(chat_template, str) and chat_template != self.model.chat.name:
            raise LmError(f"{self.model.path} has the chat template {self.model.chat.name}, not {chat_template}")
        return self.model.chat.jinja

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as text. What in it is a control token is kept in mind: a literal one in a message is not.

        Raises:
            LmError: the model has no chat template.
        """
        if self.model.chat is None:
            self.chat_template(True)
        assert self.model.chat is not None
        pieces = self.model.chat.pieces(chat_history, answers=add_generation_prompt)
        text = "".join(piece.text for piece in pieces)
        self._rendered[text] = pieces
        return text

    # -- scores -----------------------------------------------------------------------------------------------

    def _loglikelihood_tokens(
        self, requests: Sequence[Encoded], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Contexts that are too long lose their beginning."""
        scored = [self._request(context, continuation) for _, context, continuation in requests]
        answers: list[tuple[float, bool]] = []
        with _bar(len(scored), "Running loglikelihood requests", disable_tqdm) as bar:
            for section in self._sections(scored):
                answers += [(found.logp, found.greedy) for found in self.server.score(section)]
                bar.update(len(section))
        for request, answer in zip(requests, answers, strict=True):
            if request[0] is not None:
                self.cache_hook.add_partial("loglikelihood", request[0], answer)
        return answers

    def _request(self, context: list[int], continuation: list[int]) -> TokenRequest:
        if len(continuation) > self.max_length:
            raise LmError(
                f"a continuation of {len(continuation)} tokens does not fit into max_length {self.max_length}"
            )
        kept = (context or [self.prefix_token_id])[-(self.max_length + 1 - len(continuation)) :]
        return TokenRequest(kept, continuation)

    def _sections(self, requests: list[TokenRequest]) -> Iterator[list[TokenRequest]]:
        """In order, large enough to fill many packs."""
        limit = self.server.pack_tokens * self.model.layout.data_size * _SECTION_PACKS
        section: list[TokenRequest] = []
        tokens = 0
        for request in requests:
            section.append(request)
            tokens += len(request.context) + len(request.continuation)
            if tokens >= limit:
                yield section
                section, tokens = [], 0
        if section:
            yield section

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        windows: list[Encoded] = []
        owners: list[int] = []
        for number, (string,) in enumerate(request.args for request in requests):
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(string),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                windows.append((None, *make_disjoint_window(window)))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, (logp, _) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[number] += logp
        for request, total in zip(requests, totals):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    # -- answers ----------------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers, cut at the first stop string. What is sampled depends on its own request only (`decoding.py`).

        Raises:
            LmError: a request leaves no room for a context. DecodingError: it has an option that is not known.
        """
        ends = frozenset(self.model.stop_ids | {self.eot_token_id})
        decodings = Decodings(ends, self.model.tokenizer.decode([self.eot_token_id]))
        asked: list[tuple[list[int], Asked]] = []
        for context, options in (request.args for request in requests):
            how = decodings.of(context, options)
            room = self.max_length - how.decoding.max_new_tokens
            if room <= 0:
                raise LmError(
                    f"max_gen_toks {how.decoding.max_new_tokens} leaves no room for a context: max_length is "
                    f"{self.max_length}"
                )
            asked.append(((self.tok_encode(context) or [self.prefix_token_id])[-room:], how))

        texts: list[str] = []
        many = self.batch_size * self.model.layout.data_size * _SECTION_BATCHES
        with _bar(len(asked), "Running generate_until requests", disable_tqdm) as bar:
            for first in range(0, len(asked), many):
                texts += self._write(asked[first : first + many])
                bar.update(len(texts) - first)
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _write(self, asked: Sequence[tuple[list[int], Asked]]) -> list[str]:
        # A token is a quarter of a character at least: so many of the last hold any stop text.
        tails = [4 * max(len(term) for term in how.until) + 4 for _, how in asked]

        def stop(index: int, ids: list[int]) -> bool:
            said = self.model.tokenizer.decode(ids[-tails[index] :])
            return any(term in said for term in asked[index][1].until)

        written = self.server.generate([prompt for prompt, _ in asked], [how.decoding for _, how in asked], stop)
        return [
            postprocess_generated_text(self.tok_decode(ids), list(how.until), None)
            for ids, (_, how) in zip(written, asked, strict=True)
        ]


def _device_option(device: str | None) -> Device:
    """lm-eval names a GPU too, which here follows from the rank."""
    if device is None:
        return "auto"
    return "cpu" if device.startswith("cpu") else "cuda"


def _bar(total: int, title: str, disabled: bool) -> tqdm:
    """tqdm takes TQDM_DISABLE from the environment only where it is not told whether to show itself."""
    return tqdm(total=total, desc=title, **({"disable": True} if disabled else {}))
