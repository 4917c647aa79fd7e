"""Tests that need an event loop run on asyncio's own and on uvloop."""

import asyncio
from collections.abc import Callable
from importlib.util import find_spec


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Name → what makes an event loop."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if find_spec("uvloop") is not None:
        import uvloop  # noqa: PLC0415 - an optional dependency

        factories["uvloop"] = uvloop.new_event_loop
    return factories
