"""Send mutated messages, requests of HTTP and images to a running server; report faults and what was slow.

    python -m fuzz.mutate [--messages 100000] [--http 100000] [--images 40000] [--seed 1] [--seconds 3600]
        [--images-from FOLDER]

Starts ``vipsrv serve`` on a loopback port. A fault is

- a reply that breaks the protocol, an ``internal`` error, or no end of a connection within its time;
- a worker that died, a gateway that ended, or a traceback in the log;
- an image that takes more than ``--cpu`` seconds when it is sent alone;
- a worker whose memory grows by more than ``--job-memory`` above that of an idle one.

The same seed gives the same inputs. Each one that shows a fault is saved in ``fuzz/corpus/crashes``. The exit
code is 1 if there is a fault. An input that was slow among others is sent once more, alone, and its CPU time
counts then, because a busy machine makes everything slow.
"""

import argparse
import random
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from bench.measuring.processes import anonymous_bytes, cpu_seconds
from bench.wire import Connection, Reply
from fuzz import http, protocol, seeds
from fuzz.mutations import mutated
from tests.support.images import SAMPLES, jpeg
from tests.support.running_server import RunningServer, worker_pids
from vipsrv.errors import ProtocolError
from vipsrv.protocol import FIRST_ERROR_STATUS, Kind, ReplyReader

_FOUND = Path(__file__).parent / "corpus" / "crashes"
_WORKERS = 2
_MESSAGE_CONNECTIONS = 8
_LARGEST_SEED = 256 << 10
"""Bytes of a file of ``--images-from``; larger ones are left out."""

_REPLY_SECONDS = 60.0
_HTTP_SECONDS = 0.05
"""How long a request of HTTP is waited for that may not be complete: then the client ends its side."""

_SUSPECT_SECONDS = 0.5
"""Seconds from request to reply; an image that takes longer may be measured alone."""

_MOST_SUSPECTS = 25
_SAMPLE_SECONDS = 0.005
_CHECK_EVERY = 2000
"""Messages between two checks that the server still answers."""

_WORKER_ENDED = re.compile(r"worker \d+ ended")
_STOPPED = re.compile(r"worker \d+ ended: it did not stop its job within")
"""What the server does to a worker whose job was cancelled, on a busy machine or within a long step."""

_HTTP_HEAD = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]+(?:\r\n[A-Za-z-]+: [ -~]*)*")
_HTTP_LENGTH = re.compile(rb"(?i)\r\ncontent-length: ([0-9]+)")
_INTERNAL, _WORKER_DIED = 500, 502
_READ_SIZE = 1 << 16

_REQUESTS: tuple[tuple[Kind, dict[str, Any]], ...] = (
    (Kind.RESIZE, {"width": 32, "height": 24}),
    (Kind.RESIZE, {"width": 32, "height": 24}),
    (Kind.RESIZE, {"width": 64, "height": 64, "fit": "cover", "format": "webp", "position": "entropy"}),
    (Kind.RESIZE, {"width": 50, "height": 80, "fit": "contain", "format": "png", "keep": "all"}),
    (Kind.RESIZE, {"width": 64, "fit": "inside", "format": "auto", "page": 1}),
    (Kind.RESIZE, {"width": 64, "height": 48, "format": "avif"}),
    (Kind.RESIZE, {"width": 128, "height": 96, "max_bytes": 2000}),
    (
        Kind.RESIZE,
        {"width": 64, "height": 48, "crop": [0.1, 0.1, 0.5, 0.7], "trim": 9, "rotate": 30, "pad": 4},
    ),
    (Kind.RESIZE, {"width": 64, "height": 48, "pages": "all", "format": "webp", "grey": True, "rounded": 9}),
    (Kind.RESIZE, {"width": 64, "height": 48, "blur": 2, "sharpen": True, "modulate": [1.2, 0.5]}),
    (Kind.RESIZE, {"width": 64, "height": 48, "min_ssim": 0.9, "placeholder": ["thumbhash", "dominant"]}),
    (Kind.INFO, {"placeholder": ["blurhash", "average"]}),
    (Kind.RESIZE, {"outputs": [{"width": 32, "height": 24}, {"width": 90, "height": 9, "format": "gif"}]}),
    (Kind.INFO, {}),
)


@dataclass
class Findings:
    """What was counted and found, by several threads."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    suspects: list[tuple[float, int]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        """Count one event."""
        with self._lock:
            self.counts[what] += 1

    def suspect(self, seconds: float, number: int) -> None:
        """Note an image that took long."""
        with self._lock:
            self.suspects.append((seconds, number))

    def fault(self, what: str, name: str, data: bytes) -> None:
        """Note a fault, and save the input that shows it."""
        with self._lock:
            _FOUND.mkdir(parents=True, exist_ok=True)
            path = _FOUND / f"mutate-{name}"
            path.write_bytes(data)
            self.faults.append(f"{what}: {path}")
            print(self.faults[-1], flush=True)


class MemoryWatch:
    """Samples the memory of all workers in a thread. ``biggest``: the most bytes that one had above an idle
    one. ``on_excess`` is called with the bytes when a worker first has more than ``allowed``.
    """

    def __init__(self, server: RunningServer, allowed: int, on_excess: Callable[[int], None]) -> None:
        self.biggest = 0
        self._server, self._allowed, self._on_excess = server, allowed, on_excess
        self._idle = min(anonymous_bytes(pid) for pid in worker_pids(server.pid))
        self._over: set[int] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        pids: list[int] = []
        rounds = 0
        while not self._end.wait(_SAMPLE_SECONDS):
            if rounds % 100 == 0:
                pids = worker_pids(self._server.pid)
            rounds += 1
            for pid in pids:
                try:
                    above = anonymous_bytes(pid) - self._idle
                except (FileNotFoundError, ProcessLookupError):  # a worker that was replaced
                    continue
                self.biggest = max(self.biggest, above)
                if above > self._allowed and pid not in self._over:
                    self._over.add(pid)
                    self._on_excess(above)


class ImageRun:
    """The mutated images: input ``number`` is the same in each run with this ``seed``."""

    def __init__(self, server: RunningServer, originals: Sequence[bytes], seed: int, found: Findings) -> None:
        self._server, self._originals, self._seed, self._found = server, originals, seed, found
        self._in_flight: dict[int, int] = {}

    def input(self, number: int) -> tuple[Kind, dict[str, Any], bytes]:
        """Return kind, options and image of one request."""
        dice = random.Random(f"image {self._seed} {number}")
        image = mutated(dice.choice(self._originals), self._originals, dice)
        kind, options = dice.choice(_REQUESTS)
        return kind, options, image

    def run(self, lane: int, numbers: Iterator[int]) -> None:
        """Send these inputs, one after another, over one connection as long as it lasts."""
        connection: Connection | None = None
        for number in numbers:
            self._in_flight[lane] = number
            connection = connection or Connection(self._server.port, timeout=_REPLY_SECONDS)
            started = time.monotonic()
            reply = self._send(connection, number)
            if time.monotonic() - started > _SUSPECT_SECONDS:
                self._found.suspect(time.monotonic() - started, number)
            if reply is None or reply.status >= FIRST_ERROR_STATUS:
                # The server may close it where it did not read the image.
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def cpu_alone(self, number: int) -> float:
        """Send an input while nothing else runs; return the CPU seconds of the workers."""
        before = _cpu_of_workers(self._server)
        with Connection(self._server.port, timeout=_REPLY_SECONDS) as connection:
            self._send(connection, number)
        after = _cpu_of_workers(self._server)
        return sum(after[pid] - before.get(pid, 0.0) for pid in after)

    def over_memory(self, above: int) -> None:
        """Save the inputs that are being worked on: one of them made a worker take too much memory."""
        for number in list(self._in_flight.values()):
            self._found.fault(f"a worker has {above} bytes above an idle one", *self._named(number))

    def too_slow(self, number: int, seconds: float) -> None:
        """Save an input that takes too long."""
        self._found.fault(f"{seconds:.2f} s of CPU", *self._named(number))

    def _named(self, number: int) -> tuple[str, bytes]:
        return f"image-{self._seed}-{number}", self.input(number)[2]

    def _send(self, connection: Connection, number: int) -> Reply | None:
        kind, options, image = self.input(number)
        try:
            reply = connection.request(kind, options, image)
        except (OSError, ProtocolError) as error:
            if isinstance(error, ConnectionError):
                # The server may refuse before it has read the image, and close.
                self._found.count("images: connection closed")
            else:
                self._found.fault(f"no reply ({error!r})", *self._named(number))
            return None
        self._found.count(f"images: {reply.status}")
        if reply.status in {_INTERNAL, _WORKER_DIED}:
            what = bytes(reply.meta).decode(errors="replace")
            self._found.fault(f"{reply.status} {kind.name} {options} {what}", *self._named(number))
        return reply


def send_mutated(
    server: RunningServer,
    what: str,
    ask: Callable[[bytes], str],
    originals: Sequence[bytes],
    seed: int,
    numbers: Iterator[int],
    found: Findings,
) -> None:
    """Send mutated data, each over a connection of its own; ``ask`` does that and checks what comes back.

    ``what`` is sent is for the names of what is found.
    """
    for number in numbers:
        dice = random.Random(f"{what} {seed} {number}")
        data = mutated(dice.choice(originals), originals, dice)
        try:
            found.count(f"{what}: {ask(data)}")
        except (AssertionError, ProtocolError, ValueError, TimeoutError) as error:
            found.fault(repr(error), f"{what}-{seed}-{number}", data)
        except OSError as error:
            # Closed or reset: the server need not read on after data that it refuses.
            found.count(f"{what}: {type(error).__name__}")
        if number % _CHECK_EVERY == 0:
            check_health(server)


def exchange(port: int, data: bytes) -> str:
    """Send bytes and the end of the stream, and read all that comes until the server closes.

    Return the kinds of the replies. Raises ``ProtocolError`` if they are not valid, and ``OSError``.
    """
    statuses = []
    reader = ReplyReader()
    with socket.create_connection(("127.0.0.1", port), timeout=_REPLY_SECONDS) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while piece := sock.recv(_READ_SIZE):
            for event in reader.receive_data(piece):
                status = getattr(event, "status", None)
                if status is not None:
                    assert status not in {_INTERNAL, _WORKER_DIED}, f"the server replied with {status}"
                    statuses.append(status)
        reader.receive_eof()
    return ", ".join(str(status) for status in sorted(set(statuses))) or "no reply"


def exchange_http(port: int, data: bytes) -> str:
    """Send bytes, and after a moment without a reply the end of the stream; read until the server closes.

    Return the statuses of the replies. Raises ``ValueError`` if they are not valid, and ``OSError``.
    """
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=_REPLY_SECONDS) as sock:
        sock.sendall(data)
        sock.settimeout(_HTTP_SECONDS)
        try:
            while piece := sock.recv(_READ_SIZE):
                received += piece
        except TimeoutError:  # it waits for more, or for a worker
            sock.settimeout(_REPLY_SECONDS)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(_READ_SIZE):
                received += piece
    statuses = statuses_of(received)
    assert not {_INTERNAL, _WORKER_DIED} & set(statuses), f"the server replied with {statuses}"
    return ", ".join(str(status) for status in sorted(set(statuses))) or "no reply"


def statuses_of(received: bytes) -> list[int]:
    """Return the statuses of replies of HTTP that follow each other. Raises ``ValueError``."""
    statuses = []
    while received:
        head, end, rest = received.partition(b"\r\n\r\n")
        reply = _HTTP_HEAD.fullmatch(head)
        if not end or reply is None:
            raise ValueError(f"this is no reply: {head[:200]!r}")
        statuses.append(int(reply[1]))
        length = _HTTP_LENGTH.search(head)
        size = 0 if length is None else int(length[1])
        # The reply to a HEAD has no content: another reply follows, or nothing.
        if size and (not rest or rest.startswith(b"HTTP/1.1 ")):
            size = 0
        if len(rest) < size:
            raise ValueError(f"{size - len(rest)} bytes of a reply are missing")
        received = rest[size:]
    return statuses


def ends_of_workers(log: str) -> tuple[list[str], int]:
    """Return the lines of workers that have died, and how many were ended because of a cancelled job.

    A client that ends its side after a message has its job cancelled. An image that takes too long is found
    by its CPU time.
    """
    ended = [line for line in log.splitlines() if _WORKER_ENDED.search(line)]
    lost = [line for line in ended if not _STOPPED.search(line)]
    return lost, len(ended) - len(lost)


def check_health(server: RunningServer) -> None:
    """Check that the server lives and answers a valid request. Raises ``SystemExit``."""
    if server.process.poll() is not None:
        raise SystemExit(f"the gateway ended with {server.process.returncode}; its log:\n{server.log}")
    with Connection(server.port, timeout=_REPLY_SECONDS) as connection:
        connection.resize(jpeg(), 32, 24)


def _cpu_of_workers(server: RunningServer) -> dict[int, float]:
    return {pid: cpu_seconds(pid) for pid in worker_pids(server.pid)}


def image_originals(folder: Path | None) -> list[bytes]:
    """Return the images to be mutated: one of each kind that the tests make, and the files of a folder."""
    made = [make() for make in SAMPLES.values()]
    made += [image for images in seeds.IMAGES.values() for image in images()]
    if folder is not None:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        made += [path.read_bytes() for path in files if 0 < path.stat().st_size <= _LARGEST_SEED]
    return made


def message_originals() -> list[bytes]:
    """Return messages of each kind, alone and several one after another, with a small image in them."""
    # The first byte of a seed says how the target of the reader cuts the others.
    return [seed[1:] for target in protocol.TARGETS[:1] for seed in target.seeds()]


def _until(end: float, numbers: range) -> Iterator[int]:
    for number in numbers:
        if time.monotonic() > end:
            return
        yield number


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz.mutate", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000, help="mutated messages (100,000)")
    parser.add_argument("--http", type=int, default=100_000, help="mutated requests of HTTP (100,000)")
    parser.add_argument("--images", type=int, default=40_000, help="mutated images (40,000)")
    parser.add_argument("--seed", type=int, default=1, help="other inputs for another number (1)")
    parser.add_argument("--seconds", type=float, default=3600, help="the most time for all (3600)")
    parser.add_argument("--images-from", type=Path, metavar="FOLDER", help="mutate these files, too")
    parser.add_argument("--cpu", type=float, default=3.0, help="CPU seconds that an image may take (3)")
    parser.add_argument(
        "--job-memory", type=int, default=256 << 20, help="bytes that a job may take (256 MiB)"
    )
    parser.add_argument("--tolerant", action="store_true", help="serve with --tolerate-truncated")
    return parser.parse_args()


def main() -> int:
    """Run all; 1 if there was a fault."""
    arguments = _arguments()
    found = Findings()
    end = time.monotonic() + arguments.seconds
    settings = ["--workers", str(_WORKERS), "--job-memory", str(arguments.job_memory)]
    settings += ["--log-level", "warning"]
    settings += ["--listen", "127.0.0.1:0", "--listen", "http://127.0.0.1:0"]
    if arguments.tolerant:
        settings.append("--tolerate-truncated")
    with RunningServer(*settings) as server:
        messages = message_originals()
        requests = http.requests(jpeg())
        http_port = int(server.listeners[1].rpartition(":")[2])
        running = []
        with ThreadPoolExecutor(_MESSAGE_CONNECTIONS) as threads:
            for lane in range(_MESSAGE_CONNECTIONS):
                for what, ask, originals, count in (
                    ("messages", partial(exchange, server.port), messages, arguments.messages),
                    ("http", partial(exchange_http, http_port), requests, arguments.http),
                ):
                    numbers = _until(end, range(lane, count, _MESSAGE_CONNECTIONS))
                    running.append(
                        threads.submit(
                            send_mutated, server, what, ask, originals, arguments.seed, numbers, found
                        )
                    )
        for one in running:
            one.result()
        images = ImageRun(server, image_originals(arguments.images_from), arguments.seed, found)
        with MemoryWatch(server, arguments.job_memory, images.over_memory) as memory:
            with ThreadPoolExecutor(_WORKERS) as threads:
                lanes = [
                    threads.submit(images.run, lane, _until(end, range(lane, arguments.images, _WORKERS)))
                    for lane in range(_WORKERS)
                ]
            for one in lanes:
                one.result()
            slowest = [
                (images.cpu_alone(number), number) for _, number in sorted(found.suspects)[-_MOST_SUSPECTS:]
            ]
        for seconds, number in slowest:
            if seconds > arguments.cpu:
                images.too_slow(number, seconds)
        check_health(server)
        # A worker that is replaced as planned, because it has grown, is not a warning.
        lost, stopped = ends_of_workers(server.log)
        found.faults += lost
        print(*lost, sep="\n", end="\n" if lost else "")
        if "Traceback" in server.log:
            found.faults.append(f"a traceback in the log:\n{server.log}")
    for what, count in sorted(found.counts.items()):
        print(f"{count:8} {what}")
    print(
        f"slowest alone: {', '.join(f'{seconds:.2f} s' for seconds, _ in sorted(slowest)[:-6:-1]) or 'none'}"
    )
    print(f"biggest worker: {memory.biggest / 1e6:.1f} MB above an idle one; workers lost: {len(lost)}")
    print(f"workers replaced because a cancelled job did not stop in time: {stopped}")
    print(f"{len(found.faults)} faults")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
