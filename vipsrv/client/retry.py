"""How often, and when, a client sends again what failed: its ``Retry`` and its budget."""

import threading
from dataclasses import dataclass, fields
from typing import Self

from vipsrv.client.timeouts import MAX_SECONDS

MOST_ATTEMPTS = 1000
"""The most attempts that may be asked for: with more, the number is rather a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How a client sends again what failed: ``Retry.none()`` never does.

    A call makes at most ``attempts``, the first one included. Before the second one it pauses for a random
    time of up to ``first_pause`` seconds; that bound doubles with each further attempt, up to
    ``longest_pause``. The pause is longer by what the server asks for (``retry_after_ms``); if that is more
    than ``patience`` seconds, the call raises the error at once.

    While a server that the client has reached before refuses connections or is shutting down, a call waits
    for it for up to ``patience`` seconds, however many attempts that takes.

    A client has a budget of ``tokens`` for all its calls. A failure takes one, and a success gives ``ratio``
    of one back. With half of them or fewer nothing is sent again, so that clients do not multiply the load
    of a server that has too much already. Requests that were lost with the same connection are one failure,
    and a server that refuses connections or is shutting down takes nothing.

    Raises ``ValueError`` for an impossible value.
    """

    attempts: int = 5
    first_pause: float = 0.1
    longest_pause: float = 5.0
    patience: float = 15.0
    tokens: float = 100.0
    ratio: float = 0.1

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or not 1 <= self.attempts <= MOST_ATTEMPTS:
            raise ValueError(
                f"attempts: must be a whole number from 1 to {MOST_ATTEMPTS}, not {self.attempts!r}"
            )
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if not 0 <= value <= MAX_SECONDS:
                raise ValueError(f"{field.name}: must be a number from 0 to {MAX_SECONDS}, not {value!r}")

    @property
    def sends_again(self) -> bool:
        """Whether anything is sent again."""
        return self.attempts > 1

    @classmethod
    def none(cls) -> Self:
        """Return the ``Retry`` that sends nothing again.

        A request still is sent again, once, if the server had closed an idle connection before it saw it.
        """
        return cls(attempts=1, patience=0.0)


class RetryBudget:
    """The tokens of one client, see ``Retry``; as in gRPC's proposal A6. Several threads may use it."""

    def __init__(self, retry: Retry) -> None:
        self._most, self._ratio = retry.tokens, retry.ratio
        self._lock = threading.Lock()  # guards the two fields below
        self._tokens = retry.tokens
        self._last_loss: object = None

    @property
    def tokens(self) -> float:
        """How many are left."""
        return self._tokens

    @property
    def spent(self) -> bool:
        """Whether nothing may be sent again for now."""
        return self._tokens <= self._most / 2

    def succeeded(self) -> None:
        """Give back a part of a token."""
        if self._tokens < self._most:  # without the lock: nothing is lost if this is late by a request
            with self._lock:
                self._tokens = min(self._most, self._tokens + self._ratio)

    def failed(self, loss: object = None) -> int:
        """Take a token, unless the one before was for the same ``loss`` of a connection; return how many."""
        with self._lock:
            if loss is not None and loss is self._last_loss:
                return 0
            self._tokens = max(0.0, self._tokens - 1)
            self._last_loss = loss
            return 1

    def give_back(self, tokens: int) -> None:
        """Give back tokens of failures that were none in the end."""
        with self._lock:
            self._tokens = min(self._most, self._tokens + tokens)

    def forget(self) -> None:
        """In a forked child: take a new lock, since a thread of the parent may have held the old one."""
        self._lock = threading.Lock()
