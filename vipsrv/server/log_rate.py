"""Limits how many log lines of one kind are written in a second, and counts the lines that are left out."""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

_Kind = TypeVar("_Kind", bound=Hashable)

MOST_A_SECOND = 10
"""Lines of one kind that are written in one second."""

MOST_KINDS = 256
"""Kinds that are counted separately; the lines of further kinds are counted together."""

_SECONDS = 1.0


@dataclass(slots=True)
class _Window:
    ends: float
    lines: int = 0


class LogRate(Generic[_Kind]):
    """Decides which lines are written. ``now`` is always a time of ``time.monotonic()``.

    The first line of a kind opens a window of one second. The first ``MOST_A_SECOND`` lines in it are
    admitted; the others are counted. ``rest`` stands for all kinds beyond ``MOST_KINDS``.
    """

    def __init__(self, rest: _Kind) -> None:
        self._rest = rest
        self._windows: dict[_Kind, _Window] = {}
        self._left_out: dict[_Kind, int] = {}  # in windows that have ended

    def admit(self, kind: _Kind, now: float) -> bool:
        """Count a line of ``kind``, and return whether to write it."""
        if kind not in self._windows and len(self._windows) >= MOST_KINDS:
            self._end_windows(now)
            if len(self._windows) >= MOST_KINDS:
                kind = self._rest
        window = self._windows.get(kind)
        if window is None or now >= window.ends:
            if window is not None:
                self._count(kind, window)
            window = self._windows[kind] = _Window(ends=now + _SECONDS)
        window.lines += 1
        return window.lines <= MOST_A_SECOND

    def take_left_out(self, now: float) -> dict[_Kind, int]:
        """Return how many lines of each kind were left out in the windows that have ended, and forget them.

        ``math.inf`` ends all windows.
        """
        self._end_windows(now)
        left_out, self._left_out = self._left_out, {}
        return left_out

    def next_end(self) -> float:
        """Return the time at which the next window ends; infinite if none is open."""
        return min((window.ends for window in self._windows.values()), default=math.inf)

    def _end_windows(self, now: float) -> None:
        for kind, window in list(self._windows.items()):
            if now >= window.ends:
                self._count(kind, window)
                del self._windows[kind]

    def _count(self, kind: _Kind, window: _Window) -> None:
        if window.lines > MOST_A_SECOND:
            self._left_out[kind] = self._left_out.get(kind, 0) + window.lines - MOST_A_SECOND
