"""The states of an upload in this process.

::

    RECEIVING ── all has arrived ──► READING ◄── a request takes it ── COMPLETE
        │                              │                                  ▲
        │ nobody fills it              │ no request works on it           │
        └──────────► SETTLING ◄────────┘                                  │
                        │  in memory, or a thread still writes            │
                        ├── it is all there ──────────────────────────────┘
                        └── it lacks bytes ──► WAITING ── goes on ──► RECEIVING

    any ── expired, refused room, begun anew, terminated ──► REMOVED

In SETTLING it may be taken again at once, except while a thread reads from the socket of its old connection.
"""

from enum import Enum, auto


class UploadState(Enum):
    """The states of an upload; see the diagram above."""

    RECEIVING = auto()
    """A connection fills it."""
    READING = auto()
    """All bytes have arrived, and requests work on them."""
    SETTLING = auto()
    """Nobody uses it, and its last bytes are being written."""
    WAITING = auto()
    """Nobody uses it, and it lacks bytes."""
    COMPLETE = auto()
    """Nobody uses it, and all bytes have arrived."""
    REMOVED = auto()
    """It is not found any more. Requests that still work on its bytes keep them."""


TRANSITIONS: dict[UploadState, frozenset[UploadState]] = {
    UploadState.RECEIVING: frozenset({UploadState.READING, UploadState.SETTLING, UploadState.REMOVED}),
    UploadState.READING: frozenset({UploadState.SETTLING, UploadState.REMOVED}),
    UploadState.SETTLING: frozenset(
        {
            *(UploadState.RECEIVING, UploadState.READING),
            *(UploadState.WAITING, UploadState.COMPLETE, UploadState.REMOVED),
        }
    ),
    UploadState.WAITING: frozenset({UploadState.RECEIVING, UploadState.SETTLING, UploadState.REMOVED}),
    UploadState.COMPLETE: frozenset({UploadState.READING, UploadState.SETTLING, UploadState.REMOVED}),
    UploadState.REMOVED: frozenset(),
}
"""The states that may follow each state."""

IDLE = (UploadState.WAITING, UploadState.COMPLETE)
"""The states in which an upload may be removed for want of room."""
