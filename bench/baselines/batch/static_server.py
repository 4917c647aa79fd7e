"""A server on loopback that gives the files of one folder over HTTP/1.1, for programs that download.

A process of its own, so that its CPU time can be told from that of the program that downloads. It keeps
connections, sends a file by ``sendfile`` and knows nothing else.
"""

import asyncio
import contextlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Self

from bench import ROOT
from bench.measuring.processes import cpu_seconds

_GET = re.compile(rb"(?:GET|HEAD) /([\w.-]+) HTTP/1\.[01]\r\n")
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
_LONGEST_HEAD = 65_536
_READY = re.compile(r"listening on (\d+)\n")


class StaticServer:
    """The server of a folder, in a process that runs while the ``with`` lasts."""

    def __init__(self, folder: Path) -> None:
        self._command = [sys.executable, "-m", __name__, str(folder)]
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self._process.stdout is not None
        ready = _READY.fullmatch(self._process.stdout.readline())
        if ready is None:
            self._process.wait()
            raise RuntimeError("the server of the files did not start; its messages are above")
        self.url = f"http://127.0.0.1:{ready[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def cpu_seconds(self) -> float:
        """User and system time of the server so far."""
        return cpu_seconds(self._process.pid)


async def _serve(folder: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            found = _GET.match(head)
            path = folder / found[1].decode() if found else folder
            if not path.is_file():
                writer.write(_NOT_FOUND)
                continue
            with path.open("rb") as file:
                size = path.stat().st_size
                kind = "image/jpeg" if path.suffix == ".jpg" else "application/octet-stream"
                text = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n"
                writer.write(text.encode())
                await writer.drain()
                if not head.startswith(b"HEAD"):
                    await loop.sendfile(writer.transport, file)


async def _main(folder: Path) -> None:
    server = await asyncio.start_server(
        lambda reader, writer: _serve(folder, reader, writer),
        "127.0.0.1",
        0,
        limit=_LONGEST_HEAD,
        backlog=1024,
    )
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
