"""Reads lists of keys: text, JSON lines and Parquet, entry by entry."""

import io
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from vipsrv.batch.stores.extras import needs
from vipsrv.batch.stores.keys import is_text
from vipsrv.client import ImageSource


class ListFormat(StrEnum):
    """How a list of keys is written."""

    TEXT = "text"
    """A key, path or URL a line; blank lines are skipped, and there are no comments."""
    JSONL = "jsonl"
    """An object a line, with ``key`` and perhaps ``size``, ``modified`` and ``etag``."""
    PARQUET = "parquet"
    """The same as columns."""


ENDINGS = {
    "txt": ListFormat.TEXT,
    "jsonl": ListFormat.JSONL,
    "ndjson": ListFormat.JSONL,
    "parquet": ListFormat.PARQUET,
}
"""Endings by which a source is known as a list of keys."""

_NAMES = {
    "key": ("key", "path", "url"),
    "size": ("size",),
    "modified": ("modified", "last_modified", "last_modified_date"),
    "etag": ("etag", "e_tag"),
}
"""What a field may be called. The first one that is there counts; the later ones are those of other programs,
such as the inventory of a bucket."""

_MOST_BYTES = 2**63 - 1
"""The largest size that a row of the manifest can hold."""

_BATCH = 5000
"""Rows of a Parquet file that are read at a time."""

_BUFFER = 2**18
"""Bytes of a column of a Parquet file that are read at a time."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """An entry of a list. ``number`` counts lines or rows, from 1; ``name`` is a key, a path or a URL."""

    number: int
    name: str
    size: int | None = None
    modified: int | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class BadEntry:
    """An entry that cannot be understood, and why."""

    number: int
    reason: str


Entries = Iterator[KeyEntry | BadEntry]


def format_by_ending(name: str) -> ListFormat | None:
    """Return the format of a list with this name, or ``None`` if a list is not called so."""
    return ENDINGS.get(name.rpartition(".")[2].lower()) if "." in name else None


def read_entries(content: ImageSource, format_: ListFormat) -> Entries:
    """Yield the entries of a list. Raises ``OSError``, and ``ValueError`` if it has no keys at all."""
    if format_ is ListFormat.PARQUET:
        yield from _parquet(content)
        return
    with _file(content) as file:
        yield from line_entries(file, format_)


def line_entries(lines: Iterator[bytes] | BinaryIO, format_: ListFormat) -> Entries:
    """Yield the entries of a list with lines."""
    for number, line in enumerate(lines, 1):
        text = line.rstrip(b"\r\n")
        if number == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")  # a byte order mark, as Windows writes it
        if not text.strip():
            continue
        try:
            decoded = text.decode()
        except UnicodeDecodeError:
            yield BadEntry(number, "it is not UTF-8")
            continue
        yield KeyEntry(number, decoded) if format_ is ListFormat.TEXT else _json_entry(number, decoded)


def _json_entry(number: int, line: str) -> KeyEntry | BadEntry:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return BadEntry(number, "it is not JSON")
    if not isinstance(value, dict):
        return BadEntry(number, "it is not a JSON object")
    return _entry(number, {field: _first(value, names) for field, names in _NAMES.items()})


def _first(value: Mapping[str, object], names: tuple[str, ...]) -> object:
    return next((value[name] for name in names if value.get(name) is not None), None)


def _parquet(content: ImageSource) -> Entries:
    with needs("batch"):
        import pyarrow  # noqa: ICN001, PLC0415 - only lists in Parquet load it
        from pyarrow import parquet  # noqa: PLC0415 - likewise
    opened = content if isinstance(content, (str, os.PathLike)) else pyarrow.PythonFile(_file(content), "r")
    try:
        # Page by page, because a group of rows may be as large as the file.
        file = parquet.ParquetFile(opened, buffer_size=_BUFFER, pre_buffer=False)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"it is not a Parquet file: {error}") from None
    with file:
        there = set(file.schema_arrow.names)
        columns = {
            field: column
            for field, names in _NAMES.items()
            if (column := next((name for name in names if name in there), None)) is not None
        }
        if "key" not in columns:
            raise ValueError(f"it has none of the columns {', '.join(_NAMES['key'])}")
        number = 0
        for batch in file.iter_batches(_BATCH, columns=list(columns.values())):
            lists = [batch.column(column).to_pylist() for column in columns.values()]
            for values in zip(*lists, strict=True):
                number += 1
                yield _entry(number, dict(zip(columns, values, strict=True)))


def _entry(number: int, fields: Mapping[str, object]) -> KeyEntry | BadEntry:
    """Return an entry from its fields, which may be of any type."""
    name, size, etag = fields.get("key"), fields.get("size"), fields.get("etag")
    if not isinstance(name, str) or not name or not is_text(name):
        return BadEntry(number, "its key is not a text")
    if size is not None and (
        not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MOST_BYTES
    ):
        return BadEntry(number, f"its size is {size!r}, not a number of bytes")
    if etag is not None and not isinstance(etag, str):
        return BadEntry(number, f"its etag is {etag!r}, not a text")
    try:
        modified = _nanoseconds(fields.get("modified"))
    except (ValueError, OverflowError):
        return BadEntry(number, f"its time is {fields.get('modified')!r}, not ISO 8601 or seconds since 1970")
    return KeyEntry(number, name, size, modified, None if etag is None else etag.strip('"') or None)


def _nanoseconds(value: object) -> int | None:
    """Return nanoseconds since the epoch from ISO 8601 text, a time (UTC if it has no zone) or seconds."""
    if value is None:
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(value)  # noqa: TRY004 - one error type
    return round(value * 10**6) * 1000


def _file(content: ImageSource) -> BinaryIO:
    """Return a buffered file of the content of a list: a path, bytes, or an unbuffered file."""
    if isinstance(content, (str, os.PathLike)):
        return Path(content).open("rb")
    if isinstance(content, (bytes, bytearray, memoryview, mmap.mmap)):
        return io.BytesIO(content)
    if isinstance(content, io.RawIOBase):
        return io.BufferedReader(content)
    raise TypeError(f"a list cannot be read from {type(content).__name__}")
