"""The messages between the supervisor and a gateway: one JSON object a line, over a socketpair.

::

    supervisor                                    gateway
      START     settings, sockets, quotas ───►
                                                  starts its workers
      ◄─── STARTED, or FAILED with the reason
      SERVE ─────────────────────────────────►
      ◄─────────────────────────────── SERVING    accepts clients
      ◄───────────────────────────────── ALIVE    once a second, with what it has
      BORROW, GIVE_BACK ─────────────────────►    accepts from the sockets of another gateway, or no more
      PREPARE   new settings ────────────────►
      ◄──────── PREPARED, or FAILED with faults
      TAKE_OVER ─────────────────────────────►
      ◄──────────────────────────── TAKEN_OVER
      ◄──────────────────────────────── COLLECT    the figures of the others, by name
      SNAPSHOT ──────────────────────────────►     (to each of the others)
      ◄───────────────────────────────── VALUE     (from each of the others)
      COLLECTED ─────────────────────────────►
      DRAIN, LEAVE, STOP ────────────────────►
      ◄────────────────────────────── DRAINING
      ◄────────────────────────────────── LAST    its last counters

Both are processes of one version: the supervisor starts the gateway. The end of one side closes the channel
for the other.
"""

import asyncio
import json
import signal
import socket
from contextlib import suppress
from enum import StrEnum
from typing import Any, NamedTuple, Self

from vipsrv.errors import ProtocolError
from vipsrv.server.settings import ServerSettings

_MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of the longest message: settings with long lists."""

_OF_THE_SUPERVISOR = {
    "host",
    "port",
    "listen",
    "control",
    "takeover",
    "pid_file",
    "ops_file",
    "gateways",
}
"""Settings that no gateway gets."""


PASSED_OVER = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""Signals that say something to the supervisor only. It blocks them for each gateway that it starts, which
they would end while Python starts; the gateway then ignores them."""


class Kind(StrEnum):
    """What a message says."""

    START = "start"
    STARTED = "started"
    FAILED = "failed"
    SERVE = "serve"
    SERVING = "serving"
    ALIVE = "alive"
    BORROW = "borrow"
    GIVE_BACK = "give back"
    PREPARE = "prepare"
    PREPARED = "prepared"
    TAKE_OVER = "take over"
    TAKEN_OVER = "taken over"
    COLLECT = "collect"
    SNAPSHOT = "snapshot"
    VALUE = "value"
    COLLECTED = "collected"
    DRAIN = "drain"
    DRAINING = "draining"
    LEAVE = "leave"
    LAST = "last"
    STOP = "stop"


class Message(NamedTuple):
    """One message: its kind, and the values that go with it."""

    kind: Kind
    values: dict[str, Any]


class Channel:
    """One end of the channel, made by ``open``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> Self:
        """Use a socket, which then belongs to the channel."""
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=_MAX_MESSAGE))

    @classmethod
    async def pair(cls) -> tuple[Self, socket.socket]:
        """Return one end, and the socket of the other one for a process that inherits it. Raises
        ``OSError``.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        try:
            return await cls.open(ours), theirs
        except BaseException:
            ours.close()
            theirs.close()
            raise

    @property
    def is_read(self) -> bool:
        """Whether the other side has read what was sent so far, or the kernel holds it."""
        return not self._writer.transport.get_write_buffer_size()

    def send(self, kind: Kind, **values: Any) -> None:
        """Send a message. It is lost if the other side has ended, which ``receive`` then tells."""
        if not self._writer.transport.is_closing():
            self._writer.write(json.dumps({"kind": kind, **values}).encode() + b"\n")

    async def receive(self) -> Message | None:
        """Return the next message; ``None`` if the other side has ended. Raises ``ProtocolError``."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        try:
            values = json.loads(line)
            return Message(Kind(values.pop("kind")), values)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ProtocolError(f"this is no message of a gateway or supervisor: {line[:80]!r}") from None

    def close(self) -> None:
        """Close this end."""
        self._writer.close()

    async def close_sent(self) -> None:
        """Close this end after all that was sent has left."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


def pack_settings(settings: ServerSettings) -> dict[str, Any]:
    """Return settings as values of a message, without those that only the supervisor uses."""
    values: dict[str, Any] = json.loads(
        json.dumps(settings.model_dump(exclude=_OF_THE_SUPERVISOR), default=str)
    )
    return values


def unpack_settings(values: dict[str, Any]) -> ServerSettings:
    """Return the settings in a message."""
    return ServerSettings(**values)
