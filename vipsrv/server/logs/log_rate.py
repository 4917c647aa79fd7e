"""Limits how many log lines of one kind are written in a second, and counts the lines that are left out."""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

_Kind = TypeVar("_Kind", bound=Hashable)

MOST_A_SECOND = 10
"""Lines of one kind that are written in one second, unless the caller allows another number."""

MOST_KINDS = 256
"""Kinds that are counted separately; the lines of further kinds are counted together."""

QUIET_SECONDS = 1.0
"""A flood of lines has ended when none of its kind has come for so long."""

LONGEST_SECONDS = 10.0
"""A flood that lasts longer is counted in parts of this length, so that it is seen while it lasts."""


class LeftOut(NamedTuple):
    """Lines of one kind that were not written."""

    lines: int
    seconds: float
    """From the first line of the flood, which was written, to its last one."""


@dataclass(slots=True)
class _Window:
    started: float
    ends: float
    most: int
    lines: int = 0
    last: float = 0.0


class LogRate(Generic[_Kind]):
    """Decides which lines are written. ``now`` is always a time of ``time.monotonic()``.

    The first line of a kind opens a window of one second, in which ``most`` lines are admitted. If there are
    more, they are counted, and the window stays open until a second has passed without a line, for
    ``LONGEST_SECONDS`` at most: a flood is a few lines and one count. ``rest`` stands for all kinds beyond
    ``MOST_KINDS``.
    """

    def __init__(self, rest: _Kind) -> None:
        self._rest = rest
        self._windows: dict[_Kind, _Window] = {}
        self._first_end = math.inf  # no window ends earlier
        self._left_out: dict[_Kind, LeftOut] = {}  # in windows that have ended
        self.left_out = 0
        """How many lines were not admitted since the start."""

    def admit(self, kind: _Kind, now: float, most: int = MOST_A_SECOND) -> bool:
        """Count a line of ``kind``, and return whether to write it."""
        if kind not in self._windows and len(self._windows) >= MOST_KINDS:
            self._end_windows(now)
            if len(self._windows) >= MOST_KINDS:
                kind = self._rest
        window = self._windows.get(kind)
        if window is None or now >= window.ends:
            if window is not None:
                self._count(kind, window)
            window = self._windows[kind] = _Window(started=now, ends=now + QUIET_SECONDS, most=most)
            self._first_end = min(self._first_end, window.ends)
        window.lines += 1
        window.last = now
        if window.lines <= window.most:
            return True
        self.left_out += 1
        window.ends = min(window.started + LONGEST_SECONDS, now + QUIET_SECONDS)
        return False

    def take_left_out(self, now: float) -> dict[_Kind, LeftOut]:
        """Return what was left out of each kind in the windows that have ended, and forget it.

        ``math.inf`` ends all windows.
        """
        self._end_windows(now)
        left_out, self._left_out = self._left_out, {}
        return left_out

    def next_end(self) -> float:
        """Return the time before which no window ends; infinite if none is open."""
        return self._first_end

    def _end_windows(self, now: float) -> None:
        if now < self._first_end:  # a flood from many clients would look at all windows for each line
            return
        for kind, window in list(self._windows.items()):
            if now >= window.ends:
                self._count(kind, window)
                del self._windows[kind]
        self._first_end = min((window.ends for window in self._windows.values()), default=math.inf)

    def _count(self, kind: _Kind, window: _Window) -> None:
        if window.lines > window.most:
            lines, seconds = self._left_out.get(kind, (0, 0.0))
            self._left_out[kind] = LeftOut(
                lines + window.lines - window.most, seconds + window.last - window.started
            )
