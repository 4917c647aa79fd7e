"""Finds out whether a server that has been silent for a while still works: it decides, without I/O.

A server that hangs, or a machine that is gone, says nothing, and the kernel of a hung server goes on to
accept connections and bytes. A server that works answers a PING at once, even if all its workers are busy. So
a connection asks after a short silence, and is given up long before the time that a resize may take.

::

    HEARD ── silent, can ask ──► ASKED ── no answer in time ──► given up
      ▲  └── silent, cannot ──► DOUBTED                           ▲
      │                            │ a PING over a connection of  │
      └── bytes, or the network ───┘ its own is not answered ─────┘
          takes more of ours

It cannot ask within an image that is being sent, nor when the server may have stopped reading because of the
requests in flight.

A false alarm fails calls that would have succeeded. So bytes that have arrived and were not read yet are an
answer, and the time in which this process did not run does not count.
"""

import struct
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

try:
    import fcntl
    import termios
except ImportError:  # Windows
    _QUEUE = _ARRIVED = 0
else:
    _QUEUE, _ARRIVED = termios.TIOCOUTQ, termios.FIONREAD

ASK_AFTER = 0.5
"""Seconds of silence, while a request waits for its reply, after which a server is asked."""

MOST_LATE = 1.0
"""Seconds that a look may come later than planned. With more, this process or the whole machine stood still.

A thread that sends looks up to ``ASK_AFTER`` later than it is told, as that is how long its socket waits.
"""

MOST_IN_FLIGHT = 30
"""Requests in flight with which a PING is still read: the limit of a server is 32 for each connection."""

SLOWER_IF_UNKNOWN = 10
"""How many times as long a PING may take where the system does not tell how many bytes are not yet sent."""


class SilenceState(Enum):
    """What is known of the other side."""

    HEARD = auto()
    """Something has arrived, or was accepted, since the last question."""
    ASKED = auto()
    """A PING is out, over the connection itself."""
    DOUBTED = auto()
    """It was to be asked over another connection."""


class Action(Enum):
    """What a connection has to do now."""

    WAIT = auto()
    """Nothing."""
    ASK = auto()
    """Send a PING."""
    DOUBT = auto()
    """Have the server asked over another connection."""
    GIVE_UP = auto()
    """End all requests in flight."""


class Look(NamedTuple):
    """What to do, and after how many seconds to look again."""

    action: Action
    wait: float


class Silence:
    """The silence of one connection. A PING has to be answered within ``patience`` seconds.

    Whoever receives bytes sets ``heard``. ``clock`` is for tests.
    """

    __slots__ = ("_accepted", "_clock", "_due", "_patience", "_since", "_state", "heard")

    def __init__(self, patience: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._state = SilenceState.HEARD
        self._since = 0.0  # when it was asked or doubted
        self._due = 0.0  # when it is to be looked at again
        self._accepted = 0
        self.heard = 0.0
        """When the last bytes arrived, by the clock."""

    def look(
        self, since: float, *, accepted: int, queued: int | None, can_ask: bool, arrived: bool = False
    ) -> Look:
        """Return what to do for a request that was sent, or has been waiting to be sent, ``since`` a time.

        ``accepted`` bytes of all that was to be sent have left this machine; ``queued`` have not, and
        ``None`` says that the system does not tell. While the network still takes bytes, the other side has
        not seen the request yet, and its silence says nothing. ``arrived`` is whether bytes wait to be read.
        """
        now = self._clock()
        look = self._look(now, since, accepted=accepted, queued=queued, can_ask=can_ask, arrived=arrived)
        self._due = now + look.wait
        return look

    def _look(
        self, now: float, since: float, *, accepted: int, queued: int | None, can_ask: bool, arrived: bool
    ) -> Look:
        if arrived or (self._state is not SilenceState.HEARD and now > self._due + MOST_LATE):
            self.heard = now
        if queued != 0 and accepted > self._accepted:
            self.heard = now
        self._accepted = max(accepted, self._accepted)
        if self._state is not SilenceState.HEARD and self.heard >= self._since:
            self._state = SilenceState.HEARD
        patience = self._patience if queued is not None else self._patience * SLOWER_IF_UNKNOWN
        if self._state is not SilenceState.HEARD:
            left = self._since + patience - now
            if left > 0:
                return Look(Action.WAIT, left)
            if self._state is SilenceState.ASKED:
                return Look(Action.GIVE_UP, patience)
        else:
            left = max(self.heard, since) + ASK_AFTER - now
            if left > 0:
                return Look(Action.WAIT, left)
        self._since = now
        self._state = SilenceState.ASKED if can_ask else SilenceState.DOUBTED
        return Look(Action.ASK if can_ask else Action.DOUBT, min(patience, ASK_AFTER))


def has_arrived(descriptor: int) -> bool:
    """Whether bytes have arrived at a socket that were not read yet; not if nothing tells."""
    return bool(_ARRIVED and _ask_system(descriptor, _ARRIVED))


def queued_bytes(descriptor: int) -> int | None:
    """Return how many bytes of a socket the other machine has not accepted; ``None`` if nothing tells."""
    return _ask_system(descriptor, _QUEUE) if _QUEUE else None


def _ask_system(descriptor: int, what: int) -> int | None:
    try:
        (number,) = struct.unpack("i", fcntl.ioctl(descriptor, what, bytes(4)))
    except OSError:  # a system that knows it of terminals only, or the socket has been closed
        return None
    return int(number)
