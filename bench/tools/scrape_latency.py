"""How long /metrics takes to answer while the queue of the server is full.

    python -m bench.tools.scrape_latency [--clients 16] [--scrapes 300] [--impatient]

Another process is the clients: each has an address and a few connections of its own, keeps many requests
unanswered, and sends another one for each reply, up to a second later after a refusal. So more requests are
sent than the queue may hold. With ``--impatient`` they never pause, so most of what the server does is to
refuse. Only scrapes that have seen a queue of at least nine tenths of its limit count.
"""

import asyncio
import json
import re
import statistics
import time
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Annotated

import typer

from bench.arguments import known_image
from bench.images import image_file
from bench.measuring.server import Server
from bench.tools.scrapes import page_of, scrape
from bench.wire import resize_head
from vipsrv.protocol import HEADER

QUEUE = 256
AHEAD = 8
"""Unanswered requests of each connection."""

CONNECTIONS = 4
"""Connections of each client."""

_WAITING = re.compile(rb'^vipsrv_queue_length{lane="light"} (\d+)$', re.MULTILINE)
_BUSY = 429
_LONGEST_PAUSE = 1.0


def main(
    name: Annotated[
        str, typer.Option("--image", help="One of bench.images.", callback=known_image)
    ] = "jpeg-0.3mp.jpg",
    clients: Annotated[int, typer.Option(min=1, max=200, help="Addresses, from 127.0.0.2 on.")] = 16,
    scrapes: Annotated[int, typer.Option(min=1)] = 300,
    impatient: Annotated[bool, typer.Option(help="Do not pause after a refusal.")] = False,  # noqa: FBT002
) -> None:
    """Print the percentiles of the latencies. Raises ``OSError`` if a scrape fails."""
    image = image_file(name).read_bytes()
    latencies: list[float] = []
    seen = 0
    with ExitStack() as stack:
        server = stack.enter_context(
            Server(
                *("--workers", "2", "--gateways", "1", "--queue", str(QUEUE)), "--ops-listen", "127.0.0.1:0"
            )
        )
        page = page_of(server)
        load = get_context("spawn").Process(
            target=flood, args=(server.port, clients, image, impatient), daemon=True
        )
        load.start()
        stack.callback(load.terminate)
        while len(latencies) < scrapes:
            began = time.perf_counter()
            text = scrape(page)
            took = time.perf_counter() - began
            seen += 1
            waiting = _WAITING.search(text)
            if waiting is not None and int(waiting[1]) >= 0.9 * QUEUE:
                latencies.append(took)
            time.sleep(0.02)
    cuts = statistics.quantiles(latencies, n=1000, method="inclusive")
    print(
        f"{len(latencies)} scrapes of {seen} at a full queue ({QUEUE} jobs, {clients} clients): "
        f"p50 {cuts[499] * 1e3:.1f} ms, p90 {cuts[899] * 1e3:.1f} ms, p99 {cuts[989] * 1e3:.1f} ms, "
        f"longest {max(latencies) * 1e3:.1f} ms"
    )


def flood(port: int, clients: int, image: bytes, impatient: bool) -> None:  # noqa: FBT001
    """Keep the queue of a server full."""
    longest_pause = 0.0 if impatient else _LONGEST_PAUSE

    async def run() -> None:
        addresses = [f"127.0.0.{2 + number}" for number in range(clients)]
        await asyncio.gather(
            *(ask(port, address, image, longest_pause) for address in addresses for _ in range(CONNECTIONS))
        )

    asyncio.run(run())


async def ask(port: int, address: str, image: bytes, longest_pause: float) -> None:
    """Send a request for each reply, over one connection from this address."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    for number in range(AHEAD):
        writer.write(resize_head(number, len(image), 200, 150) + image)
    while True:
        _, _, _, _, status, number, meta_size, body_size = HEADER.unpack(
            await reader.readexactly(HEADER.size)
        )
        meta = await reader.readexactly(meta_size)
        await reader.readexactly(body_size)
        if status == _BUSY:
            await asyncio.sleep(min(longest_pause, json.loads(meta)["retry_after_ms"] / 1000))
        writer.write(resize_head(number, len(image), 200, 150) + image)
        await writer.drain()


if __name__ == "__main__":
    typer.run(main)
