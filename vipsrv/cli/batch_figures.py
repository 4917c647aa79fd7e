"""The rates of a batch, and one line that says how far it has come."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from vipsrv.batch.progress import Progress
from vipsrv.batch.report.texts import ratio_text
from vipsrv.cli.quantities import duration, size

RECENT_SECONDS = 60.0
"""The span over which the rates are taken: long enough that a large image does not change them much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The progress of a run and its rates: images and bytes of sources a second over the last minute.

    ``total`` is how many images there are, if that is known before all are listed; ``limit`` is the most that
    are done. ``elapsed`` is seconds.
    """

    progress: Progress
    total: int | None
    limit: int | None
    elapsed: float
    images_per_second: float
    bytes_per_second: float

    @property
    def ratio(self) -> float | None:
        """How many times smaller the results of an image are than the image, all of them together."""
        return self.progress.bytes_in / self.progress.bytes_out if self.progress.bytes_out else None

    @property
    def known_total(self) -> int | None:
        """How many images there are, skipped ones included, as soon as that is known."""
        return self.progress.listed if self.progress.listing_done else self.total

    @property
    def left(self) -> int | None:
        """How many are to be done at most, or ``None`` while that is not known."""
        now, left = self.progress, self.progress.left
        if left is None and self.total is not None:
            left = max(0, self.total - now.skipped - now.done - now.failures)
        if left is not None and self.limit is not None:
            left = min(left, max(0, self.limit - now.done - now.failures))
        return left

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the present rate; ``None`` while that is not known."""
        return (
            self.left / self.images_per_second if self.left is not None and self.images_per_second else None
        )

    def line(self) -> str:
        """Return all of it as one line."""
        now = self.progress
        left = "more to be listed" if self.left is None else f"{self.left:,} left"
        if self.left and self.seconds_left is not None:
            left += f", about {duration(self.seconds_left)}"
        images = f"{now.listed:,} listed" if self.known_total is None else f"{self.known_total:,}"
        counts = f"{now.done:,} done, {now.failures:,} failed, {now.skipped:,} skipped of {images}"
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

    def __init__(
        self,
        progress: Callable[[], Progress],
        *,
        total: Callable[[], int | None] = lambda: None,
        limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress = progress
        self._total = total
        self._limit = limit
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
            total=self._total(),
            limit=self._limit,
            elapsed=at - self._started,
            images_per_second=(ended - images) / seconds if seconds > 0 else 0.0,
            bytes_per_second=(now.bytes_in - read) / seconds if seconds > 0 else 0.0,
        )


def bytes_text(before: int, after: int) -> str:
    """Return the bytes of images and of their results, and the ratio."""
    text = f"{size(before)} → {size(after)}"
    return f"{text} (ratio {ratio_text(before / after)})" if after else text
