"""The same as ``bad_network.py`` with public clients of tus: tuspy and aiotus.

    python -m bench.tools.bad_network_tus [--uploads 500] [--seed 1] [--smallest 1] [--largest 300]

An image is uploaded to ``/files`` through a network that ends every connection after N bytes, in requests of
4 N bytes; then ``/resize?upload=ID`` gives the result, whose colours are compared. Prints for each N and
client what the network took from the client beyond the bytes of the images, headers included. Exits with 1
if an upload failed, if a result is wrong, or if that is over 5 % of all bytes.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from typing import Annotated

import aiotus
import httpx
import typer
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tusclient.uploader.uploader import Uploader

from bench.measuring.server import Server
from bench.tools.bad_network import (
    CUTS,
    MOST_SENT_AGAIN,
    RESULT,
    STALL_SECONDS,
    Outcome,
    Progress,
    Upload,
    plan_uploads,
    share,
    wrong,
)
from tests.support.bad_network import ALL_ENDINGS, BadNetwork, cut_every
from tests.support.images import coloured_cells_tiff

CUTS_OF_A_PART = 4
"""How often the connection of one request is cut."""

MOST_OF_AIOTUS = 2**20
"""Bytes: aiohttp warns of larger bodies."""

RETRIES = 200
"""Attempts that tuspy makes by itself: each is a call within the one before."""

MOST_RETRIES = 100_000
"""Attempts of aiotus for a whole upload."""


def main(
    uploads: Annotated[int, typer.Option(min=1)] = 500,
    seed: Annotated[int, typer.Option()] = 1,
    smallest: Annotated[float, typer.Option(min=0.1, help="Megabytes.")] = 1.0,
    largest: Annotated[float, typer.Option(min=0.1, help="Megabytes.")] = 300.0,
    at_once: Annotated[int, typer.Option(min=1, help="Uploads at the same time.")] = 2,
) -> None:
    """Print what was sent again, for each N and client."""
    logging.getLogger("aiotus").setLevel(logging.CRITICAL)  # it tells of each attempt
    plan = plan_uploads(uploads, seed, round(smallest * 1e6), round(largest * 1e6))
    listen = ("--listen", "http://127.0.0.1:0", "--log-level", "error")
    with Server(*listen) as server, ThreadPoolExecutor(at_once) as threads:
        progress = Progress(len(plan))
        outcomes = list(
            threads.map(lambda upload: progress.add(make(upload, server.port, seed)), map(_with_client, plan))
        )
    for cut in (*CUTS, None):
        for client in _SENDERS:
            _print_line(cut, client, outcomes)
    faults = [outcome for outcome in outcomes if outcome.fault]
    for outcome in faults:
        print(f"{outcome.upload}: {outcome.fault}")
    if faults or share(outcomes) > MOST_SENT_AGAIN:
        raise typer.Exit(1)


def make(upload: Upload, server_port: int, seed: int) -> Outcome:
    """Make one upload through a network of its own. An error is part of the outcome."""
    number = seed * 1_000_003 + upload.number
    image, colours = coloured_cells_tiff(upload.size, number)
    faults = cut_every(upload.cut, seed=number, endings=ALL_ENDINGS, stall_seconds=STALL_SECONDS)
    started = time.monotonic()
    fault = ""
    with BadNetwork(server_port, faults) as network:
        try:
            url = _SENDERS[upload.client](f"http://127.0.0.1:{network.port}/files", image, upload.cut)
            parameters = {"upload": url[-32:], "width": str(RESULT), "height": str(RESULT), "format": "png"}
            at = f"http://127.0.0.1:{server_port}"
            reply = httpx.post(f"{at}/resize", params=parameters, timeout=120)
            fault = wrong(reply.content, colours) if reply.is_success else reply.text
            httpx.delete(f"{at}/files/{url[-32:]}", headers={"Tus-Resumable": "1.0.0"})
        except Exception as error:  # noqa: BLE001 - what it raised is the outcome, and the others go on
            fault = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - started
    return Outcome(upload, len(image), network.accepted, network.connections, 0, seconds, fault)


def _with_client(upload: Upload) -> Upload:
    client = "tuspy" if upload.client == "blocking" else "aiotus"
    return Upload(upload.number, upload.size, upload.cut, client, "bytes")


def _tuspy(url: str, image: bytes | bytearray, cut: int) -> str:
    part = CUTS_OF_A_PART * cut
    uploader = TusClient(url).uploader(
        file_stream=BytesIO(image), chunk_size=part, retries=RETRIES, retry_delay=0
    )
    while True:
        before = uploader.offset
        try:
            uploader.upload()
        except TusUploadFailed:
            # It counts all attempts since a whole part was sent by one of them: at these N, none ever is.
            uploader.offset = _offset(uploader)
            if uploader.offset == before:
                raise
        else:
            return str(uploader.url)


def _offset(uploader: Uploader) -> int:
    for _ in range(RETRIES):
        with suppress(TusCommunicationError):
            return int(uploader.get_offset())
    raise RuntimeError("the server does not say how much it has")


def _aiotus(url: str, image: bytes | bytearray, cut: int) -> str:
    retry = aiotus.RetryConfiguration(retry_attempts=MOST_RETRIES, max_retry_period_seconds=0)
    part = min(CUTS_OF_A_PART * cut, MOST_OF_AIOTUS)
    found = asyncio.run(aiotus.upload(url, BytesIO(image), {}, config=retry, chunksize=part))
    if found is None:
        raise RuntimeError("aiotus has given up")
    return str(found)


_SENDERS: dict[str, Callable[[str, bytes | bytearray, int], str]] = {"tuspy": _tuspy, "aiotus": _aiotus}


def _print_line(cut: int | None, client: str, outcomes: list[Outcome]) -> None:
    rows = [one for one in outcomes if one.upload.client == client and cut in (None, one.upload.cut)]
    if rows:
        right = sum(not one.fault for one in rows)
        print(
            f"{'all' if cut is None else f'{cut >> 10} KiB':>9} {client:<7} {len(rows):>4} uploads, "
            f"{right:>4} right, {sum(one.size for one in rows) / 1e6:>6.0f} MB, "
            f"{sum(one.connections for one in rows):>6} connections, "
            f"{sum(one.seconds for one in rows):>7.1f} s, {100 * share(rows):>5.2f} % again"
        )


if __name__ == "__main__":
    typer.run(main)
