"""One process asks, all ranks answer: rank 0 drives an evaluation, the others wait for what it wants of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from megatron_aquila.engine.generation import Decoding, Stop, generate
from megatron_aquila.engine.scoring import TokenRequest, TokenScore, score
from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation.opened import OpenedModel


class ServingError(AquilaError):
    """The rank that drives the evaluation has failed, so there is nothing left to answer."""


class ModelServer:
    """A model over all ranks. Rank 0 calls `score`, `generate` and at the end `close`; the others call `serve`.

    pack_tokens: tokens of a scoring forward. batch_size: answers written side by side on a replica.
    """

    def __init__(self, model: OpenedModel, *, pack_tokens: int, batch_size: int) -> None:
        self.model, self.pack_tokens, self.batch_size = model, pack_tokens, batch_size
        self._answering = False
        self._closed = False

    def score(self, requests: Sequence[TokenRequest]) -> list[TokenScore]:
        scores: list[TokenScore] = self._ask("score", requests)
        return scores

    def generate(
        self, prompts: Sequence[Sequence[int]], decoding: Sequence[Decoding], stop: Stop | None = None
    ) -> list[list[int]]:
        answers: list[list[int]] = self._ask(
            "generate", (prompts, decoding), None if stop is None else _only_here(stop)
        )
        return answers

    def serve(self) -> None:
        """Answer with rank 0 until it closes.

        Raises:
            ServingError: rank 0 has failed.
        """
        try:
            self._serve()
        except RuntimeError as error:
            # gloo's words, for which torch 2.9 has no class. With NCCL a rank waits until the launcher ends it.
            if "Connection closed by peer" not in str(error) and "Connection reset by peer" not in str(error):
                raise
            raise ServingError(
                "the evaluation was given up, because another rank ended in the midst of an answer: see what it says"
            ) from error

    def _serve(self) -> None:
        while True:
            what, content = self.model.layout.broadcast(None)
            if what == "end":
                return
            if what == "failed":
                raise ServingError(f"the evaluation was given up, because rank 0 failed: {content}")
            try:
                self._answer(what, content, None)
            except (ValueError, AquilaError):
                continue  # bad requests, which every rank refuses: rank 0 says what becomes of it

    def close(self, failure: BaseException | None = None) -> None:
        """Let the other ranks go; with a failure they raise. Calling it again does nothing."""
        if self._closed or not self.model.layout.is_main:
            return
        self._closed = True
        # Failed in the midst of an answer: the others wait inside a collective, and end when this process leaves it.
        if not self._answering:
            end = ("end", None) if failure is None else ("failed", f"{type(failure).__name__}: {failure}")
            self.model.layout.broadcast(end)

    def _ask(self, what: str, content: Any, stop: Stop | None = None) -> Any:
        if self._closed:
            raise ServingError("the model was closed before this was asked of it")
        self.model.layout.broadcast((what, content))
        self._answering = True
        try:
            answer = self._answer(what, content, stop)
        except (ValueError, AquilaError):
            self._answering = False  # refused on every rank alike
            raise
        self._answering = False
        return answer

    def _answer(self, what: str, content: Any, stop: Stop | None) -> Any:
        model = self.model
        if what == "score":
            return score(model.chunks, content, layout=model.layout, device=model.device, pack_tokens=self.pack_tokens)
        prompts, decoding = content
        return generate(
            model.chunks,
            prompts,
            decoding,
            layout=model.layout,
            device=model.device,
            batch_size=self.batch_size,
            stop=stop,
        )


def _only_here(stop: Stop) -> Stop:
    """What `stop` raises is known to rank 0 alone, unlike what `generate` refuses on every rank."""

    def guarded(index: int, ids: list[int]) -> bool:
        try:
            return stop(index, ids)
        except Exception as error:
            raise RuntimeError(f"whether answer {index} ends could not be told: {error}") from error

    return guarded
