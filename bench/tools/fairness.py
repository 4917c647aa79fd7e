"""Measure what one greedy client leaves to others.

    python -m bench.tools.fairness [--scenario pipelining] [--workers 2] [--rounds 3] [--seconds 4]

Four clients at addresses of their own (127.0.0.2 to 127.0.0.5) send small images, each the next one as soon
as it has the reply. Each round has a phase with them alone and one with a greedy client beside them; which of
them is first alternates:

================ ======================================================================================
``pipelining``   one connection from 127.0.0.9 keeps 32 requests in flight, JPEG → PNG of 1500 × 1500
``one-address``  the same, but all clients have the address 127.0.0.2, so that only the connection differs
``announcing``   518 connections from 127.0.0.9 announce an image of 4 MB each and send 13 bytes of it
``idling``       4,096 connections from 127.0.0.9 that have sent a PING, and nothing since
================ ======================================================================================

Prints the throughput and the median latency of the four, relative to the phases without the greedy client in
the same run. A client that computes takes its share of the workers: four of five shares are left to the four.
The throughput of the first two scenarios is relative to that fair share; the others take none. A request of
the four that is refused does not count. Exits with 1 if a ratio misses its limit.
"""

import errno
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from math import inf
from typing import Annotated

import typer

from bench.images import image_file
from bench.measuring.open_files import allow_open_files
from bench.measuring.server import Server
from bench.tools.threads import run_together
from bench.wire import Connection, Refused
from vipsrv.protocol import Kind, pack_message

GREEDY = "127.0.0.9"
PIPELINED = 32
ANNOUNCING, ANNOUNCED_BYTES, SENT_BYTES = 518, 4_000_000, 13
IDLING = 4096
_REFUSED_PAUSE = 0.1
_OPEN_FILES = IDLING + 256

SHARED_ADDRESS = ("127.0.0.2",) * 4
OWN_ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")


class Scenario(StrEnum):
    """What the greedy client does; see the table above."""

    PIPELINING = "pipelining"
    ONE_ADDRESS = "one-address"
    ANNOUNCING = "announcing"
    IDLING = "idling"


@dataclass(frozen=True)
class Trial:
    """One scenario: the addresses of the four, the greedy client, and the limits of the ratios.

    ``share`` is the part of the workers that is the four's while the greedy client is there.
    """

    addresses: tuple[str, ...]
    greedy: Callable[[int], "_Greedy"]
    share: float
    least_throughput: float
    most_latency: float


@dataclass(frozen=True)
class Phase:
    """What the four got in one phase: replies a second, the median seconds of a request, and refusals."""

    rate: float
    median: float
    refused: int


class _Greedy:
    """A client that takes what it can until ``close``. ``done`` counts its replies."""

    done = 0
    connected = 1
    """How many of its connections it could open."""

    def close(self) -> None:
        """End it."""
        raise NotImplementedError


class _Pipelining(_Greedy):
    """Keeps ``PIPELINED`` requests in flight on one connection from ``address``."""

    def __init__(self, port: int, *, address: str) -> None:
        self._image = image_file("jpeg-1mp.jpg").read_bytes()
        self._connection = Connection(port, source=address)
        self._over = threading.Event()
        for _ in range(PIPELINED):
            self._ask()
        self._thread = ThreadPoolExecutor(1)
        self._running = self._thread.submit(self._run)

    def close(self) -> None:
        """End it; raises what went wrong on the way."""
        self._over.set()
        self._thread.shutdown()
        self._connection.close()
        self._running.result()

    def _ask(self) -> None:
        self._connection.send(self._image, 1500, 1500, format="png")

    def _run(self) -> None:
        while not self._over.is_set():
            self._connection.receive()
            self.done += 1
            self._ask()


class _ManyConnections(_Greedy):
    """Holds ``count`` connections from ``GREEDY``, each of which has sent ``first`` and gets no further.

    Those that the server refuses or closes are gone; that is no error.
    """

    def __init__(self, port: int, *, count: int, first: bytes) -> None:
        self._connections = []
        for _ in range(count):
            try:
                connection = Connection(port, source=GREEDY)
                self._connections.append(connection)
                connection.send_bytes(first)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):  # that is no refusal of the server
                    raise
        self.connected = len(self._connections)

    def close(self) -> None:
        """Close them."""
        for connection in self._connections:
            connection.close()


def _announcing(port: int) -> _Greedy:
    head = pack_message(Kind.RESIZE, 1, {"width": 9, "height": 9}, body_size=ANNOUNCED_BYTES)
    return _ManyConnections(port, count=ANNOUNCING, first=head + bytes(SENT_BYTES))


def _idling(port: int) -> _Greedy:
    return _ManyConnections(port, count=IDLING, first=pack_message(Kind.PING, 1, {}))


TRIALS = {
    Scenario.PIPELINING: Trial(OWN_ADDRESSES, partial(_Pipelining, address=GREEDY), 4 / 5, 0.8, 2.5),
    Scenario.ONE_ADDRESS: Trial(
        SHARED_ADDRESS, partial(_Pipelining, address=SHARED_ADDRESS[0]), 4 / 5, 0.8, 2.5
    ),
    Scenario.ANNOUNCING: Trial(OWN_ADDRESSES, _announcing, 1.0, 0.95, 1.5),
    Scenario.IDLING: Trial(OWN_ADDRESSES, _idling, 1.0, 0.95, 1.5),
}


def main(
    scenario: Annotated[
        list[Scenario] | None, typer.Option(help="By default all, one after another.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Duration of each phase.")] = 4.0,
) -> None:
    """Print the ratios of each scenario; exits with 1 if one misses its limit."""
    allow_open_files(_OPEN_FILES)
    image = image_file("jpeg-0.3mp.jpg").read_bytes()
    passed = True
    for one in scenario or list(Scenario):
        with Server("--workers", str(workers), "--log-level", "error") as server:
            passed &= _try(one, TRIALS[one], server.port, image, rounds, seconds)
    raise typer.Exit(0 if passed else 1)


def _try(name: Scenario, trial: Trial, port: int, image: bytes, rounds: int, seconds: float) -> bool:
    """Run a scenario and print its ratios; return whether they are within its limits."""
    _measure(port, trial.addresses, image, 1.0)  # warm-up
    throughput, latency = [], []
    for number in range(rounds):
        first = _measure(port, trial.addresses, image, seconds) if number % 2 == 0 else None
        with _beside(trial.greedy, port) as greedy:
            beside = _measure(port, trial.addresses, image, seconds)
            done = greedy.done
        alone = first or _measure(port, trial.addresses, image, seconds)
        throughput.append(beside.rate / (alone.rate * trial.share) if alone.rate else 0.0)
        latency.append(beside.median / alone.median if alone.rate else inf)
        print(
            f"{name}, round {number + 1}: alone {_text(alone)}; beside {_text(beside)}, "
            f"the greedy client {done / seconds:.1f} a second on {greedy.connected} connections; "
            f"of the fair share {throughput[-1]:.2f}, "
            f"latency × {latency[-1]:.2f}",
            flush=True,
        )
    share, slower = statistics.median(throughput), statistics.median(latency)
    print(
        f"{name}: {share:.2f} of the fair share (at least {trial.least_throughput}), "
        f"median latency × {slower:.2f} (at most {trial.most_latency})"
    )
    return share >= trial.least_throughput and slower <= trial.most_latency


@contextmanager
def _beside(greedy: Callable[[int], _Greedy], port: int) -> Iterator[_Greedy]:
    one = greedy(port)
    try:
        yield one
    finally:
        one.close()


def _measure(port: int, addresses: tuple[str, ...], image: bytes, seconds: float) -> Phase:
    """Send small images from each address for some seconds. A client whose connection is closed ends."""
    took: list[float] = []
    refused: list[Refused | OSError] = []
    ends_at = time.monotonic() + seconds

    def ask(address: str) -> None:
        try:
            with Connection(port, source=address) as connection:
                while (start := time.monotonic()) < ends_at:
                    try:
                        connection.resize(image, 200, 150)
                        took.append(time.monotonic() - start)
                    except Refused as error:
                        refused.append(error)
                        time.sleep(_REFUSED_PAUSE)
        except OSError as error:
            refused.append(error)

    run_together([partial(ask, address) for address in addresses])
    return Phase(len(took) / seconds, statistics.median(took) if took else inf, len(refused))


def _text(phase: Phase) -> str:
    refused = f", {phase.refused} refused" if phase.refused else ""
    return f"{phase.rate:.0f} a second, {phase.median * 1e3:.1f} ms{refused}"


if __name__ == "__main__":
    typer.run(main)
