"""Many items before one judge: several at once, outcomes in the order of the items."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

from data_tools.llm import LanguageModel
from data_tools.llm.blocking import blocking
from data_tools.llm.budget import count_by_bytes
from data_tools.llm.session import Session
from data_tools.preferences.judge import Ask

_WINDOW = 2  # items begun but not given out, as a multiple of the concurrency

Thing = TypeVar("Thing")
Outcome = TypeVar("Outcome")


def asked_about(
    items: Sequence[Thing], model: LanguageModel, one: Callable[[Ask, Thing], Awaitable[Outcome]]
) -> Generator[Outcome, None, None]:
    """One outcome for each item as they come; asking goes on while the caller works. Closing the iterator cancels what
    is under way.

    Raises:
        LanguageModelError, NotRecordedError, StorageError: as in `LanguageModel.ask`.
    """
    return blocking(_outcomes(items, model, one), "judge")


async def _outcomes(
    items: Sequence[Thing], model: LanguageModel, one: Callable[[Ask, Thing], Awaitable[Outcome]]
) -> AsyncGenerator[Outcome, None]:
    async with AsyncExitStack() as stack:
        session = Session(model.config, model.account, count_by_bytes)
        await session.open(stack)
        tasks: deque[asyncio.Future[Outcome]] = deque()
        try:
            for item in items:
                tasks.append(asyncio.ensure_future(one(session.result, item)))
                if len(tasks) >= _WINDOW * model.config.concurrency:
                    yield await tasks.popleft()
            while tasks:
                yield await tasks.popleft()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
