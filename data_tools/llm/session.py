"""What becomes of each request while a run lasts: recorded, asked, repeated, given up."""

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

from data_tools.llm.attempts import Fault, LanguageModelError, Server
from data_tools.llm.budget import CountTokens, Hold, Ledger, Pace, most_prompt_tokens, prompt_tokens
from data_tools.llm.cache import AnswerCache
from data_tools.llm.config import ModelConfig
from data_tools.llm.exchange import Account, Answer, Failure, Request, Result, payload, request_key

_CLAIM_SECONDS = 0.05


class NotRecordedError(LanguageModelError):
    """A replay met a request that was never recorded."""


class Session:
    """Lives as long as one event loop's run of requests."""

    def __init__(self, config: ModelConfig, account: Account, count: CountTokens) -> None:
        self._config = config
        self._account = account
        self._count = count
        self._slots = asyncio.Semaphore(config.concurrency)
        self._ledger = Ledger(config, account)
        self._pace = Pace(config)
        self._cache: AnswerCache | None = None
        self._server: Server | None = None
        self._under_way: dict[bytes, asyncio.Future[Result]] = {}
        self._failed_in_a_row = 0
        self._stopped: Failure | None = None  # why nothing more is asked
        self._jitter = random.Random()

    async def open(self, stack: AsyncExitStack) -> None:
        """Open cache and connections; `stack` closes them.

        Raises:
            LanguageModelError: see `Server`.
        """
        if self._config.mode != "replay":
            self._server = await stack.enter_async_context(Server(self._config))
        if self._config.mode != "off":
            assert self._config.cache is not None  # the configuration has checked it
            self._cache = AnswerCache(self._config.cache, read_only=self._server is None)
            stack.enter_context(self._cache)
            self._account.damaged_records += self._cache.damaged

    async def result(self, request: Request) -> Result:
        """The request's one result, entered in the account."""
        self._account.requests += 1
        try:
            key = request_key(self._config, request)
        except TypeError as error:  # orjson's, for a lone surrogate
            return self._failed(Failure("bad-text", f"request {request.id} cannot be sent: {error}"))
        if self._cache is None:
            return await self._ask(request, key)
        if (first := self._under_way.get(key)) is not None:
            result = await asyncio.shield(first)
            return self._recorded(result) if isinstance(result, Answer) else self._failed(result)
        if (answer := self._cache.answer(key)) is not None:
            return self._recorded(answer)
        if self._server is None:
            return self._failed(self._recorded_failure(request, key))
        return await self._ask_once(request, key)

    def _recorded(self, answer: Answer) -> Answer:
        self._account.recorded += 1
        return answer

    def _failed(self, failure: Failure) -> Failure:
        self._account.failed[failure.reason] += 1
        return failure

    def _recorded_failure(self, request: Request, key: bytes) -> Failure:
        assert self._cache is not None
        if (failure := self._cache.failure(key)) is not None:
            return failure
        raise NotRecordedError(
            f"request {request.id or key.hex()} (sample {request.sample}) is not recorded in {self._cache.directory}: "
            "set mode: record to ask for it, or bring prompt, model and sampling back to what was recorded"
        )

    async def _ask_once(self, request: Request, key: bytes) -> Result:
        """Ask, unless another process is asking the same: then take what it records. Equal requests of this process
        wait for this one.
        """
        cache = self._cache
        assert cache is not None
        shared: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._under_way[key] = shared
        try:
            while not cache.claim(key):
                await asyncio.sleep(_CLAIM_SECONDS)
            try:
                cache.refresh()
                answer = cache.answer(key)
                result = await self._ask(request, key) if answer is None else self._recorded(answer)
            finally:
                cache.release(key)
            shared.set_result(result)
            return result
        finally:
            del self._under_way[key]
            shared.cancel()  # no effect where the result is set

    async def _ask(self, request: Request, key: bytes) -> Result:
        config = self._config
        body = payload(config, request)
        hold = Hold(most_prompt_tokens(request.messages), config.max_tokens)
        tokens = prompt_tokens(request.messages, self._count)
        for repetition in range(config.retries + 1):
            async with self._slots:
                await self._pace.wait(tokens + config.max_tokens)
                if self._stopped is None and not await self._ledger.begin(hold):
                    self._stopped = self._stopped or Failure("budget", self._ledger.exhausted)
                if self._stopped is not None:
                    return self._failed(self._stopped)
                outcome = await self._attempt(body, hold, tokens, key)
            if isinstance(outcome, Answer):
                self._failed_in_a_row = 0
                return outcome
            failure = Failure(outcome.reason, outcome.detail)
            if outcome.general:
                self._stopped = failure
                return self._failed(failure)
            if not outcome.passing:
                self._failed_in_a_row = 0  # the server is there, and dislikes this one
                break
            if repetition < config.retries:
                self._account.retried[outcome.reason] += 1
                await self._back_off(repetition, outcome)
        else:
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= config.give_up_after:
                detail = f"{self._failed_in_a_row} requests in a row failed for good, the last: {failure.reason}"
                self._stopped = Failure("server-down", detail)
        self._record(key, failure)
        return self._failed(failure)

    async def _attempt(self, body: dict[str, Any], hold: Hold, tokens: int, key: bytes) -> Answer | Fault:
        """One attempt that the ledger has begun: recorded first, then entered in the account."""
        assert self._server is not None
        outcome: Answer | Fault = Fault("cancelled", "")
        account, config = self._account, self._config
        try:
            outcome = await self._server.attempt(body, tokens)
            if isinstance(outcome, Answer):
                self._record(key, outcome)
            return outcome
        finally:
            if isinstance(outcome, Answer):
                account.answered += 1
                account.prompt_tokens += outcome.prompt_tokens
                account.completion_tokens += outcome.completion_tokens
                account.estimated += outcome.estimated
                account.cost += config.cost(outcome.prompt_tokens, outcome.completion_tokens)
            elif outcome.uncertain:
                account.uncertain_tokens += sum(hold)
                account.uncertain_cost += config.cost(*hold)
            await self._ledger.end(hold)

    def _record(self, key: bytes, result: Result) -> None:
        if self._cache is None:
            return
        try:
            self._cache.record(key, result)
        except OSError as error:
            self._stopped = Failure("storage", str(error))  # what cannot be kept must not be paid for
            raise

    async def _back_off(self, repetition: int, fault: Fault) -> None:
        """Wait exponentially longer, with jitter, and at least as long as the server asks; where it says that there are
        too many requests, all of them wait.
        """
        config = self._config
        seconds = config.backoff_seconds * 2**repetition * self._jitter.uniform(0.5, 1)
        seconds = min(max(seconds, fault.retry_after or 0), config.longest_wait_seconds)
        if fault.reason == "rate-limited":
            self._pace.pause(seconds)
        await asyncio.sleep(seconds)
