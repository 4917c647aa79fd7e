"""A gateway that only passes bytes on, with the same system calls as vipsrv for version 2.

It is the least that a gateway in Python can cost. Nothing is checked, limited, timed, logged or cleaned up,
and any request that ``bench.tools.gateway`` does not send breaks it. Its workers resize by
``thumbnail_buffer``.

    python -m bench.baselines.bare_gateway WORKERS WIDTH HEIGHT
"""

import asyncio
import mmap
import os
import socket
import struct
import subprocess
import sys
from collections import deque
from typing import cast

import uvloop

from vipsrv.protocol import HEADER, REPLY, Kind

_SHARED = 8 << 20
_JOB = struct.Struct("!QII")
_REPLY = struct.Struct("!Q760x")  # as large as the reply of vipsrv's worker

_WORKER = """
import mmap, socket, struct, sys
import pyvips
pyvips.cache_set_max(0)
channel, shared = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
image = memoryview(mmap.mmap(shared, 8 << 20, prot=mmap.PROT_READ))
while job := channel.recv(16):
    size, width, height = struct.unpack("!QII", job)
    small = pyvips.Image.thumbnail_buffer(bytes(image[:size]), width, height=height, size="force")
    result = small.jpegsave_buffer(Q=85)
    channel.sendall(struct.pack("!Q760x", len(result)) + result)
"""

_scratch = memoryview(bytearray(64 * 1024))


class Worker:
    """A process that resizes the image in the memory that it shares with the gateway."""

    def __init__(self, pool: "Pool") -> None:
        ours, theirs = socket.socketpair()
        shared = os.memfd_create("bare")
        os.ftruncate(shared, _SHARED)
        inherited = (theirs.fileno(), shared)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, *map(str, inherited)],
            pass_fds=inherited,
            env={**os.environ, "VIPS_CONCURRENCY": "1"},
        )
        theirs.close()
        ours.setblocking(False)
        self._pool = pool
        self._channel = ours
        self._shared = memoryview(mmap.mmap(shared, _SHARED))
        self._result = memoryview(bytearray(1 << 20))
        self._filled = 0
        self._connection: Connection
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable)

    def run(self, connection: "Connection", image: memoryview) -> None:
        """Resize an image and send the result to its connection."""
        self._connection = connection
        self._shared[: len(image)] = image
        self._channel.send(_JOB.pack(len(image), connection.width, connection.height))

    def _readable(self) -> None:
        self._filled += self._channel.recv_into(self._result[self._filled :])
        if self._filled < _REPLY.size:
            return
        (size,) = _REPLY.unpack_from(self._result)
        if self._filled == _REPLY.size + size:
            self._filled = 0
            self._connection.reply(self._result[_REPLY.size : _REPLY.size + size])
            self._pool.idle(self)


class Pool:
    """The workers, and a queue of images."""

    def __init__(self, size: int) -> None:
        self._idle = [Worker(self) for _ in range(size)]
        self._waiting: deque[tuple[Connection, memoryview]] = deque()

    def submit(self, connection: "Connection", image: memoryview) -> None:
        """Start a job, or queue it."""
        if self._idle:
            self._idle.pop().run(connection, image)
        else:
            self._waiting.append((connection, image))

    def idle(self, worker: Worker) -> None:
        """Give a worker that has finished its next image."""
        if self._waiting:
            worker.run(*self._waiting.popleft())
        else:
            self._idle.append(worker)


class Connection(asyncio.BufferedProtocol):
    """One client that sends a request, waits for its reply and sends the next."""

    def __init__(self, pool: Pool, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._pool = pool
        self._transport: asyncio.Transport
        self._buffer = memoryview(b"")
        self._filled = self._size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the size is known
        """Receive the head and what follows it into the scratch buffer, the rest into the image's buffer."""
        return self._buffer[self._filled : self._size] if self._size else _scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Handle received bytes."""
        if self._size:
            self._filled += nbytes
        else:
            *_, meta_size, self._size = HEADER.unpack_from(_scratch)
            if len(self._buffer) < self._size:
                self._buffer = memoryview(bytearray(self._size))
            start = HEADER.size + meta_size
            self._filled = nbytes - start
            self._buffer[: self._filled] = _scratch[start:nbytes]
        if self._filled == self._size:
            self._pool.submit(self, self._buffer[: self._size])
            self._filled = self._size = 0

    def reply(self, result: memoryview) -> None:
        """Send a result."""
        head = HEADER.pack(0, b"VIPS", 2, Kind.RESIZE | REPLY, 200, 1, 0, len(result))
        self._transport.writelines([head, bytes(result)])


async def serve(workers: int, width: int, height: int) -> None:
    """Listen on a free loopback port, print it as ``vipsrv serve`` does, and serve until killed."""
    pool = Pool(workers)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(pool, width, height), "127.0.0.1", 0)
    print(f"vipsrv listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(*map(int, sys.argv[1:4])))
