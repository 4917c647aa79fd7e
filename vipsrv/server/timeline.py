"""When a request reached each stage of its life, and how long each stage took."""

from dataclasses import dataclass


@dataclass(slots=True)
class Timeline:
    """When a request reached each stage, in seconds of ``time.monotonic``; 0 if it never did."""

    arrived: float
    """Its header had arrived."""
    received: float = 0.0
    """The last byte of its body had arrived."""
    submitted: float = 0.0
    """Its body was in the spool, and the job was given to admission."""
    started: float = 0.0
    """A worker began."""
    ended: float = 0.0
    """The worker was done."""
    replied: float = 0.0
    """The reply was handed over for sending."""

    @property
    def receive_ms(self) -> float:
        """Milliseconds for the body to arrive."""
        return (self.received - self.arrived) * 1000

    @property
    def queue_ms(self) -> float:
        """Milliseconds from the last byte of the body to the start of the work: disk and queue."""
        return (self.started - self.received) * 1000

    @property
    def process_ms(self) -> float:
        """Milliseconds of work."""
        return (self.ended - self.started) * 1000

    @property
    def total_ms(self) -> float:
        """Milliseconds from the header to the reply."""
        return (self.replied - self.arrived) * 1000
