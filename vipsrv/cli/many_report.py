"""What became of many images: an outcome for each, their sum, and both as text and as JSON."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from vipsrv.cli.exit_codes import error_fields, reason_of
from vipsrv.cli.quantities import size
from vipsrv.cli.result_report import path_fields
from vipsrv.client import ResizedImage
from vipsrv.options import ImageInfo, Timings
from vipsrv.printable import printable

MOST_LISTED = 1000
"""Failures that are listed at the end; ``--json`` tells all of them."""


class Ending(StrEnum):
    """How an image ended."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class SavedResult:
    """A result in its file. ``width`` and ``height`` are pixels as the server states them."""

    saved: str
    width: int
    height: int
    format: str
    quality: int
    result_bytes: int
    ratio: float

    @classmethod
    def of(cls, result: ResizedImage, path: Path) -> "SavedResult":
        """Make that of a result that was saved at ``path``."""
        size = len(result.data)
        ratio = round(result.ratio, 3)
        return cls(str(path), result.width, result.height, result.format, result.quality, size, ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutcome:
    """What became of one image of ``size`` bytes. ``attempts`` counts requests; ``seconds`` is for all of it.

    ``results`` are those that were saved, and ``error`` is why it failed.
    """

    image: Path
    ending: Ending
    size: int = 0
    results: tuple[SavedResult, ...] = ()
    source: ImageInfo | None = None
    timings: Timings | None = None
    attempts: int = 0
    seconds: float = 0.0
    error: Exception | None = None

    @property
    def reason(self) -> str:
        """Why it failed, with the file that the error is about if that is another one, such as a result."""
        if self.error is None:
            return ""
        reason, file = reason_of(self.error), getattr(self.error, "filename", None)
        if isinstance(file, str) and file != str(self.image):
            return f"{file}: {reason}"
        return reason

    def to_json(self) -> dict[str, Any]:
        """Return the outcome for a line of JSON; the names are those of the report of a single image."""
        source, saved = self.source, sum(result.result_bytes for result in self.results)
        return {
            **path_fields("image", str(self.image)),
            "state": self.ending.value,
            "original_bytes": self.size,
            "original": None
            if source is None
            else {"width": source.width, "height": source.height, "format": source.format},
            "result_bytes": saved,
            "ratio": round(self.size / saved, 3) if saved else None,
            "server_ms": None if self.timings is None else asdict(self.timings),
            "total_seconds": round(self.seconds, 6),
            "attempts": self.attempts,
            "outputs": [asdict(result) | path_fields("saved", result.saved) for result in self.results],
            "error": None if self.error is None else error_fields(self.reason, self.error),
        }


@dataclass(slots=True)
class Tally:
    """The sum of the outcomes so far. ``started`` is by ``time.monotonic``; ``left_out`` counts results of
    earlier runs that were not taken for images.
    """

    started: float = field(default_factory=time.monotonic)
    done: int = 0
    failed: int = 0
    skipped: int = 0
    results: int = 0
    original_bytes: int = 0
    result_bytes: int = 0
    left_out: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """The images that are done, failed or skipped."""
        return self.done + self.failed + self.skipped

    @property
    def seconds(self) -> float:
        """The seconds since the start."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Images a second that were done or have failed."""
        return (self.done + self.failed) / max(self.seconds, 1e-6)

    @property
    def ratio(self) -> float | None:
        """The bytes of the images that are done divided by those of their results, if there are any."""
        return self.original_bytes / self.result_bytes if self.result_bytes else None

    def add(self, outcome: ImageOutcome) -> None:
        """Count an outcome."""
        match outcome.ending:
            case Ending.DONE:
                self.done += 1
                self.original_bytes += outcome.size
                self.results += len(outcome.results)
                self.result_bytes += sum(result.result_bytes for result in outcome.results)
            case Ending.SKIPPED:
                self.skipped += 1
            case Ending.FAILED:
                self.failed += 1
                if outcome.error is not None and len(self.failures) < MOST_LISTED:
                    self.failures.append((str(outcome.image), outcome.reason))

    def seconds_left(self, total: int | None) -> float | None:
        """Return how long the rest of ``total`` images takes at the rate so far, if both are known."""
        if total is None or not self.done + self.failed:
            return None
        return max(0, total - self.ended) / self.rate

    def lines(self) -> Iterator[str]:
        """Return lines of text, each with a name and a value."""
        images = f"{self.done} image{'' if self.done == 1 else 's'}"
        yield _row("done", images if self.results == self.done else f"{images}, {self.results} results")
        if self.skipped:
            yield _row("skipped", f"{self.skipped}, whose results exist")
        if self.failed:
            yield _row("failed", str(self.failed))
        if self.left_out:
            yield _row("left out", f"{self.left_out} with the name of a result of an earlier run")
        yield _row("total time", f"{self.seconds:.2f} s  ({self.rate:.1f} images a second)")
        yield _row("original size", size(self.original_bytes))
        yield _row("size of results", size(self.result_bytes))
        if self.ratio is not None:
            yield _row("compression ratio", f"{self.ratio:.2f} : 1")

    def failure_lines(self) -> Iterator[str]:
        """Return a line for each failure, as far as they are kept."""
        for image, reason in self.failures:
            yield printable(f"{image}: {reason}")
        if self.failed > len(self.failures):
            yield f"and {self.failed - len(self.failures)} more; --json tells all of them"


def outcome_line(outcome: ImageOutcome) -> str:
    """Return an outcome as a line of JSON, without its end."""
    return json.dumps(outcome.to_json())


def _row(name: str, value: str) -> str:
    return f"{name:<21} {value}"
