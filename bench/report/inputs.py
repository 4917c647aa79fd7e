"""Read the JSON files that a report is made from, and detect their kind.

``bench.load --json``, ``bench.tools.compare --json`` and pytest-benchmark's ``--benchmark-json``. Of each,
only the fields that the report shows are required.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.load.record import KIND, Document, from_json


class NotABenchmark(Exception):
    """A file is none of the three kinds, or lacks a field that the report shows."""


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """One row of ``bench.tools.compare``: one server and one image."""

    image: str
    server: str
    requests_per_second: float
    cpu_ms_per_request: float
    ratio_to_bare_loop: float
    output_bytes: int
    ssim: float | None
    input_bytes: int | None = None
    requests_per_second_net: float | None = None
    client_cpu_ms_per_request: float | None = None
    width: int | None = None
    height: int | None = None

    @property
    def throughput(self) -> float:
        """Requests a second, corrected for the clients' use of the server's cores if that is known."""
        net = self.requests_per_second_net
        return self.requests_per_second if net is None else net

    @property
    def is_loop(self) -> bool:
        """Whether this is a loop without clients: a bound, not a server."""
        return self.client_cpu_ms_per_request is None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A file of ``bench.tools.compare``."""

    rows: list[ComparedRow]
    commit: str | None = None
    time: str | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CommitInfo:
    """The commit at which pytest-benchmark ran."""

    id: str
    time: str
    dirty: bool = False


@dataclass(frozen=True, kw_only=True)
class Stats:
    """The statistics of a row's rounds, in seconds."""

    median: float
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One row of a suite; ``extra_info`` as in ``bench.suites.measurement``."""

    name: str
    fullname: str
    stats: Stats
    extra_info: dict[str, Any] = field(default_factory=dict)

    def metric(self, name: str) -> float | None:
        """A number of ``extra_info``; ``None`` if there is none of that name."""
        found = self.extra_info.get(name)
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


@dataclass(frozen=True, kw_only=True)
class Law:
    """How one cost grows; see ``bench.suites.growth``."""

    exponent: float
    error: float | None
    exponent_at_end: float
    each: float

    @property
    def text(self) -> str:
        """The exponent, with the standard error of the fit if there is one."""
        return f"{self.exponent:.2f}" + ("" if self.error is None else f" ± {self.error:.2f}")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One row of the suite: the points of an axis, with a law for each cost."""

    axis: str
    unit: str
    points: list[dict[str, float]]
    growth: dict[str, Law]
    others: float
    claim: str

    def values(self, name: str) -> list[float]:
        """One value of every point."""
        return [point[name] for point in self.points]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A file of pytest-benchmark."""

    benchmarks: list[Benchmark]
    commit_info: CommitInfo
    datetime: str

    def axes(self) -> dict[str, Axis]:
        """The rows that have a growth, by name. Raises ``NotABenchmark`` if one lacks a value."""
        found = {}
        for row in self.benchmarks:
            if "growth" in row.extra_info:
                claim = row.name.removeprefix("test_").replace("_", " ")
                try:
                    found[row.fullname] = _AXIS.validate_python({**row.extra_info, "claim": claim})
                except ValidationError as error:
                    places = (".".join(map(str, one["loc"])) for one in error.errors())
                    raise NotABenchmark(f"{row.name}: {', '.join(places)}: missing or wrong") from None
        return found


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that was read, each with its file."""

    loads: list[tuple[Path, Document]] = field(default_factory=list)
    comparisons: list[tuple[Path, Comparison]] = field(default_factory=list)
    suites: list[tuple[Path, Suite]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """A sentence for each file of a folder that is none of these."""

    def __bool__(self) -> bool:
        return bool(self.loads or self.comparisons or self.suites)


_COMPARISON = TypeAdapter(Comparison)
_SUITE = TypeAdapter(Suite)
_AXIS = TypeAdapter(Axis)


def read(paths: Iterable[Path]) -> Inputs:
    """Read all files, and all ``.json`` files of all folders.

    Raises ``OSError``, and ``NotABenchmark`` for a file that was named itself.
    """
    inputs = Inputs()
    for path, named in _files(paths):
        try:
            found = parse(path.read_bytes())
        except NotABenchmark as error:
            if named:
                raise NotABenchmark(f"{path}: {error}") from None
            inputs.skipped.append(f"{path} is left out: {error}")
            continue
        if isinstance(found, Document):
            inputs.loads.append((path, found))
        elif isinstance(found, Comparison):
            inputs.comparisons.append((path, found))
        else:
            inputs.suites.append((path, found))
    return inputs


def parse(data: bytes) -> Document | Comparison | Suite:
    """Parse one file. Raises ``NotABenchmark``."""
    try:
        content = json.loads(data)
    except ValueError as error:
        raise NotABenchmark(f"not JSON: {error}") from None
    if not isinstance(content, dict):
        raise NotABenchmark("JSON, but no object")
    try:
        if content.get("kind") == KIND:
            return from_json(data)
        if "benchmarks" in content:
            suite = _SUITE.validate_python(content)
            suite.axes()  # checks the rows of growth, which other rows are not
            return suite
        if "rows" in content:
            return _COMPARISON.validate_python(content)
    except ValidationError as error:
        raise NotABenchmark(str(error)) from None
    raise NotABenchmark("none of bench.load, bench.tools.compare and pytest-benchmark wrote this")


def _files(paths: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield each file, and whether it was named itself."""
    for path in paths:
        if path.is_dir():
            yield from ((found, False) for found in sorted(path.rglob("*.json")))
        else:
            yield path, True
