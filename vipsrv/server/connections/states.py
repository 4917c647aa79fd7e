"""The states of a connection.

::

             header refused, body too large, idle and its place is needed
    OPEN ──────────────────────────────────────────────────────────► LINGERING ──► CLOSED
     │ │ ▲                                            reads and discards for a bounded time,
     │ │ └─ request after request (version 2)         so that the reply is not lost to a reset
     │ │
     │ └──► HALF_CLOSED ─────────────────────────┐
     │      the client has shut down its sending │
     │      side; its replies are due            ▼
     └────────────────────────────────────────► CLOSING ─────────────────────────► CLOSED
       version 1 reply, idle, end of file       sends the last replies

    OPEN ── no place ──────────────────────────► EXCESS ────┐  a PING is answered, all else gets ``Busy``
    OPEN ── a drain, and nothing is in flight ─► DRAINING ──┴► LINGERING, when its time is over
         ◄─ a request that is served anyway ────

A client that has to log in first is ANONYMOUS until it has (``login.py``); a client of HTTP never is, because
each of its requests shows who sends it. From there it becomes OPEN, or what may follow OPEN, but not
DRAINING, in which requests may be served. EXCESS and DRAINING read on for a while, because requests may be on
their way, and answer all of them. If the client ends its side while replies are due,
LINGERING becomes CLOSING. A connection that is lost becomes CLOSED from any state.
"""

from enum import StrEnum


class ConnectionState(StrEnum):  # not Enum, whose hash is a Python function
    """The states of a connection; see the diagram above."""

    ANONYMOUS = "anonymous"
    OPEN = "open"
    EXCESS = "excess"
    DRAINING = "draining"
    HALF_CLOSED = "half closed"
    LINGERING = "lingering"
    CLOSING = "closing"
    CLOSED = "closed"


TRANSITIONS: dict[ConnectionState, tuple[ConnectionState, ...]] = {
    ConnectionState.ANONYMOUS: (
        ConnectionState.OPEN,
        ConnectionState.EXCESS,
        ConnectionState.HALF_CLOSED,
        ConnectionState.LINGERING,
        ConnectionState.CLOSING,
        ConnectionState.CLOSED,
    ),
    ConnectionState.OPEN: (
        ConnectionState.EXCESS,
        ConnectionState.DRAINING,
        ConnectionState.HALF_CLOSED,
        ConnectionState.LINGERING,
        ConnectionState.CLOSING,
        ConnectionState.CLOSED,
    ),
    ConnectionState.EXCESS: (
        ConnectionState.HALF_CLOSED,
        ConnectionState.LINGERING,
        ConnectionState.CLOSING,
        ConnectionState.CLOSED,
    ),
    ConnectionState.DRAINING: (
        ConnectionState.OPEN,
        ConnectionState.HALF_CLOSED,
        ConnectionState.LINGERING,
        ConnectionState.CLOSING,
        ConnectionState.CLOSED,
    ),
    ConnectionState.HALF_CLOSED: (ConnectionState.CLOSING, ConnectionState.CLOSED),
    ConnectionState.LINGERING: (ConnectionState.CLOSING, ConnectionState.CLOSED),
    ConnectionState.CLOSING: (ConnectionState.CLOSED,),
    ConnectionState.CLOSED: (),
}
"""The states that may follow each state."""

BEGINNING = (ConnectionState.ANONYMOUS, ConnectionState.OPEN)
"""The states in which a connection waits for a message; idle in one of them, it may be closed for another."""

READING = (*BEGINNING, ConnectionState.EXCESS, ConnectionState.DRAINING)
"""The states in which messages are read."""
