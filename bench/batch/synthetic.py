"""A run of ``vipsrv.batch`` with as many keys as wanted and a client that answers at once.

It tells the memory of a run. Listing, selection, shards, rows, journals and the parts of the manifest are
real. The source makes up its keys; the destination throws results away and keeps the manifest in a folder.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from bench import ROOT
from bench.measuring.processes import peak_resident_bytes
from vipsrv.batch import ListedImage, Row, run
from vipsrv.batch.engines.interface import Shard, Work
from vipsrv.batch.shard_runner import ShardRunner
from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.batch.stores.keys import PRIVATE
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.client import AsyncClient, ResizedImage, ResizeResults
from vipsrv.client.results import ServerLimits
from vipsrv.client.window import Window
from vipsrv.options import ImageInfo, ResizeOptions, Timings

IMAGE = b"\xff\xd8" + bytes(200)
"""What each key has. Nobody decodes it."""

_YIELD = 1000
"""Keys after which the source lets others run, as one that asks a store for the next page does."""


class SyntheticSource:
    """``count`` keys in folders of a thousand, such as ``00012/image-00012345.jpg``."""

    url = "synthetic://"

    def __init__(self, count: int) -> None:
        self.left_out = LeftOut()
        self._count = count

    async def images(self) -> AsyncIterator[ListedImage]:
        """List them."""
        for number in range(self._count):
            if not number % _YIELD:
                await asyncio.sleep(0)
            key = f"{number // 1000:05}/image-{number:08}.jpg"
            yield ListedImage(key=key, size=len(IMAGE), etag=f"{number:032x}")

    @asynccontextmanager
    async def open(self, image: ListedImage) -> AsyncIterator[bytes]:  # noqa: ARG002 - all are alike
        """Return the image."""
        yield IMAGE

    async def close(self) -> None:
        """Nothing is open."""


class Forgetful(FolderDestination):
    """Keeps the manifest and throws results away."""

    async def write(self, key: str, data: bytes) -> None:
        """Write only what belongs to the manifest."""
        if key.startswith(PRIVATE):
            await super().write(key, data)


class InstantClient:
    """Answers like a server with two workers that takes no time."""

    limits = ServerLimits(workers=2, queue_per_client=64)

    async def resize_all(self, image: bytes, options: tuple[ResizeOptions, ...], **_: Any) -> ResizeResults:
        """Return one result for each of the options."""
        await asyncio.sleep(0)
        made = ResizedImage(data=IMAGE, width=16, height=12, format="jpeg", quality=85, ratio=1.0)
        about = ImageInfo(
            format="jpeg", width=160, height=120, pages=1, has_alpha=False, orientation=1, size=len(image)
        )
        return ResizeResults(
            outputs=(made,) * len(options),
            source=about,
            timings=Timings(receive=0.0, queue=0.0, process=0.0, total=0.0),
            ratio=1.0,
            sent=len(image),
            received=len(IMAGE),
            elapsed=0.0,
        )


class InstantEngine:
    """The runner of the local engine, with such a client."""

    def __init__(self, work: Work) -> None:
        client = InstantClient()
        self._runner = ShardRunner(work, cast("AsyncClient", client), Window(client.limits))

    @property
    def in_flight(self) -> int:
        """See ``Engine``."""
        return self._runner.in_flight

    async def rows(self, shards: AsyncIterator[Shard]) -> AsyncGenerator[Row, None]:
        """See ``Engine``."""
        async with aclosing(self._runner.rows(shards)) as rows:
            async for row in rows:
                yield row

    def stop(self) -> None:
        """See ``Engine``: nobody stops it."""


@dataclass(frozen=True, slots=True)
class SyntheticRun:
    """What a run took: ``done`` of ``keys`` images, the others were skipped. ``peak_bytes`` is its largest
    resident set; ``cpu`` and ``seconds`` are of the whole process but its imports.
    """

    keys: int
    done: int
    skipped: int
    seconds: float
    cpu: float
    peak_bytes: int


def run_synthetic(keys: int, folder: Path) -> SyntheticRun:
    """Run it in a process of its own. Raises ``subprocess.CalledProcessError``; its messages are above."""
    command = [sys.executable, "-m", __name__, str(keys), str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return SyntheticRun(**json.loads(done.stdout))


def run_status(folder: Path) -> SyntheticRun:
    """Have ``vipsrv batch status`` count what the runs have written. Raises ``CalledProcessError``."""
    began = time.monotonic()
    command = [sys.executable, "-m", "vipsrv", "batch", "status", "--json", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        told = process.stdout.read()
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    done = json.loads(told)["done"]
    return SyntheticRun(
        keys=done,
        done=done,
        skipped=0,
        seconds=time.monotonic() - began,
        cpu=used.ru_utime + used.ru_stime,
        peak_bytes=used.ru_maxrss * 1024,
    )


def measure(keys: int, folder: Path) -> SyntheticRun:
    """Run it in this process."""
    began, began_cpu = time.monotonic(), time.process_time()
    done = 0
    options = ResizeOptions(width=16, height=12)
    with run(SyntheticSource(keys), Forgetful(folder), options, engine=InstantEngine) as rows:
        for row in rows:
            done += row.ok
        skipped = rows.progress.skipped
    return SyntheticRun(
        keys=keys,
        done=done,
        skipped=skipped,
        seconds=time.monotonic() - began,
        cpu=time.process_time() - began_cpu,
        peak_bytes=peak_resident_bytes(os.getpid()),
    )


if __name__ == "__main__":
    print(json.dumps(asdict(measure(int(sys.argv[1]), Path(sys.argv[2])))))
