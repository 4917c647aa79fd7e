"""How long a client waits for each step."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """Seconds for each step of a call, ``None`` to wait without end; past them ``ClientTimeout`` is raised.

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
            if seconds is not None and not seconds > 0:
                raise ValueError(
                    f"{name}: must be more than 0 seconds, or None to wait without end; not {seconds}"
                )

    def __repr__(self) -> str:
        steps = (f"{name}={getattr(self, name)}" for name in ("connect", "send", "reply"))
        return f"Timeout({', '.join(steps)})"
