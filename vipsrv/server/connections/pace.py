"""Whether the bytes of one message move at a least mean rate.

The receive timeout bounds each pause, but 64 KiB in each of them (2.2 kB/s) would be enough to hold memory
and disk for a day. So a message has ``GRACE_SECONDS``, and one second more for each ``rate`` bytes that have
moved; Apache's mod_reqtimeout has the same rule. Only the regular check of a connection's timeouts looks at
it, so a read costs nothing.
"""

GRACE_SECONDS = 600.0
"""A phone on a bad mobile network (60 kbit/s) sends 5 MB in 11 minutes, which the default rate allows."""


class Pace:
    """One ``message`` that began to move at ``now``; ``rate`` is in bytes per second, and 0 allows any."""

    def __init__(self, message: object, rate: int, now: float) -> None:
        self.message = message
        self.rate = rate
        self.seconds = 0.0
        """How long it has been moving, without the times in which it waited for the server."""
        self._checked = now

    def is_too_slow(self, now: float, moved: int, *, waits_for_us: bool = False) -> bool:
        """Whether the ``moved`` bytes are too few; call it several times a second.

        ``waits_for_us`` tells that the client cannot go on: the time since the last call is not counted.
        """
        if not waits_for_us:
            self.seconds += now - self._checked
        self._checked = now
        return self.rate > 0 and self.seconds > GRACE_SECONDS + moved / self.rate

    def describe(self, moved: int, size: int) -> str:
        """Return how slow it is, for a message of ``size`` bytes."""
        return (
            f"{moved} of {size} bytes in {self.seconds:.0f} s, where {self.rate} bytes per second are the "
            f"least after the first {GRACE_SECONDS:g} s (--min-rate)"
        )
