"""A line on a terminal that shows the progress of a run."""

import sys
import time
from typing import TextIO

_EVERY_SECONDS = 0.2


class Progress:
    """Rewrites its line at most five times a second; writes nothing if ``stream`` is not a terminal."""

    def __init__(
        self, label: str, *, duration: float | None, count: int | None, stream: TextIO = sys.stderr
    ) -> None:
        self._label = label
        self._duration = duration
        self._count = count
        self._stream = stream
        self._shown = stream.isatty()
        self._last = (time.monotonic(), 0)
        self._width = 0

    def show(self, seconds: float, results: int, errors: int) -> None:
        """Show the seconds since the start and the replies so far."""
        now = time.monotonic()
        before, then = self._last
        if not self._shown or now - before < _EVERY_SECONDS:
            return
        rate = (results + errors - then) / (now - before)
        self._last = now, results + errors
        if self._duration is not None:
            share = f"{min(seconds, self._duration):.0f} of {self._duration:g} s"
        else:
            share = f"{results + errors} of {self._count}"
        self._write(f"{self._label}: {share}, {results} results, {errors} errors, {rate:.0f}/s")

    def end(self) -> None:
        """Erase the line."""
        if self._shown:
            self._write("")
            self._stream.write("\r")
            self._stream.flush()

    def _write(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)
