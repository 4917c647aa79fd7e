"""What waits to be written to the log: an entry has the values of one line, before they are rendered."""

import logging
import traceback
from dataclasses import dataclass, field
from typing import Any, Protocol

from vipsrv.printable import printable, printable_json

_MOST_NESTED = 4
_LINE_HEAD = 200
"""Bytes of a line besides its text: time, level, logger and the names."""


class Entry(Protocol):
    """One line of the log. The thread that logs makes it, and the thread that writes calls ``fields``."""

    @property
    def time(self) -> float:
        """When it happened, in seconds since the epoch."""

    @property
    def size(self) -> int:
        """About how many bytes its line will have."""

    def fields(self) -> dict[str, Any]:
        """Return the other values of the line, in their order. All texts in them are printable."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A call of Python's ``logging``, with its message complete."""

    time: float
    """Seconds since the epoch."""
    level: str
    logger: str
    event: str
    traceback: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """About how many bytes its line will have."""
        return _LINE_HEAD + len(self.event) + len(self.traceback)

    def fields(self) -> dict[str, Any]:
        """Return the values of the line in their order."""
        fields = {
            "level": self.level,
            "logger": printable(self.logger),
            "event": printable(self.event),
            **printable_json(self.extra, _MOST_NESTED),
        }
        if self.traceback:
            fields["exception"] = "\n".join(map(printable, self.traceback.splitlines()))
        return fields

    @classmethod
    def from_record(cls, record: logging.LogRecord) -> "LogEntry":
        """Return the entry of a record. ``extra={"fields": {…}}`` in its call adds values to the line."""
        try:
            text = record.getMessage()
        except Exception as error:  # noqa: BLE001 - a bug in a logging call; logging's own report would block
            text = f"cannot be formatted ({error!r}): {record.msg!r}"
        # Formatted here: a traceback that waits would keep every object of its frames alive.
        where = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        extra = getattr(record, "fields", {})
        return cls(record.created, record.levelname.lower(), record.name, text, where, extra)
