"""An asynchronous generator for callers that are not asynchronous."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator
from typing import TypeVar

Item = TypeVar("Item")


def blocking(items: AsyncGenerator[Item, None], name: str) -> Generator[Item, None, None]:
    """The `items` (none of them None) as they come; they go on being made, in a thread `name`, while the caller works.
    Closing the iterator, or an interrupt while it waits, ends what is under way.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=name, daemon=True)
    thread.start()
    waiting: asyncio.Task[Item | None] | None = None

    async def following() -> Item | None:
        nonlocal waiting
        waiting = asyncio.current_task()
        return await anext(items, None)

    async def shut() -> None:
        if waiting is not None and not waiting.done():  # the caller was interrupted: a running generator has no aclose
            waiting.cancel()
            await asyncio.wait([waiting])
        await items.aclose()

    try:
        while (item := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
            yield item
    finally:
        asyncio.run_coroutine_threadsafe(shut(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
