"""What identities use, in memory that the gateways of one server share, so that a limit holds for them all.

::

    keys       one word an identity: a hash of its name, 0 for a free place
    records    for each key: two words for the rate of requests, two for that of bytes (``usage.Gcra``),
               and the requests in flight at each gateway

Every gateway may write: they trust one another. Only claiming a place is locked, once for each identity and
gateway. A rate is read and written without a lock, which would cost two system calls a request. If two
gateways admit a request of one identity within the same microseconds, one of the two may go uncounted. Each
gateway counts its requests in flight in a word of its own, so none of those is lost. Words are aligned and
copied as a whole, so nobody reads half of one.
"""

import fcntl
import logging
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

MOST_IDENTITIES = 16_384
"""Places in the table; 128 KiB for the keys, and at most 1.6 MB for the records of eight gateways."""

_WORD = 8
_RATES = 4  # words of a record before those of the gateways
_PROBES = 64
"""Places that are looked at for one identity. In a table that is half full, 15 are enough for nearly all."""

_log = logging.getLogger(__name__)


class SharedRecord:
    """What one identity uses at all gateways; ``gateway`` counts from 0 and is the one of this process."""

    __slots__ = ("_in_flight", "_own", "bytes", "requests")

    def __init__(self, rates: "memoryview[float]", in_flight: "memoryview[int]", gateway: int) -> None:
        self.requests = rates[:2]
        self.bytes = rates[2:]
        self._in_flight = in_flight
        self._own = gateway

    @property
    def in_flight(self) -> int:
        """The requests in flight at all gateways."""
        return sum(self._in_flight)

    def add_in_flight(self, change: int) -> None:
        """Count requests of this gateway that begin or end."""
        self._in_flight[self._own] += change


class SharedQuotas:
    """The table of a server with ``gateways`` gateways, as the one with the number ``gateway`` uses it."""

    def __init__(self, descriptor: int, gateways: int, gateway: int) -> None:
        self._descriptor = descriptor
        self._gateways = gateways
        self._gateway = gateway
        self._record_words = _RATES + gateways
        memory = memoryview(mmap.mmap(descriptor, table_size(gateways)))
        self._keys = memory[: MOST_IDENTITIES * _WORD].cast("Q")
        self._floats = memory[MOST_IDENTITIES * _WORD :].cast("d")
        self._counts = memory[MOST_IDENTITIES * _WORD :].cast("q")
        self._is_full = False

    def clear_in_flight(self) -> None:
        """Count no request in flight at the gateway: they have ended with its process."""
        for place, key in enumerate(self._keys.tolist()):
            if key:
                self._counts[place * self._record_words + _RATES + self._gateway] = 0

    def record(self, name: str) -> SharedRecord | None:
        """Return the record of an identity; ``None``, and a warning once, if the table has no place left."""
        place = self._place(_key(name))
        if place is None:
            if not self._is_full:
                self._is_full = True
                _log.warning(
                    "the limits of further identities hold for each gateway by itself: since the start "
                    "there have been nearly %d identities",
                    MOST_IDENTITIES,
                )
            return None
        first = place * self._record_words
        rates = self._floats[first : first + _RATES]
        return SharedRecord(rates, self._counts[first + _RATES : first + self._record_words], self._gateway)

    def _place(self, key: int) -> int | None:
        with self._locked():
            for step in range(_PROBES):
                place = (key + step) % MOST_IDENTITIES
                if not self._keys[place]:
                    self._keys[place] = key
                if self._keys[place] == key:
                    return place
        return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A lock of the process, not of the open file, which all gateways have inherited.
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)


def create_table(gateways: int) -> int:
    """Return the descriptor of an empty table, for the processes that inherit it. Raises ``OSError``."""
    descriptor = os.memfd_create("vipsrv-quotas")
    try:
        os.ftruncate(descriptor, table_size(gateways))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def table_size(gateways: int) -> int:
    """Return the bytes of the table of a server with so many gateways."""
    return MOST_IDENTITIES * _WORD * (1 + _RATES + gateways)


def _key(name: str) -> int:
    """Return a number for a name. Two names share one, and thus their limits, by a chance of 2⁻⁶⁴."""
    return int.from_bytes(blake2b(name.encode(), digest_size=_WORD).digest()) or 1
