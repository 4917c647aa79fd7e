"""Measure the latency of small images alone and while giants are being processed.

    python -m bench.tools.latency [--workers 2] [--giants 4] [--small 1] [--rounds 3]

The clients send small images over version 1, each the next one as soon as it has the reply. The giants are
TIFFs of 1.2 GB and 400 megapixels; each is sent over version 1 by a process of its own, again as soon as it
is answered. The two phases take turns within one run. A small request is counted in the second phase only if
every giant was in progress during all of it; the number of the others and the time of the giants are printed.
Exits with 1 if the ratio of the medians is above ``--most``.
"""

import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.images import image_file
from bench.measuring.server import Server
from bench.tools.threads import run_together
from bench.wire import resize_file_once, resize_once

GIANT = "strip-400mp.tif"
DEADLINE_SECONDS = 600.0  # of the server, so that a giant is answered on a busy machine, too

Interval = tuple[float, float]
"""Start and end of a request in seconds of ``time.monotonic``, which is the same for all processes."""


class Giants:
    """Processes that send the giant again and again during ``in_flight``."""

    def __init__(self, port: int, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._port = port
        self._path = image_file(GIANT)
        self._count = count
        self._over = context.Event()
        self._begun = context.Semaphore(0)
        self._pool = ProcessPoolExecutor(
            count, mp_context=context, initializer=_share, initargs=(self._over, self._begun)
        )

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown()

    @contextmanager
    def in_flight(self) -> Iterator[list[list[Interval]]]:
        """Send until the end of the ``with``; afterwards the list holds the requests of each process."""
        self._over.clear()
        running: list[Future[list[Interval]]] = [
            self._pool.submit(_repeat, self._port, self._path) for _ in range(self._count)
        ]
        for _ in range(self._count):
            self._begun.acquire()
        requests: list[list[Interval]] = []
        try:
            yield requests
        finally:
            self._over.set()
            requests += [process.result() for process in running]


_shared: tuple[Any, Any]  # in each process: the event that ends it, the semaphore that reports its start


def _share(over: Any, begun: Any) -> None:
    global _shared  # noqa: PLW0603 - the only way to pass locks to a process of a pool
    _shared = over, begun


def _repeat(port: int, path: Path) -> list[Interval]:
    over, begun = _shared
    requests = []
    begun.release()
    while not over.is_set():
        start = time.monotonic()
        resize_file_once(port, path, timeout=DEADLINE_SECONDS)
        requests.append((start, time.monotonic()))
    return requests


def measure(port: int, image: bytes, clients: int, seconds: float) -> list[Interval]:
    """Send a small image by so many clients for so many seconds; return their requests.

    Raises ``Refused`` and ``OSError`` if a request fails.
    """
    end = time.monotonic() + seconds
    requests: list[Interval] = []

    def client() -> None:
        while (start := time.monotonic()) < end:
            resize_once(port, image, 200, 150)
            requests.append((start, time.monotonic()))

    run_together([client] * clients)
    return requests


def main(
    workers: Annotated[int, typer.Option(min=1)] = 2,
    giants: Annotated[int, typer.Option(min=1)] = 4,
    small: Annotated[int, typer.Option(min=1, help="Clients that send small images.")] = 1,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Duration of each phase.")] = 15.0,
    most: Annotated[float, typer.Option(help="The highest ratio allowed.")] = 3.0,
) -> None:
    """Print the medians of each round and their ratio."""
    image = image_file("jpeg-0.3mp.jpg").read_bytes()
    ratios = []
    arguments = ("--workers", str(workers), "--deadline", str(DEADLINE_SECONDS), "--log-level", "warning")
    with Server(*arguments) as server, closing(Giants(server.port, giants)) as giant:
        measure(server.port, image, small, 2.0)  # warm-up
        for number in range(rounds):
            alone = measure(server.port, image, small, seconds)
            with giant.in_flight() as theirs:
                time.sleep(0.5)  # until all of them have connected
                asked = measure(server.port, image, small, seconds)
            beside = [one for one in asked if all(_contains(requests, one) for requests in theirs)]
            if len(beside) < 20:
                raise SystemExit(f"only {len(beside)} small requests ran beside all {giants} giants")
            ratios.append(_median(beside) / _median(alone))
            giant_seconds = _median([one for own in theirs for one in own])
            print(
                f"round {number + 1}: alone {_in_ms(alone)}; beside {giants} giants {_in_ms(beside)}, "
                f"{len(asked) - len(beside)} not counted; ratio {ratios[-1]:.2f}; "
                f"{sum(map(len, theirs))} giants in {giant_seconds:.1f} s each",
                flush=True,
            )
    ratio = statistics.median(ratios)
    print(
        f"{workers} workers, {small} clients of 640 × 480 JPEGs: median ratio {ratio:.2f} of {rounds} rounds"
    )
    raise typer.Exit(0 if ratio <= most else 1)


def _contains(requests: Sequence[Interval], one: Interval) -> bool:
    return any(start <= one[0] and one[1] <= end for start, end in requests)


def _median(requests: Sequence[Interval]) -> float:
    return statistics.median(end - start for start, end in requests)


def _in_ms(requests: Sequence[Interval]) -> str:
    took = sorted(end - start for start, end in requests)
    p99 = took[min(len(took) - 1, len(took) * 99 // 100)]
    return f"{_median(requests) * 1e3:.2f} ms (p99 {p99 * 1e3:.1f}, {len(requests)} requests)"


if __name__ == "__main__":
    typer.run(main)
