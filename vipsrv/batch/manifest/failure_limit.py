"""How many images of a run may fail before it stops."""

from vipsrv.errors import TooManyFailures

AT_LEAST = 100
"""Images that are done before the rate says anything by default: one of one is no rate."""


class FailureLimit:
    """Stops a run in which too large a share of the images fails.

    The images of this run count, from ``at_least`` of them on. Without ``most`` any share may fail.
    """

    def __init__(self, most: float | None, *, at_least: int = AT_LEAST) -> None:
        """``most`` is a share, from 0 to 1. Raises ``ValueError``."""
        if most is not None and not 0 <= most <= 1:
            raise ValueError("the largest share of failures must be from 0 to 1")
        self._most = most
        self._at_least = max(at_least, 1)
        self._done = 0
        self._failed = 0

    def count(self, *, ok: bool) -> None:
        """Count an image that is done. Raises ``TooManyFailures``."""
        self._done += 1
        self._failed += not ok
        if self._most is None or self._done < self._at_least:
            return
        if self._failed > self._most * self._done:
            raise TooManyFailures(
                f"{self._failed:,} of {self._done:,} images failed, more than {self._most * 100:.3g} %"
            )
