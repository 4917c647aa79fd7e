"""Measure what the size of a server follows from: its memory at rest and at work, and the CPU of a request.

    python -m bench.tools.sizing [jpeg-1.9mp.jpg png-3mp.png] [--workers 2] [--requests 200]

Prints, for a server of its own that has just started, the anonymous memory of the gateway, of a worker and of
an idle connection. Then each image is resized over four connections to 800 × 600 (one of 640 × 480 to
200 × 150): the CPU of gateway and workers, how many requests that makes for each second of a core, and the
most memory that the gateway and the largest worker had.
"""

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from bench.arguments import known_images
from bench.images import image_file
from bench.measuring.processes import anonymous_bytes, children, cpu_seconds
from bench.measuring.sampling import Peak
from bench.measuring.server import Server
from vipsrv.client import AsyncClient

SMALL = "jpeg-0.3mp.jpg"
IMAGES = (SMALL, "jpeg-1.9mp.jpg", "jpeg-12mp.jpg", "png-3mp.png")
CONNECTIONS = 4
IDLE_CONNECTIONS = 1000

_MB = 1_000_000


def main(
    images: Annotated[list[str] | None, typer.Argument(callback=known_images)] = None,
    workers: int = 2,
    requests: int = 200,
) -> None:
    """Print the figures."""
    with Server("--workers", str(workers), "--connections-per-client", "2000") as server:
        _print_at_rest(server, workers)
    print("| image | bytes | CPU, ms | the gateway's | requests a core second | gateway, MB | worker, MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in images or IMAGES:
        with Server("--workers", str(workers), "--access-log", "off") as server:
            print(asyncio.run(_row(server, image_file(name), requests)))


def _print_at_rest(server: Server, workers: int) -> None:
    pid = server.process.pid
    # The first request loads what a worker loads then.
    asyncio.run(_send(server, image_file(SMALL), 4 * workers))
    gateway, of_workers = anonymous_bytes(pid), [anonymous_bytes(child) for child in children(pid)]
    with ExitStack() as stack:
        for _ in range(IDLE_CONNECTIONS):
            stack.enter_context(socket.create_connection((server.host, server.port)))
        # A request of one more connection: all of those before it have been accepted.
        asyncio.run(_send(server, image_file(SMALL), 1))
        connections = anonymous_bytes(pid) - gateway
    print(f"gateway: {gateway / _MB:.0f} MB, a worker: {max(of_workers) / _MB:.0f} MB, ", end="")
    print(f"an idle connection: {connections / IDLE_CONNECTIONS / 1000:.1f} KB\n")


async def _row(server: Server, image: Path, requests: int) -> str:
    pid = server.process.pid
    workers = children(pid)
    await _send(server, image, CONNECTIONS)  # not measured: caches and buffers fill
    before = [cpu_seconds(one) for one in (pid, *workers)]
    with ExitStack() as stack:
        gateway, *of_workers = [stack.enter_context(Peak([one])) for one in (pid, *workers)]
        await _send(server, image, requests)
    took = [1000 * (cpu_seconds(one) - then) for one, then in zip((pid, *workers), before, strict=True)]
    each, own = sum(took) / requests, took[0] / requests
    largest = max(peak.bytes for peak in of_workers)
    size = image.stat().st_size  # noqa: ASYNC240 - nothing else runs any more
    return (
        f"| {image.name} | {size:,} | {each:.2f} | {own:.2f} | {1000 / each:.0f} "
        f"| {gateway.bytes / _MB:.0f} | {largest / _MB:.0f} |"
    )


async def _send(server: Server, image: Path, requests: int) -> None:
    """Resize an image so many times over the connections, each with one request in flight."""
    data = image.read_bytes()  # noqa: ASYNC240 - nothing else runs yet
    width, height = (200, 150) if image.name == SMALL else (800, 600)

    async def some(number: int) -> None:
        async with AsyncClient(server.host, server.port) as client:
            for _ in range(number):
                await client.resize(data, width=width, height=height)

    share = -(-requests // CONNECTIONS)
    await asyncio.gather(*(some(share) for _ in range(CONNECTIONS)))


if __name__ == "__main__":
    typer.run(main)
