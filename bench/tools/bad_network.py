"""Upload images through a network that cuts, stalls, resets and reorders connections: does each arrive right?

    python -m bench.tools.bad_network [--uploads 500] [--seed 1] [--smallest 1] [--largest 300] [--at-once 2]

Each upload goes through a network of its own, which ends every connection after N bytes of the client, N
being one of 64 KiB, 128 KiB … 64 MiB. An ending is an orderly end, a reset, a stall and then a reset, a reply
that does not arrive, or one where the server sees the end only after the client has come back. Sizes are
log-uniform between ``--smallest`` and ``--largest`` megabytes. The blocking and the asyncio client take
turns, and so do images in memory, in a file named by its path, and in an open file.

Prints for each N how many bytes the network took from the client beyond those of the images, headers
included. Images below 8 MiB are resumed only after the first cut, as always with a new client. Exits with 1
if an upload failed, if a result is wrong, or if that is over 5 % of all bytes.
"""

import asyncio
import io
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from bench.measuring.server import Server
from tests.support.bad_network import ALL_ENDINGS, BadNetwork, cut_every
from tests.support.images import coloured_cells_tiff
from vipsrv import AsyncClient, Client, Retry, Timeout
from vipsrv.client import ImageSource
from vipsrv.client.resume import RESUMABLE_FROM

CUTS = tuple(1 << power for power in range(16, 27))
"""Bytes after which connections are cut: 64 KiB to 64 MiB."""

MOST_SENT_AGAIN = 0.05
"""Of the bytes of all images."""

TIMEOUT = Timeout(connect=10.0, send=5.0, reply=60.0)
RESULT = 64
"""Width and height of the results in pixels."""

NEAR = 3
"""Pixels of a result that another colour reaches, as many as the lobes of the kernel that reduces it."""

STALL_SECONDS = 0.1
PROGRESS_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload that is to be made."""

    number: int
    size: int
    cut: int
    client: str
    source: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went: ``fault`` is empty if the result was right."""

    upload: Upload
    size: int
    accepted: int
    connections: int
    attempts: int
    seconds: float
    fault: str

    @property
    def again(self) -> int:
        """Bytes that the network took beyond those of the image."""
        return self.accepted - self.size


def main(
    uploads: Annotated[int, typer.Option(min=1)] = 500,
    seed: Annotated[int, typer.Option()] = 1,
    smallest: Annotated[float, typer.Option(min=0.1, help="Megabytes.")] = 1.0,
    largest: Annotated[float, typer.Option(min=0.1, help="Megabytes.")] = 300.0,
    at_once: Annotated[int, typer.Option(min=1, help="Uploads at the same time.")] = 2,
    folder: Annotated[Path | None, typer.Option(help="Where image files are made for a moment.")] = None,
    server_option: Annotated[list[str] | None, typer.Option(help="An option of the server.")] = None,
) -> None:
    """Print what was sent again, for each N."""
    plan = plan_uploads(uploads, seed, round(smallest * 1e6), round(largest * 1e6))
    with (
        tempfile.TemporaryDirectory(dir=folder) as files,
        Server("--log-level", "error", *(server_option or ())) as server,
        ThreadPoolExecutor(at_once) as threads,
    ):
        progress = Progress(len(plan))
        outcomes = list(
            threads.map(lambda upload: progress.add(make(upload, server.port, seed, Path(files))), plan)
        )
    for line in table(outcomes):
        print(line)
    faults = [outcome for outcome in outcomes if outcome.fault]
    for outcome in faults:
        print(f"{outcome.upload}: {outcome.fault}")
    if faults or share(outcomes) > MOST_SENT_AGAIN:
        raise typer.Exit(1)


def plan_uploads(count: int, seed: int, smallest: int, largest: int) -> list[Upload]:
    """Choose sizes and cuts, so that each cut, client and kind of source has its part of the sizes."""
    chance = random.Random(seed)
    return [
        Upload(
            number,
            round(smallest * (largest / smallest) ** chance.random()),
            CUTS[number % len(CUTS)],
            ("blocking", "asyncio")[number // len(CUTS) % 2],
            ("bytes", "path", "file")[number % 3],
        )
        for number in range(count)
    ]


class Progress:
    """Prints from time to time how many uploads have been made."""

    def __init__(self, count: int) -> None:
        self._count, self._made, self._bytes = count, 0, 0
        self._lock = threading.Lock()
        self._started = self._printed = time.monotonic()

    def add(self, outcome: Outcome) -> Outcome:
        """Count one, and return it."""
        with self._lock:
            self._made += 1
            self._bytes += outcome.size
            now = time.monotonic()
            if outcome.fault or now - self._printed > PROGRESS_SECONDS:
                self._printed = now
                text = f"{self._made} of {self._count} uploads, {self._bytes / 1e9:.1f} GB"
                print(f"{now - self._started:.0f} s: {text} {outcome.fault}", file=sys.stderr, flush=True)
        return outcome


def make(upload: Upload, server_port: int, seed: int, folder: Path) -> Outcome:
    """Make one upload through a network of its own. An error is part of the outcome."""
    number = seed * 1_000_003 + upload.number
    image, colours = coloured_cells_tiff(upload.size, number)
    faults = cut_every(upload.cut, seed=number, endings=ALL_ENDINGS, stall_seconds=STALL_SECONDS)
    started = time.monotonic()
    attempts, fault = 0, ""
    with ExitStack() as stack:
        network = stack.enter_context(BadNetwork(server_port, faults))
        source: ImageSource = image
        if upload.source != "bytes":
            path = folder / f"{upload.number}.tif"
            path.write_bytes(image)
            stack.callback(path.unlink)
            source = path if upload.source == "path" else stack.enter_context(path.open("rb"))
        try:
            attempts, result = _SENDERS[upload.client](network.port, source)
            fault = wrong(result, colours)
        except Exception as error:  # noqa: BLE001 - what it raised is the outcome, and the others go on
            fault = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - started
    return Outcome(upload, len(image), network.accepted, network.connections, attempts, seconds, fault)


def _blocking(port: int, image: ImageSource) -> tuple[int, bytes]:
    with Client("127.0.0.1", port, timeout=TIMEOUT, retry=Retry()) as client:
        result = client.resize(image, width=RESULT, height=RESULT, fit="fill", format="png")
        return result.attempts, result.data


def _asyncio(port: int, image: ImageSource) -> tuple[int, bytes]:
    async def send() -> tuple[int, bytes]:
        async with AsyncClient("127.0.0.1", port, timeout=TIMEOUT, retry=Retry()) as client:
            result = await client.resize(image, width=RESULT, height=RESULT, fit="fill", format="png")
            return result.attempts, result.data

    return asyncio.run(send())


_SENDERS: dict[str, Callable[[int, ImageSource], tuple[int, bytes]]] = {
    "blocking": _blocking,
    "asyncio": _asyncio,
}


def wrong(result: bytes, colours: list[list[tuple[int, int, int]]]) -> str:
    """Return what is wrong with a result, or nothing: each cell of the image must have its colour."""
    with Image.open(io.BytesIO(result)) as opened:
        pixels = opened.convert("RGB")
    if pixels.size != (RESULT, RESULT):
        return f"the result has {pixels.size} pixels"
    cell = RESULT // len(colours)
    for y in range(RESULT):
        for x in range(RESULT):
            if not (NEAR <= x % cell < cell - NEAR and NEAR <= y % cell < cell - NEAR):
                continue  # near another colour
            got, expected = pixels.getpixel((x, y)), colours[y // cell][x // cell]
            if not isinstance(got, tuple) or max(abs(a - b) for a, b in zip(got, expected, strict=True)) > 3:
                return f"the pixel at {x}, {y} is {got} and not {expected}"
    return ""


def share(outcomes: list[Outcome]) -> float:
    """Return how much was sent again, of the bytes of the images."""
    return sum(one.again for one in outcomes) / max(1, sum(one.size for one in outcomes))


def table(outcomes: list[Outcome]) -> list[str]:
    """Return a line for each N and client, and one for all."""
    head = f"{'N':>9} {'client':<9} {'uploads':>7} {'right':>6} {'bytes':>9} {'connections':>11}"
    lines = [f"{head} {'seconds':>8} {'again':>8}"]

    def line(name: str, client: str, rows: list[Outcome]) -> str:
        right = sum(not one.fault for one in rows)
        return (
            f"{name:>9} {client:<9} {len(rows):>7} {right:>6} {sum(one.size for one in rows) / 1e6:>6.0f} MB "
            f"{sum(one.connections for one in rows):>11} {sum(one.seconds for one in rows):>8.1f} "
            f"{100 * share(rows):>6.2f} %"
        )

    for cut in CUTS:
        for client in _SENDERS:
            rows = [one for one in outcomes if (one.upload.cut, one.upload.client) == (cut, client)]
            if rows:
                lines.append(line(f"{cut >> 10} KiB", client, rows))
    for client in _SENDERS:
        rows = [one for one in outcomes if one.upload.client == client]
        if rows:
            lines.append(line("all", client, rows))
    large = [one for one in outcomes if one.size >= RESUMABLE_FROM]
    if large:
        worst = max(large, key=lambda one: one.again / one.size)
        lines.append(line("8 MiB on", "both", large))
        lines.append(f"the worst of those: {100 * worst.again / worst.size:.2f} % of {worst.upload}")
    return [*lines, line("all", "both", outcomes)]


if __name__ == "__main__":
    typer.run(main)
