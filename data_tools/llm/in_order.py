"""Many things at once, results in the order of what was given."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def in_order(
    items: Iterable[Item], one: Callable[[Item], Coroutine[Any, Any, Result]], most: int
) -> AsyncGenerator[Result, None]:
    """`await one(item)` of each item, in their order, of which at most `most` are begun and not given out.

    `items` are read no further than that. Close it (`contextlib.aclosing`): that cancels what is under way.
    """
    tasks: deque[asyncio.Task[Result]] = deque()
    try:
        for item in items:
            tasks.append(asyncio.create_task(one(item)))
            if len(tasks) >= most:
                yield await tasks.popleft()
        while tasks:
            yield await tasks.popleft()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
