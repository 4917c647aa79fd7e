"""Decides whether a request that failed is sent again, and after which pause. No I/O.

::

    error ──► kind of failure ──► FINAL                                        the error is raised
                                  AWAY     while the server is away            no token of the budget
                                  COUNTED  up to ``Retry.attempts``            a token
                                  ONCE     once                                a token
"""

import random
import time
from collections.abc import Callable
from enum import Enum, auto

from vipsrv.client.retry import Retry, RetryBudget
from vipsrv.errors import (
    ClientTimeout,
    ConnectFailed,
    ConnectionLost,
    Draining,
    RequestError,
    TlsFailed,
    VipsrvError,
    WorkerDied,
)

DEADLINE_SLACK = 0.005
"""Seconds: with less than this left until its deadline a call makes no further attempt."""

LONGEST_AWAY_PAUSE = 1.0
"""Seconds: a server that is away is looked for more often, as one attempt to connect is for all calls."""


class Failure(Enum):
    """What kind of failure an error is."""

    FINAL = auto()
    """The same request would fail again."""
    AWAY = auto()
    """The server does not take requests at the moment; it has done nothing for this one."""
    COUNTED = auto()
    """Another attempt may succeed, and this one has taken work, or the time of the caller."""
    ONCE = auto()
    """The image has ended a worker, or was there when another one did: one more attempt tells which."""


def failure_of(error: VipsrvError) -> Failure:
    """Return what kind of failure an error is."""
    if isinstance(error, TlsFailed):
        return Failure.FINAL
    if isinstance(error, (ConnectFailed, Draining)):
        return Failure.AWAY
    if isinstance(error, WorkerDied):
        return Failure.ONCE
    if isinstance(error, RequestError):
        return Failure.COUNTED if error.retryable else Failure.FINAL
    return Failure.COUNTED if isinstance(error, (ConnectionLost, ClientTimeout)) else Failure.FINAL


class Retries:
    """What all calls of a client share: its ``Retry``, the budget, and whether its server was there.

    ``clock`` and ``chance`` (0 to 1) are for tests.
    """

    def __init__(
        self,
        retry: Retry,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.retry = retry
        self.budget = RetryBudget(retry)
        self.clock = clock
        self.chance = chance
        self.reached = False
        """Whether a server has ever answered."""
        self.closed = False
        """Whether the client was closed, so that nothing is sent again."""

    def succeeded(self) -> None:
        """Note a request that succeeded."""
        self.reached = True
        self.budget.succeeded()


class Attempts:
    """The attempts of one call. ``until`` is its deadline by the clock, or ``None``."""

    __slots__ = (
        "_away",
        "_away_since",
        "_died",
        "_failures",
        "_resent",
        "_retries",
        "_tokens",
        "_until",
        "made",
    )

    def __init__(self, retries: Retries, until: float | None) -> None:
        self._retries = retries
        self._until = until
        self.made = 0
        """How many have been made."""
        self._failures = 0  # those that are counted, since bytes were last brought forward
        self._away = 0  # in a row
        self._away_since = 0.0
        self._tokens = 0  # taken for these failures
        self._died = False
        self._resent = False

    def pause_after(
        self,
        error: VipsrvError,
        *,
        loss: object = None,
        unseen: bool = False,
        elsewhere: bool = False,
        forward: bool = False,
    ) -> float | None:
        """Return the seconds of pause before the next attempt, or ``None`` if there is to be none.

        ``loss`` stands for the connection that the request was lost with, if it was. It is ``unseen`` if the
        server had closed that connection before the request was sent. ``elsewhere``: the next attempt goes to
        another server, which seems well. ``forward``: the attempt has sent a part of an image that the server
        keeps; whether that arrived is asked first.
        """
        if isinstance(error, RequestError):
            self._retries.reached = True  # it has answered
        kind = failure_of(error)
        if kind is Failure.FINAL and not forward:
            return None
        if elsewhere and kind is Failure.AWAY and isinstance(error, ConnectFailed):
            return self._in_time(0.0)  # nothing was sent: this is still the search for a server
        pause = 0.0 if self._at_once(unseen, forward) else self._pause(error, kind, loss, elsewhere=elsewhere)
        return None if pause is None else self._in_time(pause)

    def begin_anew(self) -> None:
        """Forget the failures so far, because bytes of the image were brought forward since.

        The budget gets their tokens back: such attempts do not multiply the load of a server.
        """
        if self._tokens:
            self._retries.budget.give_back(self._tokens)
        self._failures = self._away = self._tokens = 0

    def past_deadline(self) -> bool:
        """Whether the call has no time left for another attempt."""
        return self._in_time(0.0) is None

    def _at_once(self, unseen: bool, forward: bool) -> bool:  # noqa: FBT001 - passed on
        """Whether the failure counts for nothing, so far."""
        if unseen and not self._resent:
            self._resent = True
            return True
        return forward and self._retries.retry.attempts > 1

    def _pause(self, error: VipsrvError, kind: Failure, loss: object, *, elsewhere: bool) -> float | None:
        """Count a failure and return the pause after it, if another attempt may be made."""
        retry = self._retries.retry
        longest = retry.longest_pause
        if retry.attempts == 1:
            return None
        if kind is Failure.AWAY and self._retries.reached:
            tries, longest = self._wait_for_server(), min(LONGEST_AWAY_PAUSE, longest)
        else:
            self._away = 0
            tries = self._count(kind, loss)
        asked = ((isinstance(error, RequestError) and error.retry_after_ms) or 0) / 1000
        if tries is None or asked > retry.patience:
            return None
        if elsewhere and tries == 1:
            return 0.0
        # Added to what was asked: clients that were told the same do not come back at the same moment.
        return asked + min(longest, retry.first_pause * 2.0 ** min(tries - 1, 30)) * self._retries.chance()

    def _wait_for_server(self) -> int | None:
        """Return how many attempts have found the server away, or ``None`` if that lasts too long."""
        now = self._retries.clock()
        if not self._away:
            self._away_since = now
        self._away += 1
        return self._away if now - self._away_since < self._retries.retry.patience else None

    def _count(self, kind: Failure, loss: object) -> int | None:
        """Return how many attempts have failed, or ``None`` if those are all that may be made."""
        budget = self._retries.budget
        if kind is not Failure.AWAY:
            self._tokens += budget.failed(loss)
        self._failures += 1
        if self._failures >= self._retries.retry.attempts or budget.spent:
            return None
        if kind is Failure.ONCE:
            if self._died:
                return None
            self._died = True
        return self._failures

    def _in_time(self, pause: float) -> float | None:
        """Return the pause if there is time for another attempt after it."""
        if self._until is not None and self._retries.clock() + pause + DEADLINE_SLACK >= self._until:
            return None
        return pause


def with_attempts(error: VipsrvError, made: int, before: VipsrvError | None = None) -> VipsrvError:
    """Return an error whose text says how many attempts were made, if there were several.

    ``before`` is the error of the attempt before, if that says more than the last one. The error is copied,
    because other calls may have got the same one.
    """
    if made == 1:
        return error
    told = f"{error} (after {made} attempts"
    if before is not None:
        told += f"; the one before the last: {before}"
    copy = with_text(error, told + ")")
    copy.attempts = made
    return copy


def with_text(error: VipsrvError, text: str) -> VipsrvError:
    """Return a copy of an error that has another text."""
    if isinstance(error, RequestError):
        copy: VipsrvError = type(error)(text, retry_after_ms=error.retry_after_ms)
    else:
        copy = type(error)(text)
    copy.attempts = error.attempts
    copy.__cause__ = error.__cause__
    return copy
