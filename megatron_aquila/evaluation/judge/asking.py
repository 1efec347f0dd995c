"""Many items before one judge: several at once, outcomes in the order of the items."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, TypeVar

from data_tools.llm import LanguageModel
from data_tools.llm.blocking import blocking
from data_tools.llm.budget import count_by_bytes
from data_tools.llm.in_order import in_order
from data_tools.llm.session import Session
from data_tools.preferences.judge import Ask

_WINDOW = 2  # items begun but not given out, as a multiple of the concurrency

Thing = TypeVar("Thing")
Outcome = TypeVar("Outcome")


def asked_about(
    items: Sequence[Thing], model: LanguageModel, one: Callable[[Ask, Thing], Coroutine[Any, Any, Outcome]]
) -> Generator[Outcome, None, None]:
    """One outcome for each item as they come; asking goes on while the caller works. Closing the iterator cancels what
    is under way.

    Raises:
        LanguageModelError, NotRecordedError, StorageError: as in `LanguageModel.ask`.
    """
    return blocking(_outcomes(items, model, one), "judge")


async def _outcomes(
    items: Sequence[Thing], model: LanguageModel, one: Callable[[Ask, Thing], Coroutine[Any, Any, Outcome]]
) -> AsyncGenerator[Outcome, None]:
    async with AsyncExitStack() as stack:
        session = Session(model.config, model.account, count_by_bytes)
        await session.open(stack)
        told = in_order(items, lambda item: one(session.result, item), _WINDOW * model.config.concurrency)
        async for outcome in await stack.enter_async_context(aclosing(told)):
            yield outcome
