"""Send the worst mix of images for minutes: does the server keep its memory budget and answer every request?

    python -m bench.tools.soak [--minutes 10] [--connections 64] [--workers 2]

Every connection sends its next request as soon as it has the reply: a few 400-megapixel TIFFs, progressive
JPEGs, interlaced PNGs, AVIFs and large results, and many small JPEGs, bombs and requests that must be
refused. Each reply must be an image of the right format and size that Pillow can read, or the error that is
expected for it; after ``busy`` the request is sent again when the server says. The exit code is 1 for
anything else, for a connection that is lost or gets no reply, for a kind of image that was never answered,
and if the memory of all processes exceeds the budget (see ``bench.tools.budget``).

The settings are tighter than the defaults, so that every limit is reached: ``spool-memory`` is less than the
uploads take, ``job-memory`` is little more than the largest image needs, ``queue`` is half of the
connections. The deadline is longer than the default, because 16 requests may be waiting in the heavy lane.
"""

import io
import multiprocessing
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import pyvips
import typer
from PIL import Image

from bench.images import cache_folder, image_file
from bench.measuring.processes import cpu_seconds
from bench.measuring.sampling import Sampler
from bench.measuring.server import Server
from bench.tools.budget import MIB, memory_budget, memory_of
from bench.tools.threads import run_together
from vipsrv import Client, Retry, Timeout, Version1Client
from vipsrv.errors import Busy, RequestError
from vipsrv.server.settings import ServerSettings

SPOOL_MEMORY = 64 * MIB
JOB_MEMORY = 640 * MIB
DECODE_MEMORY = 768 * MIB
QUEUE = 32
DEADLINE_SECONDS = 180.0

SAMPLE_SECONDS = 0.02
PROCESSES = 4
NO_ANSWER_SECONDS = 210.0
"""A client's timeout, longer than the server's deadline: a request without a reply by then is lost."""

Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class RequestKind:
    """One kind of request: an image (of ``bench.images``, or ``BOMB``), a size and options of version 2.

    A request without options is sent over version 1. ``refusal`` is the error code that is expected, if any.
    """

    name: str
    image: str
    width: int = 400
    height: int = 300
    options: dict[str, Any] = field(default_factory=dict)
    refusal: str = ""

    @property
    def format(self) -> str:
        """The format of the result, by Pillow's name."""
        return str(self.options.get("format", "jpeg")).upper()


BOMB = "bomb"

GIANTS = (
    RequestKind("strip TIFF 400 MP", "strip-400mp.tif", 800, 600),
    RequestKind("tiled TIFF 400 MP", "tiled-deflate-400mp.tif", 800, 600),
)
LARGE = (
    RequestKind("progressive 100 MP", "progressive-100mp.jpg"),
    RequestKind("AVIF 24 MP", "avif-24mp.avif"),
    RequestKind("interlaced PNG 24 MP", "interlaced-24mp.png"),
    RequestKind("progressive 12 MP", "progressive-12mp.jpg"),
    RequestKind("JPEG 50 MP", "jpeg-50mp.jpg"),
    RequestKind("GIF 6 MP", "gif-6mp.gif"),
    RequestKind("AVIF 6 MP", "avif-6mp.avif"),
    RequestKind("WebP 6 MP", "webp-6mp.webp"),
    RequestKind("PNG 3 MP", "png-3mp.png"),
    RequestKind("12 MP to 12 MP PNG", "jpeg-12mp.jpg", 4000, 3000, {"format": "png"}),
    RequestKind("12 MP to 6 MP WebP", "jpeg-12mp.jpg", 3000, 2000, {"format": "webp"}),
)
SMALL = (
    RequestKind("tiny JPEG", "jpeg-tiny.jpg", 80, 60),
    RequestKind("JPEG 0.3 MP", "jpeg-0.3mp.jpg", 200, 150),
    RequestKind("JPEG 1.9 MP", "jpeg-1.9mp.jpg"),
    RequestKind("JPEG 0.3 MP to AVIF", "jpeg-0.3mp.jpg", 200, 150, {"format": "avif"}),
    RequestKind("PNG bomb", BOMB, refusal="too_large"),
    RequestKind("too large a result", "jpeg-tiny.jpg", 20_000, 20_000, refusal="too_large"),
)
SHARES = ((GIANTS, 1), (LARGE, 3), (SMALL, 12))
"""What the connections send, in sixteenths of the connections. More giants would wait longer than the
deadline: a heavy lane of one worker does about 20 of them a minute."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one request: ``right``, or what was wrong.

    ``seconds`` are from the first attempt to the reply, ``busy`` counts the attempts that the server refused.
    """

    kind: str
    seconds: float
    verdict: str
    busy: int


class Memory(Sampler):
    """Samples the memory of the server's processes while the ``with`` lasts."""

    def __init__(self, server: Server) -> None:
        super().__init__(self._note, SAMPLE_SECONDS)
        self._server = server
        self._start = time.monotonic()
        self.samples: list[tuple[float, int, int]] = []  # seconds; bytes of the gateway, of all workers
        self.pids: set[int] = set()

    @property
    def peak(self) -> int:
        """The most bytes that all processes together held."""
        return max(gateway + workers for _, gateway, workers in self.samples)

    def _note(self) -> None:
        pids = self._server.pids
        self.pids.update(pids)
        gateway, *workers = memory_of(pids)
        self.samples.append((time.monotonic() - self._start, gateway, sum(workers)))


def main(
    minutes: Annotated[float, typer.Option(min=0.1)] = 10.0,
    connections: Annotated[int, typer.Option(min=16)] = 64,
    workers: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Print memory over time and the outcomes; exits with 1 if a check fails."""
    settings = ServerSettings(
        workers=workers,
        spool_memory=SPOOL_MEMORY,
        job_memory=JOB_MEMORY,
        decode_memory=DECODE_MEMORY,
        queue=QUEUE,
        deadline=DEADLINE_SECONDS,
    )
    budget = memory_budget(settings, connections)
    paths = {kind.image: _path(kind.image) for kinds, _ in SHARES for kind in kinds}
    with Server(*_arguments(settings)) as server:
        pids = server.pids
        with Memory(server) as memory:
            outcomes, client_seconds = _send(server.port, paths, connections, minutes * 60)
        gateway_seconds = cpu_seconds(pids[0])
        idle = sum(memory_of(server.pids))
    print_memory(memory.samples)
    print(
        f"\nmemory of all processes: at most {memory.peak / MIB:.0f} MiB of a budget of "
        f"{budget / MIB:.0f} MiB, {idle / MIB:.0f} MiB at the end; "
        f"{len(memory.pids) - len(pids)} workers replaced\n"
        f"CPU seconds: clients {client_seconds:.0f}, gateway {gateway_seconds:.0f}\n"
    )
    faults = print_outcomes(outcomes)
    if memory.peak > budget:
        faults.append("the memory budget was exceeded")
    for fault in faults:
        print(f"FAILED: {fault}")
    raise typer.Exit(1 if faults else 0)


def _arguments(settings: ServerSettings) -> list[str]:
    given = settings.model_dump(exclude_unset=True)
    flags = ((f"--{name.replace('_', '-')}", str(value)) for name, value in given.items())
    return [*(word for flag in flags for word in flag), "--log-level", "warning"]


def _path(name: str) -> Path:
    if name != BOMB:
        return image_file(name)
    path = cache_folder() / "bomb-400mp.png"
    if not path.exists():  # 400 MB of black in 0.4 MB
        unfinished = path.with_suffix(".part")
        pyvips.Image.black(20_000, 20_000).pngsave(str(unfinished), compression=9)
        unfinished.rename(path)
    return path


# The clients


def _send(port: int, paths: dict[str, Path], connections: int, seconds: float) -> tuple[list[Outcome], float]:
    """Send requests for some seconds; return all outcomes and the CPU seconds of the clients."""
    end = time.monotonic() + seconds  # all processes have the same clock
    kinds = [kinds for kinds, share in SHARES for _ in range(share)]
    assigned = [kinds[number * len(kinds) // connections] for number in range(connections)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        parts = [
            pool.submit(_process, port, paths, list(enumerate(assigned))[number::PROCESSES], end)
            for number in range(PROCESSES)
        ]
        results = [part.result() for part in parts]
    outcomes = [outcome for own, _ in results for outcome in own]
    return outcomes, sum(own for _, own in results)


def _process(
    port: int, paths: dict[str, Path], connections: Sequence[tuple[int, Sequence[RequestKind]]], end: float
) -> tuple[list[Outcome], float]:
    """Run one of the client processes, with a thread for each connection."""
    outcomes: list[Outcome] = []

    def connection(number: int, kinds: Sequence[RequestKind]) -> None:
        timeout = Timeout(reply=NO_ANSWER_SECONDS)
        with (
            Version1Client("127.0.0.1", port, timeout=timeout, retry=Retry.none()) as first,
            Client("127.0.0.1", port, timeout=timeout, retry=Retry.none()) as second,
        ):
            turn = number
            while time.monotonic() < end:
                kind = kinds[turn % len(kinds)]
                outcomes.append(ask(second if kind.options else first, kind, paths[kind.image]))
                turn += 1

    run_together([partial(connection, *one) for one in connections])
    return outcomes, time.process_time()


def ask(client: Client | Version1Client, kind: RequestKind, path: Path) -> Outcome:
    """Send a request until the reply is not ``busy``."""
    start, busy = time.monotonic(), 0
    while True:
        try:
            result = client.resize(path, width=kind.width, height=kind.height, **kind.options)
        except Busy as error:
            busy += 1
            time.sleep((error.retry_after_ms or 100) / 1000)
            continue
        except RequestError as error:
            verdict = "right" if error.code == kind.refusal else f"{error.status} {error.code}: {error}"
        except Exception as error:  # noqa: BLE001 - otherwise the connection would end unnoticed
            verdict = f"lost: {error!r}"
        else:
            verdict = "not refused" if kind.refusal else judge(result.data, kind)
        return Outcome(kind.name, time.monotonic() - start, verdict, busy)


def judge(data: bytes, kind: RequestKind) -> str:
    """Say whether a result is right, and otherwise what is wrong with it."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            if (opened.format, opened.size) == (kind.format, (kind.width, kind.height)):
                return "right"
            return f"wrong: {opened.format} of {opened.size}"
    except Exception as error:  # noqa: BLE001 - Pillow raises many kinds of errors for data that is no image
        return f"wrong: {error!r}"


# The report


def print_memory(samples: Sequence[tuple[float, int, int]]) -> None:
    """Print the most and the median memory of each minute."""
    print(f"{'minute':>6} {'most, MiB: all':>15} {'gateway':>8} {'workers':>8} {'median: all':>12}")
    for minute, group in groupby(samples, key=lambda sample: int(sample[0] // 60)):
        within = list(group)
        both = [gateway + workers for _, gateway, workers in within]
        gateway, workers = (max(sample[place] for sample in within) for place in (1, 2))
        print(
            f"{minute + 1:6} {max(both) / MIB:15.0f} {gateway / MIB:8.0f} {workers / MIB:8.0f}"
            f" {statistics.median(both) / MIB:12.0f}"
        )


def print_outcomes(outcomes: Sequence[Outcome]) -> list[str]:
    """Print a line for each kind of request; return what was wrong, each in a sentence."""
    by_kind: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.kind].append(outcome)
    wrong = Counter((outcome.kind, outcome.verdict) for outcome in outcomes if outcome.verdict != "right")
    print(f"{'':22} {'right':>7} {'wrong':>6} {'busy':>6} {'median s':>9} {'p99 s':>8} {'longest':>8}")
    faults = [f"{kind}: {count} times {verdict}" for (kind, verdict), count in wrong.items()]
    for kind in (kind.name for kinds, _ in SHARES for kind in kinds):
        own = by_kind[kind]
        right = sorted(outcome.seconds for outcome in own if outcome.verdict == "right")
        if not right:
            faults.append(f"{kind}: none was answered")
            continue
        p99 = right[min(len(right) - 1, len(right) * 99 // 100)]
        print(
            f"{kind:22} {len(right):7} {len(own) - len(right):6} {sum(outcome.busy for outcome in own):6}"
            f" {statistics.median(right):9.3f} {p99:8.3f} {right[-1]:8.3f}"
        )
    return faults


if __name__ == "__main__":
    typer.run(main)
