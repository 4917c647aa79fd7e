"""Hand-over of the listening sockets from a running server to its successor, over a unix socket.

::

    successor (--takeover)                            running server (--control PATH)
                                                      CLOSED ─► LISTENING
      take  ────────────────────────────────────────►             │ ▲
      ◄──────────────── offer, with the descriptors            OFFERED │ the successor fails, or takes
      starts its workers, then accepts clients, too               │ └──┘ too long: all is as before
      ready ────────────────────────────────────────►             ▼
      ◄──────────────────────────────────────── done         HANDED_OVER: accepts no more clients, drains

The sockets are never closed on the way, so no client is refused. The control socket is handed over, too: its
file stays where it is, and the next successor asks the new server.

Each message is one line of JSON with its ``kind`` and the ``format`` of the hand-over. A server refuses a
format that it does not know, and goes on.
"""

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, Self, TypedDict

from vipsrv.address import Wire
from vipsrv.errors import ProtocolError, StartFailed
from vipsrv.server.listeners import OfferedListener
from vipsrv.server.listening_sockets import OpenListener, UnixSocketFile, open_unix_socket
from vipsrv.version import __version__

FORMAT = 1
"""The version of the messages; it changes when a server could misunderstand another one."""

MESSAGE_SECONDS = 10.0
"""Seconds within which the other side has to send a message for which it has nothing to do first."""

START_SECONDS = 300.0
"""Seconds that a successor may take to start its workers."""

_MAX_MESSAGE = 64 * 1024
_MAX_DESCRIPTORS = 253  # SCM_MAX_FD of Linux
_MODE = 0o600
_ACCEPT_PAUSE_SECONDS = 1.0

_log = logging.getLogger(__name__)


class HandoverState(StrEnum):
    """The states of a server's control socket; see the diagram above."""

    CLOSED = "closed"
    LISTENING = "listening"
    OFFERED = "offered"
    HANDED_OVER = "handed over"


TRANSITIONS: dict[HandoverState, tuple[HandoverState, ...]] = {
    HandoverState.CLOSED: (HandoverState.LISTENING,),
    HandoverState.LISTENING: (HandoverState.OFFERED, HandoverState.CLOSED),
    HandoverState.OFFERED: (HandoverState.LISTENING, HandoverState.HANDED_OVER, HandoverState.CLOSED),
    HandoverState.HANDED_OVER: (HandoverState.CLOSED,),
}
"""The states that may follow each state."""


class OfferedListeners(Protocol):
    """The listening sockets that a server may hand over."""

    shared: bool
    """Whether another server listens on the same sockets: then ``close`` leaves the files to that."""

    def offer(self) -> list[OfferedListener]:
        """Return the sockets of all listeners."""

    def close(self) -> None:
        """Give all addresses up."""


class ControlSocket:
    """The socket at which successors ask for the ``listeners``: ``open`` or ``adopt``, ``start``, ``close``.

    ``on_handed_over`` is called with the successor's process id (``None`` if it is unknown) when the
    ``listeners`` are closed because the successor has them. ``on_shared`` is called with ``True`` before a
    successor gets the listeners, which from then on may accept clients as well, and with ``False`` if it
    fails.
    """

    def __init__(
        self,
        listeners: OfferedListeners,
        on_handed_over: Callable[[int | None], None],
        on_shared: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._listeners = listeners
        self._on_shared = on_shared
        self._on_handed_over = on_handed_over
        self._state = HandoverState.CLOSED
        self._socket: socket.socket | None = None
        self._file: UnixSocketFile | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def state(self) -> HandoverState:
        """The current state."""
        return self._state

    def open(self, path: Path) -> None:
        """Make the socket; successors have to wait until ``start``. Raises ``StartFailed``."""
        self._socket = open_unix_socket(path, _MODE)
        self._file = UnixSocketFile.at(path)
        self._enter(HandoverState.LISTENING)

    def adopt(self, control: OpenListener) -> None:
        """Use the control socket of the server before this one."""
        self._socket = control.sock
        self._file = control.file()
        self._enter(HandoverState.LISTENING)

    def start(self) -> None:
        """Answer successors; does nothing if there is no socket."""
        if self._socket is not None:
            self._serving = asyncio.get_running_loop().create_task(self._serve(self._socket))

    def close(self) -> None:
        """Answer no more successors. The file stays if a successor has the socket."""
        if self._state is HandoverState.CLOSED:
            return
        if self._state is HandoverState.LISTENING and self._file is not None:
            self._file.remove()
        handed_over = self._state is HandoverState.HANDED_OVER
        self._enter(HandoverState.CLOSED)
        if self._serving is not None and not handed_over:  # or it ends by itself
            self._serving.cancel()
        self._close_socket()

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _serve(self, control: socket.socket) -> None:
        """Answer one successor after another, until one of them has taken over."""
        while self._state is HandoverState.LISTENING:
            try:
                connection, _ = await asyncio.get_running_loop().sock_accept(control)
            except OSError as error:
                _log.warning("no successor can connect: %s", error.strerror)
                await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
                continue
            with connection:
                connection.setblocking(False)
                await self._answer(connection, control)

    async def _answer(self, connection: socket.socket, control: socket.socket) -> None:
        pid, uid = peer_of(connection)
        try:
            _check_user(uid, "the successor")
            async with asyncio.timeout(MESSAGE_SECONDS):
                message = await _receive(connection, "take")
            self._offer(connection, control, message.get("wires", [Wire.BINARY]))
            async with asyncio.timeout(START_SECONDS):
                await _receive(connection, "ready")
        except (ProtocolError, TimeoutError, OSError) as error:
            reason = str(error) or "it took too long"
            _log.warning("process %s did not take over, this server goes on: %s", pid or "?", reason)
            self._listeners.shared = False
            if self._state is HandoverState.OFFERED:
                self._enter(HandoverState.LISTENING)
                self._on_shared(False)
            await _send_if_possible(connection, "error", message=reason)
            return
        self._enter(HandoverState.HANDED_OVER)
        self._listeners.close()
        self._close_socket()
        _log.info("process %s has taken over the listeners", pid or "?")
        self._on_handed_over(pid)
        await _send_if_possible(connection, "done")

    def _offer(self, connection: socket.socket, control: socket.socket, wires: object) -> None:
        """Send all listening sockets to a successor that can serve ``wires``.

        Raises ``ProtocolError`` or ``OSError``.
        """
        offered = self._listeners.offer()
        # A version before HTTP would speak the binary protocol there.
        known = wires if isinstance(wires, list) else []
        unknown = {one.address.wire for one in offered if one.address.wire not in known}
        if Wire.OPS in unknown:  # which the clients do not need
            unknown.remove(Wire.OPS)
            offered = [one for one in offered if one.address.wire is not Wire.OPS]
        if unknown:
            raise ProtocolError(
                f"this server listens for {', '.join(sorted(unknown))}, which the successor's version does "
                "not know; stop this server instead"
            )
        if len(offered) >= _MAX_DESCRIPTORS:
            raise ProtocolError(f"{len(offered)} listeners are too many to hand over")
        message = _pack(
            "offer",
            server=f"vipsrv/{__version__}",
            listeners=[
                {"tls": one.address.tls, "wire": one.address.wire, "owned": one.owned} for one in offered
            ],
            control={"owned": self._file is not None},
        )
        self._enter(HandoverState.OFFERED)
        # Whoever of the two ends first must leave the files to the other.
        self._listeners.shared = True
        self._on_shared(True)
        descriptors = [*(one.descriptor for one in offered), control.fileno()]
        # The connection is new, so its buffer has room.
        if socket.send_fds(connection, [message], descriptors) != len(message):
            raise ProtocolError("the offer did not fit the socket")

    def _enter(self, state: HandoverState) -> None:
        if state not in TRANSITIONS[self._state]:
            raise RuntimeError(f"a control socket that is {self._state.value} cannot become {state.value}")
        self._state = state


class Takeover:
    """The listeners of a running server, taken by ``begin``; ``finish`` tells it that this one is ready."""

    def __init__(
        self, connection: socket.socket, listeners: list[OpenListener], control: OpenListener
    ) -> None:
        self.listeners = listeners
        self.control = control
        self._connection = connection

    @classmethod
    async def begin(cls, path: Path) -> Self | None:
        """Ask the server at ``path`` for its listeners; ``None`` if there is none. Raises ``StartFailed``."""
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        origin = f"the server at --control {path}"
        try:
            async with asyncio.timeout(MESSAGE_SECONDS):
                await asyncio.get_running_loop().sock_connect(connection, str(path))
                if os.geteuid():  # root may take over from any user
                    _check_user(peer_of(connection)[1], "it")
                await _send(connection, "take", server=f"vipsrv/{__version__}", wires=list(Wire))
                return cls(connection, *await _receive_offer(connection, origin))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        except TimeoutError:
            reason = f"no answer within {MESSAGE_SECONDS:g} s"
        except OSError as error:
            reason = error.strerror or str(error)
        except ProtocolError as error:
            reason = str(error)
        except BaseException:
            connection.close()
            raise
        connection.close()
        raise StartFailed(f"{origin} does not hand over: {reason}")

    async def finish(self) -> None:
        """Make the running server stop, now that this one accepts clients. Raises ``StartFailed``."""
        try:
            async with asyncio.timeout(MESSAGE_SECONDS):
                with suppress(BrokenPipeError):  # it has closed, and perhaps said why before
                    await _send(self._connection, "ready")
                await _receive(self._connection, "done")
        except (OSError, _Ended) as error:
            # It has left the files to this server.
            reason = str(error) or "it did not answer"
            _log.warning("the server before this one may have failed during the hand-over: %s", reason)
        except ProtocolError as error:
            raise StartFailed(f"the running server does not hand over: {error}") from None
        finally:
            self._connection.close()

    def abandon(self) -> None:
        """Give up: the running server goes on. Does nothing after ``finish``."""
        if self._connection.fileno() >= 0:
            self._connection.close()
            self.control.sock.close()


def peer_of(connection: socket.socket) -> tuple[int | None, int | None]:
    """Return the process and user id of the other side as the kernel knows them, ``None`` if it does not."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:  # not Linux; the mode of the file has to suffice
        return None, None
    layout = struct.Struct("3i")
    pid, uid, _ = layout.unpack(connection.getsockopt(socket.SOL_SOCKET, option, layout.size))
    return pid or None, uid


def _check_user(uid: int | None, who: str) -> None:
    """Raise ``ProtocolError`` if the other side, ``who``, is neither root nor the user of this process."""
    if uid not in (None, 0, os.geteuid()):
        raise ProtocolError(f"{who} belongs to user {uid}, and this server to user {os.geteuid()}")


# Messages


class _Ended(ProtocolError):
    """The other side has closed the connection."""


def _pack(kind: str, **fields: Any) -> bytes:
    return json.dumps({"kind": kind, "format": FORMAT, **fields}).encode() + b"\n"


def _unpack(line: bytes, expected: str) -> dict[str, Any]:
    """Return the fields of a message of the ``expected`` kind. Raises ``ProtocolError``."""
    if not line:
        raise _Ended("it ended")
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or "kind" not in message or not line.endswith(b"\n"):
        raise ProtocolError("what it sent is no message of a hand-over")
    if message.get("format") != FORMAT:
        raise ProtocolError(f"its hand-over has format {message.get('format')!r}, and this one {FORMAT}")
    if message["kind"] == "error":
        raise ProtocolError(str(message.get("message")))
    if message["kind"] != expected:
        raise ProtocolError(f"it sent {message['kind']!r} instead of {expected!r}")
    return message


async def _send(connection: socket.socket, kind: str, **fields: Any) -> None:
    await asyncio.get_running_loop().sock_sendall(connection, _pack(kind, **fields))


async def _send_if_possible(connection: socket.socket, kind: str, **fields: Any) -> None:
    with suppress(OSError, TimeoutError):  # the other side may be gone
        async with asyncio.timeout(MESSAGE_SECONDS):
            await _send(connection, kind, **fields)


async def _receive(connection: socket.socket, expected: str, begin: bytes = b"") -> dict[str, Any]:
    """Receive a message, of which ``begin`` has arrived. Raises ``ProtocolError`` or ``OSError``."""
    line = bytearray(begin)
    while not line.endswith(b"\n") and len(line) < _MAX_MESSAGE:
        data = await asyncio.get_running_loop().sock_recv(connection, _MAX_MESSAGE - len(line))
        if not data:
            break
        line += data
    return _unpack(bytes(line), expected)


async def _receive_offer(connection: socket.socket, origin: str) -> tuple[list[OpenListener], OpenListener]:
    """Receive an offer: the listeners and the control socket. Raises as ``_receive``, or ``StartFailed``."""
    await _readable(connection)
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    begin, received, _, _ = socket.recv_fds(connection, _MAX_MESSAGE, _MAX_DESCRIPTORS, flags)
    left = list(received)
    opened = []
    try:
        message = await _receive(connection, "offer", begin)
        for kind in _kinds_of(message, len(received)):
            opened.append(OpenListener.of(left[0], f"a socket of {origin}", **kind))
            del left[0]
    except BaseException:
        for descriptor in left:
            os.close(descriptor)
        raise
    *taken, control = opened
    return taken, control


class _Kind(TypedDict):
    """What kind of listener a socket is."""

    tls: bool
    wire: Wire
    owned: bool


def _kinds_of(message: dict[str, Any], descriptors: int) -> list[_Kind]:
    """Return of each socket in an offer what is spoken there, and whether its file goes with it.

    The control socket is the last one. Raises ``ProtocolError``.
    """
    try:
        kinds: list[_Kind] = [
            {"tls": bool(one["tls"]), "wire": Wire(one.get("wire", Wire.BINARY)), "owned": bool(one["owned"])}
            for one in message["listeners"]
        ]
        kinds.append({"tls": False, "wire": Wire.BINARY, "owned": bool(message["control"]["owned"])})
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ProtocolError("its offer is incomplete") from None
    if descriptors != len(kinds):
        raise ProtocolError(f"it sent {descriptors} sockets instead of {len(kinds)}")
    return kinds


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)
