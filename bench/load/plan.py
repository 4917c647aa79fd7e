"""The plan of a load: the images with their weights, and all settings of the generator processes."""

import mmap
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from bench.wire import resize_head, version_1_head

_SEQUENCE = 4096
"""How many choices of a mix are drawn before the sequence repeats."""


@dataclass(frozen=True, slots=True)
class Source:
    """An image to send. Each image of a mix is sent in proportion to its weight."""

    name: str
    path: Path
    size: int
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of one run. Times are in seconds; ``rate`` is a second, ``None`` for a closed loop."""

    host: str
    port: int
    sources: tuple[Source, ...]
    protocol: int = 1
    connections: int = 8
    pipeline: int = 1
    width: int = 800
    height: int = 600
    rate: float | None = None
    warmup: float = 0.0
    duration: float | None = None
    count: int | None = None
    timeout: float = 60.0
    """How long to wait without any reply before the requests in flight are given up."""
    expected_interval: float | None = None
    seed: int = 1


def choices(sources: tuple[Source, ...], seed: int) -> Iterator[int]:
    """Draw indices of ``sources`` by weight without end; the same ones for the same seed."""
    weights = [source.weight for source in sources]
    drawn = random.Random(seed).choices(range(len(sources)), weights, k=_SEQUENCE)
    return cycle([0] if len(sources) == 1 else drawn)


class Requests:
    """The bytes of all requests, built once: the head, and the image.

    Images are mapped, not read, so that the processes share their pages and large ones take no memory.
    """

    def __init__(self, plan: Plan) -> None:
        self._version_1 = plan.protocol == 1
        self._bodies = [_mapped(source.path) for source in plan.sources]
        lanes = range(plan.pipeline)
        self._heads = [
            [version_1_head(source.size, plan.width, plan.height)]
            if self._version_1
            else [resize_head(lane + 1, source.size, plan.width, plan.height) for lane in lanes]
            for source in plan.sources
        ]

    def parts(self, source: int, lane: int) -> tuple[bytes, memoryview]:
        """The head and body of a request for this image on this lane."""
        return self._heads[source][0 if self._version_1 else lane], self._bodies[source]


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
