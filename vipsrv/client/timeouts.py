"""How long a client waits for each step of a call."""

from dataclasses import dataclass

MAX_SECONDS = (2**31 - 1) // 1000
"""24 days, the most that poll() takes in milliseconds. Longer timeouts wrap modulo 2**32 ms.

``threading.TIMEOUT_MAX`` is larger on every system.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """Seconds for each step of a call; a step that takes longer raises ``ClientTimeout``.

    ``connect``: until the connection is made. ``send``: how long the server may neither accept nor send a
    single byte while the request is being sent. ``reply``: from the end of the request to the end of the
    reply. ``None`` waits without limit.

    ``reply`` is longer by default than the time a server allows a request (``--deadline``), so that the
    server's own reason arrives before the client gives up.

    Raises ``ValueError`` for a value that is not above 0 and at most ``MAX_SECONDS``.
    """

    connect: float | None = 5.0
    send: float | None = 60.0
    reply: float | None = 120.0

    def __post_init__(self) -> None:
        for name in ("connect", "send", "reply"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds <= MAX_SECONDS:
                raise ValueError(
                    f"{name}: must be more than 0 and at most {MAX_SECONDS} seconds, or None to wait without "
                    f"limit; not {seconds}"
                )

    def __repr__(self) -> str:
        steps = (f"{name}={getattr(self, name)}" for name in ("connect", "send", "reply"))
        return f"Timeout({', '.join(steps)})"
