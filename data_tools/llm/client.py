"""Asking: many requests at once, results in the order of the requests."""

from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

from data_tools.llm.blocking import blocking
from data_tools.llm.budget import BYTES_PER_TOKEN, CountTokens, Estimate, count_by_bytes, estimate
from data_tools.llm.cache import AnswerCache
from data_tools.llm.config import ModelConfig
from data_tools.llm.exchange import Account, Request, Result
from data_tools.llm.in_order import in_order
from data_tools.llm.session import Session

if TYPE_CHECKING:
    from data_tools.tokenizers import Tokenizer

_WINDOW = 4  # requests begun but not given out, as a multiple of the concurrency: one that is slow holds up few others


class LanguageModel:
    """One model at one server, and the account of all that was asked of it.

    Args:
        tokenizer: counts prompt tokens for the dry run and the pace; without one they are estimated by bytes.

    Attributes:
        account: complete whenever no `ask` or `results` is under way.
    """

    def __init__(self, config: ModelConfig, tokenizer: "Tokenizer | None" = None) -> None:
        self.config = config
        self.account = Account()
        self._count: CountTokens = count_by_bytes
        self._counted_by = f"{BYTES_PER_TOKEN} bytes a token (an estimate)"
        if tokenizer is not None:
            self._count = lambda text: len(tokenizer.encode(text))
            self._counted_by = f"the tokenizer {tokenizer.name}"

    def ask(self, requests: Iterable[Request]) -> Generator[Result, None, None]:
        """One result for each request, in their order, as they come; asking goes on while the caller works.

        `requests` is read ahead of the results, by another thread. Closing the iterator cancels what is under way.

        Raises:
            LanguageModelError: the key's variable is not set, or the `openai` client is not installed.
            NotRecordedError: a replay lacks a request.
            StorageError: the cache's disk is full.
        """
        return blocking(self.results(requests), "language-model")

    async def results(self, requests: Iterable[Request]) -> AsyncGenerator[Result, None]:
        """`ask` for callers that are asynchronous themselves."""
        async with AsyncExitStack() as stack:
            session = Session(self.config, self.account, self._count)
            await session.open(stack)
            asked = in_order(requests, session.result, _WINDOW * self.config.concurrency)
            async for result in await stack.enter_async_context(aclosing(asked)):
                yield result

    def estimate(self, requests: Iterable[Request]) -> Estimate:
        """The dry run: calls, tokens and cost that asking would take now, without a call."""
        config = self.config
        if config.mode == "off" or config.cache is None:
            return estimate(config, requests, lambda _: False, self._count, self._counted_by)
        with AnswerCache(config.cache, read_only=True) as cache:
            return estimate(config, requests, cache.__contains__, self._count, self._counted_by)
