"""The event loop of a server process: which one it is, and waiting for one of two things."""

import asyncio
from collections.abc import Coroutine
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run ``main`` to its end, in uvloop's event loop where that is installed."""
    try:
        import uvloop  # noqa: PLC0415 - an optional dependency, not on all platforms
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


async def first_of(task: "asyncio.Task[Any]", event: asyncio.Event) -> bool:
    """Wait until a task is done or an event is set; return whether the task is done."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return task.done()
