"""The wish to stop a run, brought from any thread into the event loop of its engine."""

import asyncio
from collections.abc import Callable
from contextlib import suppress


class StopRequest:
    """Is made with an engine, whose ``rows`` calls ``enter_loop`` first.

    ``asked`` is set in the event loop, and then ``act`` is called there.
    """

    def __init__(self, act: Callable[[], None]) -> None:
        self.asked = asyncio.Event()
        self._act = act
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter_loop(self) -> None:
        """From now on the stop is for the running event loop."""
        self._loop = asyncio.get_running_loop()

    def send(self) -> None:
        """Ask for the stop. May be called from any thread."""
        if self._loop is None:
            self.asked.set()
            return
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._arrive)

    def _arrive(self) -> None:
        self.asked.set()
        self._act()
