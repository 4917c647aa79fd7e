"""What a destination knows of a run besides its rows: what it was asked for, and how it has ended."""

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

from vipsrv.batch.outputs import Outputs
from vipsrv.version import __version__

_TYPES: Mapping[object, tuple[type, ...]] = {int: (int,), bool: (bool,), int | None: (int, type(None))}

_LATEST = 253_402_300_799_000
"""Milliseconds since the epoch: the end of the year 9999, which is the last one for ``datetime``."""


class RunEnd(StrEnum):
    """How a run has ended."""

    NOT_YET = "not yet"
    """It is at work, or was killed."""
    COMPLETE = "complete"
    """All images that it was asked for have a row."""
    STOPPED = "stopped"
    """Somebody stopped it."""
    FAILED = "failed"
    """It could not go on; ``reason`` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run. Times are milliseconds since the epoch; ``source`` is a URL without a password.

    ``listed`` counts the images that the source has listed and ``skipped`` those of them that were done
    before; ``listing_done`` is whether there are no more.
    """

    run: str
    source: str
    options: str
    outputs: str
    host: str
    pid: int
    tool: str
    started: int
    ended: int | None = None
    end: RunEnd = RunEnd.NOT_YET
    reason: str = ""
    listed: int = 0
    listing_done: bool = False
    skipped: int = 0

    @classmethod
    def begin(cls, run: str, *, source: str, outputs: Outputs) -> "RunRecord":
        """Return the record of a run of this process that starts now."""
        return cls(
            run=run,
            source=without_password(source),
            options=outputs.digest,
            outputs=outputs.to_json(),
            host=socket.gethostname(),
            pid=os.getpid(),
            tool=__version__,
            started=_now(),
        )

    def with_end(
        self, end: RunEnd, *, reason: str = "", listed: int, listing_done: bool, skipped: int
    ) -> "RunRecord":
        """Return the record of the run now that it has ended."""
        return replace(
            self,
            ended=_now(),
            end=end,
            reason=reason,
            listed=listed,
            listing_done=listing_done,
            skipped=skipped,
        )

    def to_json(self) -> bytes:
        """Return the record as JSON."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> "RunRecord":
        """Return the record that ``to_json`` has written. Raises ``ValueError``."""
        try:
            values = json.loads(data)
            known = {one.name: values[one.name] for one in fields(cls) if one.name in values}
            for one in fields(cls):
                if one.name in known and type(known[one.name]) not in _TYPES.get(one.type, (str,)):
                    raise ValueError(f"{one.name} is {known[one.name]!r}")
            for name in ("started", "ended"):
                if not 0 <= (known.get(name) or 0) <= _LATEST:
                    raise ValueError(f"{name} is {known[name]!r}")
            return cls(**known | {"end": RunEnd(known["end"])})
        except (TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"this is no record of a run: {error}") from None


def _now() -> int:
    return time.time_ns() // 1_000_000


def without_password(url: str) -> str:
    """Return a URL without the password that it may have."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}@{host}"))
