"""The rates of a batch, and one line that says how far it has come."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from vipsrv.batch.progress import Progress
from vipsrv.cli.quantities import duration, size

RECENT_SECONDS = 60.0
"""The span over which the rates are taken: long enough that a large image does not change them much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The progress of a run and its rates: images and bytes of sources a second over the last minute.

    ``elapsed`` and ``seconds_left`` are seconds; the latter is ``None`` while it cannot be known.
    """

    progress: Progress
    elapsed: float
    images_per_second: float
    bytes_per_second: float

    @property
    def ratio(self) -> float | None:
        """How many times smaller the results of an image are than the image, all of them together."""
        return self.progress.bytes_in / self.progress.bytes_out if self.progress.bytes_out else None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the present rate."""
        left = self.progress.left
        return left / self.images_per_second if left is not None and self.images_per_second else None

    def line(self) -> str:
        """Return all of it as one line."""
        now = self.progress
        left = "more to be listed" if now.left is None else f"{now.left:,} left"
        if now.left and self.seconds_left is not None:
            left += f", about {duration(self.seconds_left)}"
        counts = (
            f"{now.done:,} done, {now.failures:,} failed, {now.skipped:,} skipped of {now.listed:,} listed"
        )
        words = [
            f"{counts}, {left}",
            f"{self.images_per_second:.1f} images/s, {self.bytes_per_second / 1e6:.1f} MB/s",
            *([] if self.ratio is None else [f"ratio {ratio_text(self.ratio)}"]),
            f"{now.in_flight:,} in flight",
            f"after {duration(self.elapsed)}",
        ]
        return "; ".join(words)


class RateMeter:
    """Takes the progress of a run from time to time and knows its rates."""

    def __init__(self, progress: Callable[[], Progress], clock: Callable[[], float] = time.monotonic) -> None:
        self._progress = progress
        self._clock = clock
        self._started = clock()
        self._seen: deque[tuple[float, int, int]] = deque([(self._started, 0, 0)])

    def read(self) -> Figures:
        """Return the figures at this moment."""
        now, at = self._progress(), self._clock()
        ended = now.done + now.failures
        while len(self._seen) > 1 and self._seen[1][0] <= at - RECENT_SECONDS:
            self._seen.popleft()
        since, images, read = self._seen[0]
        # Ten readings a second of a screen would otherwise be kept.
        if at - self._seen[-1][0] >= 1:
            self._seen.append((at, ended, now.bytes_in))
        seconds = at - since
        return Figures(
            progress=now,
            elapsed=at - self._started,
            images_per_second=(ended - images) / seconds if seconds > 0 else 0.0,
            bytes_per_second=(now.bytes_in - read) / seconds if seconds > 0 else 0.0,
        )


def ratio_text(ratio: float) -> str:
    """Return a ratio with three significant digits."""
    return f"{ratio:.3g}" if ratio < 1000 else f"{ratio:,.0f}"  # noqa: PLR2004 - where %g changes its form


def bytes_text(before: int, after: int) -> str:
    """Return the bytes of images and of their results, and the ratio."""
    text = f"{size(before)} → {size(after)}"
    return f"{text} (ratio {ratio_text(before / after)})" if after else text
