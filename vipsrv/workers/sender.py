"""Sends jobs to a worker. Bytes that the socket does not accept at once are sent when it has room."""

import socket
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from typing import Any


class Sender:
    """The sending side of a worker's socket; ``on_broken`` is called when a send finds it broken."""

    def __init__(
        self, loop: AbstractEventLoop, channel: socket.socket, on_broken: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._on_broken = on_broken
        self._unsent: list[memoryview] = []

    @property
    def busy(self) -> bool:
        """Whether bytes are still to be sent."""
        return bool(self._unsent)

    def send(self, views: list[memoryview], ancillary: Sequence[Any] = ()) -> None:
        """Send ``views``, with ``ancillary`` data, while nothing else is being sent. Raises ``OSError``."""
        sent = self._channel.sendmsg(views, ancillary)
        self._unsent = views
        self._drop_sent(sent)
        if self._unsent:
            self._loop.add_writer(self._channel.fileno(), self._writable)

    def append(self, view: memoryview) -> None:
        """Send ``view`` after the bytes that are still being sent."""
        self._unsent.append(view)
        if len(self._unsent) == 1:
            self._writable()

    def close(self) -> None:
        """Stop sending; called before the socket is closed."""
        self._loop.remove_writer(self._channel.fileno())

    def _writable(self) -> None:
        try:
            sent = self._channel.sendmsg(self._unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._on_broken()
            return
        self._drop_sent(sent)
        if self._unsent:
            self._loop.add_writer(self._channel.fileno(), self._writable)
        else:
            self._loop.remove_writer(self._channel.fileno())

    def _drop_sent(self, size: int) -> None:
        done = 0
        for view in self._unsent:
            if size < len(view):
                break
            size -= len(view)
            done += 1
        del self._unsent[:done]
        if size:
            self._unsent[0] = self._unsent[0][size:]
