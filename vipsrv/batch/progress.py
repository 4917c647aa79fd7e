"""How far a run has come."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The figures of a run at one moment.

    ``run`` is its id and ``started`` seconds since the epoch. ``listed`` counts the images that the source
    has listed and the filters let through, more than that will come unless ``listing_done``. Of these
    ``skipped`` are left out, because an earlier run has done them, or ``failed_before`` of them because they
    failed there. ``done`` have all their results at the destination, and
    ``failed`` counts the others by the code of their row. ``bytes_in`` and ``bytes_out`` are those of the
    images done and of their results. ``in_flight`` counts images that are being read, resized or written.
    ``notes`` tell what was amiss with what earlier runs have left.
    """

    run: str
    started: float
    listed: int = 0
    listing_done: bool = False
    skipped: int = 0
    failed_before: int = 0
    done: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    in_flight: int = 0
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> int:
        """How many images have failed."""
        return sum(self.failed.values())

    @property
    def left(self) -> int | None:
        """How many images are still to come, or ``None`` while that is not known."""
        return max(0, self.listed - self.skipped - self.done - self.failures) if self.listing_done else None
