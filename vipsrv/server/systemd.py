"""What systemd tells a service, and what the service tells systemd: sd_notify, watchdog, socket activation.

All three are environment variables and datagrams (man 3 sd_notify, sd_watchdog_enabled, sd_listen_fds), so no
library is needed. The functions that read variables remove them: they are meant for this process alone.
"""

import logging
import os
import socket
import time
from collections.abc import Callable

from vipsrv.address import Wire
from vipsrv.errors import Draining
from vipsrv.server.listening_sockets import OpenListener

_FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START

_log = logging.getLogger(__name__)


class Notifier:
    """Sends the state of this process to the service manager; does nothing if it was started without one."""

    def __init__(self, where: str | None, *, watchdog_seconds: float | None = None) -> None:
        self.watchdog_seconds = watchdog_seconds
        """The service manager kills this process if it gets no ``alive`` for so long; ``None`` if never."""
        self._where: str | None = None
        self._failed = False
        if not where:
            return
        if where[0] not in "/@":
            _log.warning("NOTIFY_SOCKET=%s is passed over: only sockets of this machine are supported", where)
            return
        self._where = f"\0{where[1:]}" if where[0] == "@" else where
        # Kept open, so that the watchdog needs no descriptor when none is left.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, *, successor: bool = False) -> "Notifier":
        """Read ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``, and remove them.

        The watchdog of another process is not ours, unless this one is its ``successor``.
        """
        where = os.environ.pop("NOTIFY_SOCKET", None)
        period = os.environ.pop("WATCHDOG_USEC", "")
        owner = os.environ.pop("WATCHDOG_PID", "")
        is_ours = successor or not owner or owner == str(os.getpid())
        seconds = int(period) / 1e6 if is_ours and period.isdecimal() and int(period) else None
        return cls(where, watchdog_seconds=seconds)

    def ready(self, status: str) -> None:
        """The server accepts requests: it has started, or has finished to reload."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(f"STATUS={_one_line(text)}")

    def reloading(self) -> None:
        """A reload begins. It ends with ``ready``, also if it was refused: the server goes on."""
        microseconds = time.monotonic_ns() // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """The server accepts no more clients, and ends when the requests in flight are done."""
        self._send("STOPPING=1\nSTATUS=finishing the requests in flight")

    def alive(self) -> None:
        """The server works; see ``watchdog_seconds``."""
        self._send("WATCHDOG=1")

    def main_process(self, pid: int) -> None:
        """The process ``pid`` is the service from now on."""
        self._send(f"MAINPID={pid}")

    def _send(self, message: str) -> None:
        if self._where is None:
            return
        try:
            self._socket.sendto(message.encode(errors="replace"), self._where)
        except OSError as error:
            if not self._failed:
                _log.warning(
                    "the service manager cannot be told %s: %s", message.partition("\n")[0], error.strerror
                )
            self._failed = True
        else:
            self._failed = False

    def close(self) -> None:
        """Send nothing more."""
        if self._where is not None:
            self._where = None
            self._socket.close()


class Watchdog:
    """Tells the service manager twice in each period that the server works, as long as that is true.

    ``check`` is called by the event loop, so a loop that is stuck sends nothing; neither does a server whose
    ``check_ready`` raises ``Draining`` because it has no worker.
    """

    def __init__(self, notifier: Notifier, check_ready: Callable[[], None]) -> None:
        self._notifier = notifier
        self._check_ready = check_ready
        self._interval = (notifier.watchdog_seconds or 0) / 2
        self._next = 0.0
        self._healthy = True

    def check(self, now: float) -> None:
        """Send a sign of life if one is due at ``now``; call this often."""
        if not self._interval or now < self._next:
            return
        self._next = now + self._interval
        try:
            self._check_ready()
        except Draining as error:
            if self._healthy:
                _log.error("the service manager's watchdog gets no more signs of life: %s", error)
            self._healthy = False
        else:
            self._healthy = True
            self._notifier.alive()


def inherited_listeners() -> list[OpenListener]:
    """Return the sockets that systemd has opened for this process (socket activation).

    The name of a socket (``FileDescriptorName=`` of its unit) says what is spoken there: ``tls``, ``http``,
    ``https``, ``ops``, or anything that ends so.
    Reads ``LISTEN_PID``, ``LISTEN_FDS`` and ``LISTEN_FDNAMES`` and removes them. Raises ``StartFailed`` if a
    descriptor is not a listening stream socket.
    """
    pid = os.environ.pop("LISTEN_PID", "")
    number = os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if not number.isdecimal() or not int(number):
        return []
    if pid != str(os.getpid()):
        _log.warning(
            "LISTEN_FDS is passed over: its sockets are for process %s, and this is process %d; start the "
            "server by 'exec' if a script starts it",
            *(pid or "?", os.getpid()),
        )
        return []
    listeners = []
    for index in range(int(number)):
        descriptor = _FIRST_DESCRIPTOR + index
        name = names[index] if index < len(names) else ""
        origin = f"descriptor {descriptor} of LISTEN_FDS ({name or 'without a name'})"
        tls, wire = _kind_of(name)
        listeners.append(OpenListener.of(descriptor, origin, tls=tls, wire=wire))
    return listeners


def _kind_of(name: str) -> tuple[bool, Wire]:
    """Return whether a socket with this name is encrypted, and what is spoken there."""
    if name.endswith(("http", "https")):
        return name.endswith("s"), Wire.HTTP
    if name.endswith("ops"):
        return False, Wire.OPS
    return name.endswith("tls"), Wire.BINARY


def _one_line(text: str) -> str:
    return " ".join(text.split())
