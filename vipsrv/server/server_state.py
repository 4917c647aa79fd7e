"""The states of a server, whether it is one gateway or several under a supervisor.

::

    STARTING ── ready ──► SERVING ── told to stop, handed over ──► DRAINING ── done ──► ENDED
        │                    │                                         │                  ▲
        └────────────────────┴─── cannot start, told to stop at once ──┴──────────────────┘
"""

from enum import Enum


class ServerState(Enum):
    """The states of a server; see the diagram above."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    ENDED = "ended"

    def followed_by(self, state: "ServerState") -> "ServerState":
        """Return the ``state`` that follows this one. Raises ``RuntimeError`` if it may not."""
        if state not in TRANSITIONS[self]:
            raise RuntimeError(f"a server that is {self.value} cannot become {state.value}")
        return state


TRANSITIONS: dict[ServerState, tuple[ServerState, ...]] = {
    ServerState.STARTING: (ServerState.SERVING, ServerState.ENDED),
    ServerState.SERVING: (ServerState.DRAINING, ServerState.ENDED),
    ServerState.DRAINING: (ServerState.ENDED,),
    ServerState.ENDED: (),
}
"""The states that may follow each state."""
