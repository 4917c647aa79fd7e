"""A bad network: a TCP proxy that cuts, resets, stalls and reorders connections.

::

    client ──► BadNetwork ──► server
                  └─ faults(number of the connection) → Fault or None

``python -m bench.tools.bad_network`` uses it, too. What it does follows from the numbers of the connections
and the bytes that it has read, and not from time.
"""

import asyncio
import fcntl
import random
import socket
import struct
import termios
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import Self, cast

READ_SIZE = 256 * 1024

ACKNOWLEDGED_EVERY = 0.001
"""Seconds between looks whether the server's machine has all bytes that are sent before a reset."""


class Ending(Enum):
    """How a connection ends after a number of bytes of the client."""

    CUT = auto()
    """Both sides see an orderly end (FIN), the server after all that was read."""
    RESET = auto()
    """Both sides see a reset (RST), the server after all that was read has been sent to it."""
    STALL = auto()
    """Nothing moves for ``seconds``; then both sides see a reset."""
    LATE = auto()
    """The client sees a reset. The server gets the last ``held`` bytes, and the end, only after the next
    connection has brought it bytes, or after ``seconds``.
    """
    NO_REPLY = auto()
    """The first byte that the server sends from then on resets both sides, and so do as many bytes of the
    client again.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A connection has this ``ending`` after exactly ``after`` bytes of the client have been read."""

    ending: Ending
    after: int
    seconds: float = 0.0
    held: int = 0


Faults = Callable[[int], Fault | None]
"""What happens to a connection, by its number from 0; ``None`` for nothing."""

CUTS = (Ending.CUT, Ending.RESET)
ALL_ENDINGS = (*(CUTS * 3), Ending.STALL, Ending.LATE, Ending.NO_REPLY)


def cut_every(
    size: int,
    *,
    seed: int = 0,
    endings: Sequence[Ending] = CUTS,
    stall_seconds: float = 0.2,
    held: int | None = None,
    limit: int | None = None,
) -> Faults:
    """Cut each connection after ``size`` bytes, the first one somewhere before that.

    Each ending is one of ``endings``, chosen by ``seed``. A ``LATE`` one holds ``held`` bytes, by default one
    part in a hundred of ``size``. Connections from number ``limit`` on have no fault.
    """

    def fault(number: int) -> Fault | None:
        if limit is not None and number >= limit:
            return None
        chance = random.Random(f"{seed} {number}")
        return Fault(
            ending=chance.choice(endings),
            after=chance.randint(min(1024, size), size) if number == 0 else size,
            seconds=stall_seconds,
            held=size // 100 if held is None else held,
        )

    return fault


def no_faults(number: int) -> Fault | None:  # noqa: ARG001 - the signature of faults
    """Leave every connection alone."""
    return None


class BadNetwork:
    """Listens on a free loopback ``port`` and forwards to ``server_port`` until the end of the ``with``.

    ``accepted`` is how many bytes of clients have been read, ``delivered`` how many of them were handed to
    the server's sockets, and ``connections`` how many connections there were. It runs in a thread of its own.
    ``faults`` may be replaced; it concerns connections that are made later.
    """

    def __init__(self, server_port: int, faults: Faults = no_faults, *, host: str = "127.0.0.1") -> None:
        self.host = host
        self.server_port = server_port
        self.faults = faults
        self.accepted = 0
        self.delivered = 0
        self.connections = 0
        self.transports: set[asyncio.Transport] = set()
        self._open: set[_ClientSide] = set()
        self._late: list[Callable[[], None]] = []
        self._listener = socket.create_server((host, 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Event = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="bad-network", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Reset all connections and stop listening."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def reset_all(self) -> None:
        """Reset the connections that are open now, as when a line goes down."""
        self._loop.call_soon_threadsafe(self._reset_all)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        listening = await self._loop.create_server(lambda: _ClientSide(self), sock=self._listener)
        await self._stop.wait()
        listening.close()
        for side in list(self._open):
            side.cancel_connecting()
        while self.transports:
            for transport in list(self.transports):
                _reset(transport)
            await asyncio.sleep(0)  # lets them close their sockets

    def _reset_all(self) -> None:
        for side in list(self._open):
            side.reset_both()

    def begin(self, side: "_ClientSide") -> Fault | None:
        """Count a connection and return its fault."""
        self._open.add(side)
        number, self.connections = self.connections, self.connections + 1
        return self.faults(number)

    def end(self, side: "_ClientSide") -> None:
        """Forget a connection that has ended on both sides."""
        self._open.discard(side)

    def hold(self, finish: Callable[[], None], seconds: float) -> None:
        """Call ``finish`` when the next connection has brought bytes, or after ``seconds``."""

        def once() -> None:
            if finish in self._late:
                self._late.remove(finish)
                finish()

        self._late.append(finish)
        self._loop.call_later(seconds, once)

    def deliver_late(self) -> None:
        """Note that a connection has brought bytes to the server: what earlier ones hold comes after them."""
        late, self._late = self._late, []
        for finish in late:
            self._loop.call_soon(finish)

    async def connect(self, side: "_ClientSide") -> None:
        """Connect a client's connection to the server, or reset it if the server does not listen."""
        try:
            await self._loop.create_connection(lambda: _ServerSide(self, side), self.host, self.server_port)
        except OSError:
            side.reset_both()


class _ClientSide(asyncio.BufferedProtocol):
    """The connection of a client; it reads exactly as many bytes as its fault allows."""

    def __init__(self, network: BadNetwork) -> None:
        self._network = network
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._read = 0
        self._held = bytearray()
        self._resetting = False
        self._connecting: asyncio.Task[None] | None = None
        self.fault: Fault | None = None
        self.transport: asyncio.Transport | None = None
        self.server: asyncio.Transport | None = None
        self.deaf = False  # whether nothing more goes to the client
        self._ended = 0  # how many of the two sides have ended in an orderly way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._network.transports.add(self.transport)
        self.transport.pause_reading()
        self.fault = self._network.begin(self)
        self._connecting = asyncio.ensure_future(self._network.connect(self))

    def connected(self, server: asyncio.Transport) -> None:
        self.server = server
        if self.transport is None:
            _reset(server)
        else:
            self.transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - as much as the fault allows
        if self.fault is None:
            return self._buffer
        limit = 2 * self.fault.after if self.deaf else self.fault.after
        return self._buffer[: max(1, limit - self._read)]

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._buffer[:nbytes])
        first, self._read = not self._read, self._read + nbytes
        self._network.accepted += nbytes
        fault = self.fault
        if fault is not None and fault.ending is Ending.LATE:
            sent_now = max(0, len(data) - max(0, self._read - max(0, fault.after - fault.held)))
            self._held += data[sent_now:]
            data = data[:sent_now]
        self._deliver(data)
        if first:
            self._network.deliver_late()
        if fault is None or self._read < fault.after:
            return
        if not self.deaf:
            self._end(fault)
        elif self._read >= 2 * fault.after:
            self.reset_both()

    def _deliver(self, data: bytes) -> None:
        if data and self.server is not None and not self.server.is_closing():
            self._network.delivered += len(data)
            self.server.write(data)

    def _end(self, fault: Fault) -> None:
        server, client = self.server, self.transport
        if server is None or client is None:
            return
        if fault.ending is Ending.NO_REPLY:
            self.deaf = True
        elif fault.ending is Ending.CUT:
            server.close()
            client.close()
        elif fault.ending is Ending.RESET:
            self.reset_both()
        elif fault.ending is Ending.STALL:
            client.pause_reading()
            self.deaf = True
            asyncio.get_running_loop().call_later(fault.seconds, self.reset_both)
        else:
            held = bytes(self._held)

            def finish() -> None:
                self._deliver(held)
                server.close()

            self._network.hold(finish, fault.seconds)
            self.deaf = True
            _reset(client)

    def cancel_connecting(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()

    def reset_both(self) -> None:
        self._resetting = True
        if self.transport is not None:
            _reset(self.transport)
        if self.server is not None:
            _reset_when_sent(self.server)

    def eof_received(self) -> bool:
        if self.server is not None and not self.server.is_closing():
            self.server.write_eof()
        self.count_end()
        return True  # the replies still come

    def count_end(self) -> None:
        """Note that one side has ended in an orderly way; close both after the second one."""
        self._ended += 1
        if self._ended == 2:
            for transport in (self.server, self.transport):
                if transport is not None:
                    transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - any reason
        if self.transport is not None:
            self._network.transports.discard(self.transport)
        self.transport = None
        held = self.fault is not None and self.fault.ending is Ending.LATE and self.deaf
        if self.server is None:
            self._network.end(self)
        elif not (self.server.is_closing() or held or self._resetting):
            self.server.close()

    def server_lost(self) -> None:
        self.server = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
        self._network.end(self)

    def pause_writing(self) -> None:
        if self.server is not None and not self.server.is_closing():
            self.server.pause_reading()

    def resume_writing(self) -> None:
        if self.server is not None and not self.server.is_closing():
            self.server.resume_reading()


class _ServerSide(asyncio.Protocol):
    """The connection to the server that belongs to a client's."""

    def __init__(self, network: BadNetwork, side: _ClientSide) -> None:
        self._network = network
        self._side = side
        self._reset_when_sent = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._network.transports.add(self._transport)
        self._transport.set_write_buffer_limits(high=0)
        self._side.connected(self._transport)

    def data_received(self, data: bytes) -> None:
        client = self._side.transport
        if client is None or client.is_closing():
            return
        if not self._side.deaf:
            client.write(data)
        elif self._side.fault is not None and self._side.fault.ending is Ending.NO_REPLY:
            self._side.reset_both()

    def eof_received(self) -> bool:
        client = self._side.transport
        if client is not None and not client.is_closing():
            if not self._side.deaf:
                client.write_eof()
            elif not self._stalled:
                self._side.reset_both()
        self._side.count_end()
        return True  # what the client sends still goes to the server

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - any reason
        if self._transport is not None:
            self._network.transports.discard(self._transport)
        self._side.server_lost()

    def pause_writing(self) -> None:
        client = self._side.transport
        if client is not None and not client.is_closing():
            client.pause_reading()

    def resume_writing(self) -> None:
        client = self._side.transport
        if self._reset_when_sent:
            # Not from within the write of the transport, which would end it a second time.
            asyncio.get_running_loop().call_soon(self._reset_when_acknowledged)
        elif client is not None and not client.is_closing() and not self._stalled:
            client.resume_reading()

    @property
    def _stalled(self) -> bool:
        fault = self._side.fault
        return self._side.deaf and fault is not None and fault.ending is Ending.STALL

    def reset_when_sent(self) -> None:
        """Reset the connection after what was written has arrived at the server's machine."""
        if not self._reset_when_sent:
            self._reset_when_sent = True
            self._reset_when_acknowledged()

    def _reset_when_acknowledged(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return
        if _unacknowledged(transport.get_extra_info("socket")):  # a reset would discard these
            asyncio.get_running_loop().call_later(ACKNOWLEDGED_EVERY, self._reset_when_acknowledged)
        else:
            _reset(transport)


def _unacknowledged(sock: socket.socket) -> int:
    (size,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    return cast(int, size)


def _reset_when_sent(server: asyncio.Transport) -> None:
    cast(_ServerSide, server.get_protocol()).reset_when_sent()


def _reset(transport: asyncio.Transport) -> None:
    """Close a connection so that the other side sees a reset."""
    if not transport.is_closing():
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
