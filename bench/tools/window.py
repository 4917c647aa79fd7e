"""Measure how many requests in flight keep the workers busy: fixed numbers, and the client's own window.

    python -m bench.tools.window [--delay-ms 0] [--delay-ms 20] [--images 200] [--rounds 5]

One asyncio client sends the same JPEG again and again over one connection, through a proxy in this process
that delays each direction by ``--delay-ms`` (0: without the proxy). For each number in flight it prints the
median of the rounds: images a second, how many workers were busy, and the part of the requests that found an
idle one. All numbers take turns within a round.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Annotated, NamedTuple

import typer

from bench.images import image_file
from bench.measuring.server import Server
from vipsrv import AsyncClient, ResizeOptions, ResizeResults, Retry
from vipsrv.client.window import NO_WAIT, Window
from vipsrv.options import Fit

IMAGE = "jpeg-1.9mp.jpg"
PIECE = 1 << 16

Places = Callable[[Callable[[], Awaitable[ResizeResults]]], Awaitable[ResizeResults]]
"""Makes a request when it may be in flight."""


class Figures(NamedTuple):
    """Images a second, workers busy on average, and the part of requests that found an idle one."""

    rate: float
    busy: float
    idle: float


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Pass the bytes of one direction on, each after a delay in seconds, whatever comes meanwhile."""
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def write() -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(due - time.monotonic())
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    writing = asyncio.create_task(write())
    data = b"start"
    while data:
        data = await reader.read(PIECE)
        waiting.put_nowait((time.monotonic() + delay, data))
    await writing


@asynccontextmanager
async def _delayed(port: int, delay: float) -> AsyncIterator[int]:
    """Run a proxy to a port within the block, and give its own port."""
    serving: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pass_on(reader, to_server, delay), _pass_on(from_server, writer, delay))

    def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.create_task(serve(reader, writer)))

    proxy = await asyncio.start_server(start, "127.0.0.1", 0)
    yield proxy.sockets[0].getsockname()[1]
    proxy.close()
    await asyncio.gather(*serving)


def _fixed(count: int) -> Places:
    places = asyncio.Semaphore(count)

    async def ask(request: Callable[[], Awaitable[ResizeResults]]) -> ResizeResults:
        async with places:
            return await request()

    return ask


async def _measure(client: AsyncClient, image: bytes, images: int, places: Places) -> Figures:
    options = [ResizeOptions(width=320, fit=Fit.INSIDE)]
    started = time.monotonic()
    results = await asyncio.gather(
        *(places(lambda: client.resize_all(image, options)) for _ in range(images))
    )
    seconds = time.monotonic() - started
    timings = [one.timings for one in results]
    return Figures(
        images / seconds,
        sum(one.process for one in timings) / 1000 / seconds,
        sum(one.queue < NO_WAIT * one.process for one in timings) / images,
    )


async def _compare(port: int, delay: float, images: int, rounds: int, numbers: list[int]) -> None:
    image = image_file(IMAGE).read_bytes()
    async with AsyncExitStack() as stack:
        if delay:
            port = await stack.enter_async_context(_delayed(port, delay))
        client = await stack.enter_async_context(AsyncClient("127.0.0.1", port, retry=Retry.none()))
        limits = (await client.hello()).limits
        found: dict[str, list[Figures]] = {}
        sizes = []
        for _ in range(rounds):
            for number in numbers:
                figures = await _measure(client, image, images, _fixed(number))
                found.setdefault(f"{number} in flight", []).append(figures)
            window = Window(limits)
            ask = partial(window.ask, len(image))
            found.setdefault("window", []).append(await _measure(client, image, images, ask))
            sizes.append(window.size)
    print(f"\n{delay * 1000:g} ms each way\n")
    for name, all_figures in found.items():
        rate, busy, idle = (statistics.median(column) for column in zip(*all_figures, strict=True))
        size = f", at the end {statistics.median(sizes):g} in flight" if name == "window" else ""
        print(f"{name:>12}: {rate:6.1f} images/s, {busy:.2f} workers busy, {idle:4.0%} found one idle{size}")


def main(
    delay_ms: Annotated[list[float] | None, typer.Option(min=0, help="Of each direction.")] = None,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    images: Annotated[int, typer.Option(min=1, help="Images of each measurement.")] = 200,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    in_flight: Annotated[list[int] | None, typer.Option(min=1, help="Numbers to compare.")] = None,
) -> None:
    """Print the table of each delay."""
    with Server("--workers", str(workers), "--log-level", "warning") as server:
        for delay in delay_ms or [0.0, 20.0]:
            numbers = in_flight or [2, 3, 4, 5, 6, 9, 16, 32]
            asyncio.run(_compare(server.port, delay / 1000, images, rounds, numbers))


if __name__ == "__main__":
    typer.run(main)
