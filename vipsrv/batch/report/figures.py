"""The figures of all rows of a destination, counted part by part in bounded memory."""

import asyncio
import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from vipsrv.batch.manifest.journal import ShardFacts
from vipsrv.batch.manifest.latest_rows import latest_parts
from vipsrv.batch.manifest.layout import PARTS
from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.manifest.parts import Part, arrow, rows_of_table
from vipsrv.batch.report.histogram import Histogram
from vipsrv.batch.rows import OK, Row
from vipsrv.errors import BatchError

SLOWEST = 20
"""Images that are listed as the slowest."""

FAILURES_OF_A_CODE = 50
"""Failures that are listed for each code."""

CODES_LISTED = 100
"""Codes whose failures are listed: a manifest that somebody has tampered with could have any number."""


@dataclass(slots=True)
class RunFigures:
    """What a run has done: images by whether they failed, and when (milliseconds since the epoch)."""

    done: int = 0
    failed: int = 0
    first_ended: int = 0
    last_ended: int = 0


@dataclass(slots=True)
class FormatFigures:
    """The results of one format."""

    results: int = 0
    bytes: int = 0
    pixels: int = 0


@dataclass(slots=True)
class OptionsFigures:
    """A set of options: what the manifest says of it, and how many images were done with it."""

    facts: ShardFacts
    done: int = 0
    failed: int = 0


@dataclass(slots=True)
class Figures:
    """The figures of a destination. Bytes, ratios and times are those of the images that are done."""

    parts: int = 0
    done: int = 0
    results: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    failed: Counter[tuple[int, str]] = field(default_factory=Counter)
    """By status and code."""
    formats: dict[str, FormatFigures] = field(default_factory=lambda: defaultdict(FormatFigures))
    runs: dict[str, RunFigures] = field(default_factory=lambda: defaultdict(RunFigures))
    options: dict[str, OptionsFigures] = field(default_factory=dict)
    ratios: Histogram = field(default_factory=Histogram)
    """Bytes of all results of an image, per byte of the image."""
    ms: Histogram = field(default_factory=Histogram)
    slowest: list[Row] = field(default_factory=list)
    """The slowest first."""
    failures: dict[str, list[Row]] = field(default_factory=dict)
    """Some of each code."""

    @property
    def failures_count(self) -> int:
        """How many images have failed."""
        return self.failed.total()

    @property
    def ratio(self) -> float | None:
        """The bytes of the images divided by those of their results, if there are any."""
        return self.bytes_in / self.bytes_out if self.bytes_out else None


async def figures_of(manifest: Manifest, *, options: str | None = None) -> Figures:
    """Read a manifest and return its figures, of all options or those with one digest."""
    counting = _Counting()
    async for part in latest_parts(manifest, options=options):
        await asyncio.to_thread(counting.add, part)
    return counting.figures


class _Counting:
    def __init__(self) -> None:
        self.figures = Figures()
        self._slowest: list[tuple[float, int, Row]] = []
        self._added = 0
        arrow()
        import pyarrow.compute as pc  # noqa: PLC0415 - slow to load, and an extra

        self._pc = pc

    def add(self, part: Part) -> None:
        """Count the rows of a part. Raises ``BatchError`` if they have numbers that cannot be."""
        try:
            self._add(part)
        except arrow().ArrowException as error:
            raise BatchError(f"{PARTS}{part.facts.shard}: its numbers cannot be counted: {error}") from None

    def _add(self, part: Part) -> None:
        figures, pc = self.figures, self._pc
        figures.parts += 1
        table = part.table
        is_ok = pc.equal(table["code"], OK)
        done, failed = table.filter(is_ok), table.filter(pc.invert(is_ok))
        known = figures.options.setdefault(part.facts.options, OptionsFigures(part.facts))
        known.done += done.num_rows
        known.failed += failed.num_rows
        self._count_runs(done, failed)
        self._count_done(done)
        self._count_failed(failed)
        self._keep_slowest(table)

    def _count_runs(self, done: Any, failed: Any) -> None:
        for table, is_done in ((done, True), (failed, False)):
            if not table.num_rows:
                continue
            ended = table.append_column("at", table["ended"].cast("int64")).group_by("run")
            for one in ended.aggregate([("at", "min"), ("at", "max"), ("at", "count")]).to_pylist():
                run = self.figures.runs[one["run"]]
                if is_done:
                    run.done += one["at_count"]
                else:
                    run.failed += one["at_count"]
                run.first_ended = min(run.first_ended or one["at_min"], one["at_min"])
                run.last_ended = max(run.last_ended, one["at_max"])

    def _count_done(self, table: Any) -> None:
        figures, pc = self.figures, self._pc
        if not table.num_rows:
            return
        figures.done += table.num_rows
        figures.bytes_in += pc.sum(table["bytes"]).as_py()
        figures.ms.add(table["ms"])
        outputs = pc.list_flatten(table["outputs"])
        of_image = pc.list_parent_indices(table["outputs"])
        results = arrow().table(
            {
                "image": of_image,
                "format": pc.struct_field(outputs, "format"),
                "bytes": pc.struct_field(outputs, "bytes"),
                "pixels": pc.multiply(pc.struct_field(outputs, "width"), pc.struct_field(outputs, "height")),
            }
        )
        figures.results += results.num_rows
        sums = results.group_by("format").aggregate([("bytes", "sum"), ("pixels", "sum"), ("bytes", "count")])
        for one in sums.to_pylist():
            known = figures.formats[one["format"]]
            known.results += one["bytes_count"]
            known.bytes += one["bytes_sum"]
            known.pixels += one["pixels_sum"]
            figures.bytes_out += one["bytes_sum"]
        by_image = results.group_by("image").aggregate([("bytes", "sum")])
        of_source = table["bytes"].take(by_image["image"])
        figures.ratios.add(
            pc.divide(by_image["bytes_sum"].cast("double"), pc.max_element_wise(of_source, 1).cast("double"))
        )

    def _count_failed(self, table: Any) -> None:
        figures = self.figures
        if not table.num_rows:
            return
        for one in table.group_by(["status", "code"]).aggregate([("ms", "count")]).to_pylist():
            figures.failed[one["status"], one["code"]] += one["ms_count"]
            kept = figures.failures.get(one["code"])
            if kept is None and len(figures.failures) >= CODES_LISTED:
                continue
            kept = figures.failures.setdefault(one["code"], [])
            if len(kept) < FAILURES_OF_A_CODE:
                same = table.filter(self._pc.equal(table["code"], one["code"]))
                kept += rows_of_table(same.slice(0, FAILURES_OF_A_CODE - len(kept)))

    def _keep_slowest(self, table: Any) -> None:
        if not table.num_rows:
            return
        order = self._pc.select_k_unstable(
            table, min(SLOWEST, table.num_rows), sort_keys=[("ms", "descending")]
        )
        for row in rows_of_table(table.take(order)):
            self._added += 1
            self._slowest.append((row.ms, -self._added, row))
        self._slowest = heapq.nlargest(SLOWEST, self._slowest)
        self.figures.slowest = [row for _, _, row in self._slowest]
