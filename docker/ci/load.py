"""Puts load on a vipsrv that has little memory, with sockets and `struct` alone like probe.py beside it.

usage: load.py corpus HOST PORT FOLDER   each file of the folder is answered, by a result or a reason
       load.py giant HOST PORT           a TIFF of 324 MB becomes a result
       load.py clients HOST PORT         32 clients at once, light and heavy images; all get their results
       load.py until-drained HOST PORT   32 clients that go on until the server refuses them because it stops;
                                         exit 1 if a request got no answer

A request that is refused as busy is sent again, as a client does.
"""
# ruff: noqa: INP001, T201 -- a program beside a script, in no package; its output is what it saw

import json
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

from probe import HEADER_V2, png, receive, receive_header_v2

OK, BUSY, DRAINING = 200, 429, 503
FIRST_FAULT_OF_SERVER = 500
RESIZE = 2
CLIENTS = 32
SECONDS = 120
"""How long any one wait, and the repetition of a busy request, may take."""

LARGEST_TIFF = 324_000_000


class NoAnswer(Exception):
    """The connection ended after a whole request was sent."""


class Client:
    """One connection of version 2 with one request at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, SECONDS)

    def resize(self, body: bytes | memoryview, width: int, height: int) -> int:
        """Return the status of the reply. Raises ``NoAnswer`` or, if it could not be sent, ``OSError``."""
        meta = json.dumps({"width": width, "height": height}).encode()
        self._socket.sendall(HEADER_V2.pack(0, b"VIPS", 2, RESIZE, 0, 1, len(meta), len(body)) + meta)
        try:
            self._socket.sendall(body)
        except OSError:
            # The server may have refused the request before it had all of it.
            with suppress(OSError, EOFError):
                return self._status()
            raise
        try:
            return self._status()
        except (EOFError, OSError) as error:
            raise NoAnswer(repr(error)) from None

    def _status(self) -> int:
        _kind, status, _request_id, meta_size, body_size = receive_header_v2(self._socket)
        receive(self._socket, meta_size + body_size)
        return status

    def is_closed(self) -> bool:
        """Whether the server has closed the connection, or is about to."""
        self._socket.setblocking(False)
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def ask(address: tuple[str, int], body: bytes | memoryview, width: int, height: int) -> int:
    """Return the status of one request on a connection of its own, which is repeated while it is busy."""
    end = time.monotonic() + SECONDS
    while True:
        client = Client(address)
        try:
            status = client.resize(body, width, height)
        finally:
            client.close()
        if status != BUSY or time.monotonic() > end:
            return status
        time.sleep(0.2)


def tiff(side: int) -> bytes:
    """An RGB TIFF of ``side`` x ``side`` pixels in strips, uncompressed (TIFF 6.0, sections 2 and 6)."""
    rows, row = 64, bytes(x * 255 // (side * 3) for x in range(side * 3))
    strips = [min(rows, side - first) for first in range(0, side, rows)]
    offsets = [8 + first * len(row) for first in range(0, side, rows)]
    directory = 8 + side * len(row)
    extra = directory + 2 + 10 * 12 + 4
    short, long = 3, 4
    entries = (
        (256, long, 1, side),
        (257, long, 1, side),
        (258, short, 3, extra),
        (259, short, 1, 1),
        (262, short, 1, 2),
        (273, long, len(strips), extra + 6),
        (277, short, 1, 3),
        (278, long, 1, rows),
        (279, long, len(strips), extra + 6 + 4 * len(strips)),
        (284, short, 1, 1),
    )
    return b"".join(
        (
            b"II*\0",
            struct.pack("<I", directory),
            row * side,
            struct.pack("<H", len(entries)),
            *(struct.pack("<HHII", *entry) for entry in entries),
            struct.pack("<I3H", 0, 8, 8, 8),
            struct.pack(f"<{len(strips)}I", *offsets),
            struct.pack(f"<{len(strips)}I", *(count * len(row) for count in strips)),
        )
    )


def corpus(address: tuple[str, int], folder: Path) -> Counter[int]:
    """Send every file of a folder; return how many got each status."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.stat().st_size]
    with ThreadPoolExecutor(8) as threads:
        return Counter(threads.map(lambda file: ask(address, file.read_bytes(), 200, 150), files))


def giant(address: tuple[str, int]) -> Counter[int]:
    """Send a TIFF of nearly 324 MB; return its status."""
    image = tiff(int((LARGEST_TIFF / 3) ** 0.5))
    return Counter([ask(address, memoryview(image), 800, 600)])


@cache
def images() -> tuple[tuple[bytes, int, int], ...]:
    """Images of a load, each with the size of its result: small ones, one for a file, and a heavy one."""
    small = [(png(640, 480), 200, 150), (png(301, 77, 4), 400, 300), (png(1200, 900), 800, 600)]
    return (*small * 3, (png(1800, 1700, noise=True), 800, 600), (png(6000, 5000), 800, 600))


def clients(address: tuple[str, int]) -> Counter[int]:
    """Serve many clients at once, each with all images on a connection of its own for each."""
    images()  # before the threads
    with ThreadPoolExecutor(CLIENTS) as threads:
        asked = [threads.submit(ask, address, *image) for _ in range(CLIENTS) for image in images()]
        return Counter(one.result() for one in asked)


def until_drained(address: tuple[str, int]) -> Counter[str]:
    """Send images over persistent connections until the server stops; return what became of the requests.

    Prints ``under load`` when all clients have had a reply, so that the server can be stopped then.
    """
    images()
    answered = threading.Barrier(CLIENTS + 1)
    with ThreadPoolExecutor(CLIENTS) as threads:
        running = [threads.submit(_go_on, address, number, answered.wait) for number in range(CLIENTS)]
        answered.wait(SECONDS)
        print("under load", flush=True)
        return sum((one.result() for one in running), Counter[str]())


def _go_on(address: tuple[str, int], number: int, has_begun: Callable[[], object]) -> Counter[str]:
    image = images()[number % 3]
    client = Client(address)
    seen: Counter[str] = Counter()
    while True:
        if client.is_closed():
            return seen + Counter(["closed while idle"])
        try:
            status = client.resize(*image)
        except NoAnswer as error:
            return seen + Counter([f"no answer: {error}"])
        except OSError as error:
            return seen + Counter([f"not sent: {error.strerror}"])
        if not seen:
            has_begun()
        seen[str(status)] += 1
        if status == DRAINING:
            return seen


def main(arguments: list[str]) -> None:
    """Does what the usage above says."""
    match arguments:
        case ["corpus", host, port, folder]:
            found = corpus((host, int(port)), Path(folder))
            fails = sum(count for status, count in found.items() if status >= FIRST_FAULT_OF_SERVER)
        case ["giant", host, port]:
            found = giant((host, int(port)))
            fails = found.total() - found[OK]
        case ["clients", host, port]:
            found = clients((host, int(port)))
            fails = found.total() - found[OK]
        case ["until-drained", host, port]:
            seen = until_drained((host, int(port)))
            print(f"  {dict(seen)}")
            sys.exit(1 if any(word.startswith("no answer") for word in seen) else 0)
        case _:
            sys.exit(__doc__)
    print(f"  {arguments[0]}: {', '.join(f'{count} x {status}' for status, count in sorted(found.items()))}")
    sys.exit(1 if fails else 0)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (EOFError, OSError, ValueError, NoAnswer) as error:
        print(f"load.py: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)  # other threads may still wait
