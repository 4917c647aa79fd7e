"""CPU of the gateway for each request, beside that of a gateway that does nothing but pass bytes on.

    python -m bench.tools.gateway [--workers 2] [--connections 8] [--seconds 3] [--rounds 5]

Version 2, connections that last, each with one request at a time. Both gateways (see ``bare_gateway``) are
asked in turns within one run; the figures are medians of the rounds. Half of what the bare one takes is the
kernel's: receiving the upload, which on the loopback includes the other side's work for its acknowledgements,
and waking the worker.
"""

import statistics
import time
from contextlib import ExitStack
from functools import partial
from typing import Annotated

import typer

from bench.images import image_file
from bench.measuring.processes import cpu_seconds
from bench.measuring.server import Server
from bench.suites.loads import together
from bench.wire import Connection

UPLOADS = {"jpeg-0.3mp.jpg": (200, 150), "jpeg-1.9mp.jpg": (800, 600), "jpeg-12mp.jpg": (800, 600)}
"""50 KB, 0.3 MB and 2.7 MB, and what they are resized to."""

Round = tuple[float, float, float]
"""Milliseconds of CPU of the gateway and of the workers for a request, and requests a second."""


def main(
    workers: Annotated[int, typer.Option(min=1)] = 2,
    connections: Annotated[int, typer.Option(min=1)] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each round.")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
) -> None:
    """Print the medians of both for each upload. Raises ``Refused`` and ``OSError`` where one failed."""
    for name, (width, height) in UPLOADS.items():
        image = image_file(name).read_bytes()
        with ExitStack() as stack:
            servers = {
                "vipsrv": Server("--workers", str(workers), "--log-level", "warning"),
                "bare": Server(str(workers), str(width), str(height), module="bench.baselines.bare_gateway"),
            }
            figures: dict[str, list[Round]] = {which: [] for which in servers}
            for server in servers.values():
                stack.enter_context(server)
            for number in range(rounds + 1):
                for which, server in servers.items():
                    figure = _round(server, image, width, height, connections, seconds)
                    if number:  # the first one warms up
                        figures[which].append(figure)
        for which, of_rounds in figures.items():
            gateway, worker, rate = (statistics.median(column) for column in zip(*of_rounds, strict=True))
            print(
                f"{name}, {len(image) / 1e6:.2f} MB: {which:6} gateway {gateway:.3f} ms, "
                f"{gateway / worker:.1%} of the worker's {worker:.2f} ms; {rate:.0f} requests a second"
            )


def _round(server: Server, image: bytes, width: int, height: int, connections: int, seconds: float) -> Round:
    counts = [0] * connections

    def ask(number: int) -> None:
        with Connection(server.port) as connection:
            while time.monotonic() < ends_at:
                connection.resize(image, width, height)
                counts[number] += 1

    gateway, *pids = server.pids
    before = cpu_seconds(gateway), sum(map(cpu_seconds, pids))
    began = time.monotonic()
    ends_at = began + seconds
    together([partial(ask, number) for number in range(connections)])
    took = time.monotonic() - began  # with the replies that came after the end, which are counted
    done = sum(counts)
    taken = cpu_seconds(gateway) - before[0], sum(map(cpu_seconds, pids)) - before[1]
    return taken[0] / done * 1e3, taken[1] / done * 1e3, done / took


if __name__ == "__main__":
    typer.run(main)
