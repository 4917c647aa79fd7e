"""How long a client waits for each step."""

from dataclasses import dataclass

MAX_SECONDS = (2**31 - 1) // 1000
"""24 days: poll() takes milliseconds as an int of the system, and of more a socket waits for what is left of
them modulo 2**32. ``threading.TIMEOUT_MAX`` is larger everywhere.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """Seconds for each step of a call, ``None`` to wait without end; past them ``ClientTimeout`` is raised.

    Raises ``ValueError`` for what is not above 0 and at most ``MAX_SECONDS``.

    ``connect``: until the connection stands. ``send``: how long the server may neither take nor send a single
    byte while the request is being sent. ``reply``: from the end of the request to the end of the reply.

    The defaults suit a server with its own: ``reply`` is longer than the time that a server allows a request
    (``--deadline``), so that its reason arrives before the client gives up.
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
                    f"end; not {seconds}"
                )

    def __repr__(self) -> str:
        steps = (f"{name}={getattr(self, name)}" for name in ("connect", "send", "reply"))
        return f"Timeout({', '.join(steps)})"
