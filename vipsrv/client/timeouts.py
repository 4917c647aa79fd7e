"""How long a client waits for each step of a call."""

import time
from dataclasses import dataclass, replace
from typing import Final, Literal

from vipsrv.errors import ClientTimeout

MAX_SECONDS = (2**31 - 1) // 1000
"""24 days, the most that poll() takes in milliseconds. Longer timeouts wrap modulo 2**32 ms.

``threading.TIMEOUT_MAX`` is larger on every system.
"""

LEAST_WAIT = 0.001
"""Seconds that a step may take after the deadline of its call: for a socket, 0 would mean something else."""

AUTO: Final = "auto"
"""The ``Timeout.ping`` that follows from the servers and the ``Retry`` of the client."""

PING_OF_SEVERAL = 1.5
"""Seconds for ``AUTO`` where another server can take the requests.

A server that works answers a PING within milliseconds, even if all its workers are busy.
"""

PING_OF_ONE = 5.0
"""Seconds for ``AUTO`` where there is no other server: a machine that is short of time is waited for."""

_STEPS = ("connect", "send", "reply", "ping", "call")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """Seconds for each step of a call; a step that takes longer raises ``ClientTimeout``.

    ``connect``: until the connection is made. ``send``: how long the server may neither accept nor send a
    single byte while the request is being sent. ``reply``: from the end of the request to the end of the
    reply. ``ping``: until the server answers a PING. A client sends one by itself when the server has been
    silent for half a second, to find out whether it still works. ``call``: the whole call, with all its
    attempts and the pauses between them. ``None`` waits without limit.

    By default (``"auto"``) ``ping`` is 1.5 seconds for a client of several servers, and 5 for a client of
    one; with ``Retry.none()``, where a call would fail for it, no such PING is sent.

    ``reply`` is longer by default than the time a server allows a request (``--deadline``), so that the
    server's own reason arrives before the client gives up.

    Raises ``ValueError`` for a value that is not above 0 and at most ``MAX_SECONDS``.
    """

    connect: float | None = 5.0
    send: float | None = 60.0
    reply: float | None = 120.0
    ping: float | Literal["auto"] | None = AUTO
    call: float | None = None

    def __post_init__(self) -> None:
        for name in _STEPS:
            seconds = getattr(self, name)
            if name == "ping" and seconds == AUTO:
                continue
            if seconds is not None and not 0 < seconds <= MAX_SECONDS:
                raise ValueError(
                    f"{name}: must be more than 0 and at most {MAX_SECONDS} seconds, or None to wait without "
                    f"limit; not {seconds}"
                )

    def __repr__(self) -> str:
        steps = (f"{name}={getattr(self, name)!r}" for name in _STEPS)
        return f"Timeout({', '.join(steps)})"

    @property
    def patience(self) -> float | None:
        """``ping`` in seconds; ``None`` if no server is asked."""
        return None if self.ping == AUTO else self.ping

    def decided(self, *, several: bool, sends_again: bool) -> "Timeout":
        """Return these with a ``ping`` for the servers and the ``Retry`` of a client."""
        if self.ping != AUTO:
            return self
        ping = None if not sends_again else PING_OF_SEVERAL if several else PING_OF_ONE
        return replace(self, ping=ping)

    def deadline(self) -> float | None:
        """Return when a call that begins now has to end, by ``time.monotonic``."""
        return None if self.call is None else time.monotonic() + self.call


def until_deadline(seconds: float | None, until: float | None) -> float | None:
    """Return how long a step may take: its own ``seconds``, or less if the call's deadline comes before."""
    if until is None:
        return seconds
    left = max(LEAST_WAIT, until - time.monotonic())
    return left if seconds is None else min(seconds, left)


def has_passed(until: float | None) -> bool:
    """Whether the deadline of a call has passed."""
    return until is not None and time.monotonic() >= until


def too_long(timeout: Timeout, doing: str) -> ClientTimeout:
    """Return the error for a call whose deadline has passed; ``doing`` tells what it was waiting for."""
    return ClientTimeout(f"the call took longer than its {timeout.call:g} s; {doing}")
