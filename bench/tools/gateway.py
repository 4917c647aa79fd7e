"""Compare the gateway's CPU time per request with that of a gateway that only passes bytes on.

    python -m bench.tools.gateway [--workers 2] [--connections 8] [--seconds 3] [--rounds 5]

Uses persistent connections of version 2, each with one request at a time. Both gateways (see
``bench.baselines.bare_gateway``) take turns within one run; the results are medians of the rounds. Half of
the bare gateway's time is the kernel's: receiving the upload, which on the loopback includes the sender's
work for acknowledgements, and waking the worker.
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
from bench.tools.threads import run_together
from bench.wire import Connection

UPLOADS = {"jpeg-0.3mp.jpg": (200, 150), "jpeg-1.9mp.jpg": (800, 600), "jpeg-12mp.jpg": (800, 600)}
"""50 KB, 0.3 MB and 2.7 MB, and the sizes of their results."""

Round = tuple[float, float, float]
"""CPU milliseconds per request of the gateway and of the workers, and requests a second."""


def main(
    workers: Annotated[int, typer.Option(min=1)] = 2,
    connections: Annotated[int, typer.Option(min=1)] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="Duration of each round.")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
) -> None:
    """Print the medians of both gateways for each upload.

    Raises ``Refused`` and ``OSError`` if a request fails.
    """
    for name, (width, height) in UPLOADS.items():
        image = image_file(name).read_bytes()
        with ExitStack() as stack:
            servers = {
                "vipsrv": Server("--workers", str(workers), "--log-level", "warning"),
                "bare": Server(str(workers), str(width), str(height), module="bench.baselines.bare_gateway"),
            }
            measured: dict[str, list[Round]] = {which: [] for which in servers}
            for server in servers.values():
                stack.enter_context(server)
            for number in range(rounds + 1):
                for which, server in servers.items():
                    value = measure_round(server, image, width, height, connections, seconds)
                    if number:  # the first round is a warm-up
                        measured[which].append(value)
        for which, of_rounds in measured.items():
            gateway, worker, rate = (statistics.median(column) for column in zip(*of_rounds, strict=True))
            print(
                f"{name}, {len(image) / 1e6:.2f} MB: {which:6} gateway {gateway:.3f} ms, "
                f"{gateway / worker:.1%} of the worker's {worker:.2f} ms; {rate:.0f} requests a second"
            )


def measure_round(
    server: Server, image: bytes, width: int, height: int, connections: int, seconds: float
) -> Round:
    """Send requests for some seconds over so many connections.

    Raises ``Refused`` and ``OSError`` if a request fails.
    """
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
    run_together([partial(ask, number) for number in range(connections)])
    took = time.monotonic() - began  # until the last reply, because replies after the end are counted, too
    done = sum(counts)
    taken = cpu_seconds(gateway) - before[0], sum(map(cpu_seconds, pids)) - before[1]
    return taken[0] / done * 1e3, taken[1] / done * 1e3, done / took


if __name__ == "__main__":
    typer.run(main)
