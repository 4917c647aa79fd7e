"""A part: the rows of a shard as a file of Parquet, with typed columns and what the shard was about.

The same rows give the same bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cache
from types import ModuleType
from typing import Any

from vipsrv.batch.manifest.journal import ShardFacts
from vipsrv.batch.rows import OutputRow, Row
from vipsrv.errors import BatchError
from vipsrv.printable import printable

FORMAT = 1
"""The version of the columns. A reader refuses a newer one; an added column needs no new version."""

_OUTPUT = tuple(one.name for one in fields(OutputRow))

_FACTS = ("shard", "run", "options", "outputs", "tool")


def arrow() -> ModuleType:
    """Return pyarrow with its ``parquet``. Raises ``BatchError`` if it is not installed."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - slow to load, and an extra
        import pyarrow.parquet  # noqa: PLC0415 - likewise; it becomes an attribute of pyarrow
    except ImportError:
        raise BatchError(
            "the manifest of a batch needs pyarrow, which is not installed: pip install 'vipsrv[batch]'"
        ) from None
    module: ModuleType = pa
    return module


@cache
def schema() -> Any:
    """Return the columns of a part, as a schema of pyarrow."""
    pa = arrow()
    output = pa.struct(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("width", pa.int64(), nullable=False),
            pa.field("height", pa.int64(), nullable=False),
            pa.field("format", pa.string(), nullable=False),
            pa.field("bytes", pa.int64(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
        ]
    )
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("version", pa.string(), nullable=False),
            pa.field("options", pa.string(), nullable=False),
            pa.field("bytes", pa.int64(), nullable=False),
            pa.field("outputs", pa.list_(pa.field("element", output, nullable=False)), nullable=False),
            pa.field("status", pa.int32(), nullable=False),
            pa.field("code", pa.string(), nullable=False),
            pa.field("message", pa.string(), nullable=False),
            pa.field("attempts", pa.int32(), nullable=False),
            pa.field("ms", pa.float64(), nullable=False),
            pa.field("ended", pa.timestamp("ms", tz="UTC"), nullable=False),
            pa.field("run", pa.string(), nullable=False),
        ]
    )


def part_bytes(facts: ShardFacts, rows: Sequence[Row]) -> bytes:
    """Return the file of a part: the same bytes for the same rows and the same version of pyarrow."""
    pa = arrow()
    about = {f"vipsrv_{name}": getattr(facts, name) for name in _FACTS} | {"vipsrv_format": str(FORMAT)}
    # Made from plain values column by column: a list of dictionaries takes pyarrow twice as long.
    columns: dict[str, list[Any]] = {
        "key": [_text(row.key) for row in rows],
        "version": [_text(row.version) for row in rows],
        "options": [_text(row.options) for row in rows],
        "bytes": [row.bytes for row in rows],
        "outputs": [[_output(one) for one in row.outputs] for row in rows],
        "status": [row.status for row in rows],
        "code": [_text(row.code) for row in rows],
        "message": [_text(row.message) for row in rows],
        "attempts": [row.attempts for row in rows],
        "ms": [row.ms for row in rows],
        "ended": [row.ended for row in rows],
        "run": [_text(row.run) for row in rows],
    }
    table = pa.table(
        [pa.array(columns[field.name], type=field.type) for field in schema()],
        schema=schema().with_metadata(about),
    )
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


class Part:
    """A part that was read. Its columns stay as pyarrow has them until rows are asked for."""

    def __init__(self, data: bytes, place: str, *, columns: Sequence[str] | None = None) -> None:
        """``place``, its path or URL, is for messages. Only ``columns`` are read, if they are given.

        Raises ``BatchError`` if this is no part, or one of a newer version of vipsrv.
        """
        pa = arrow()
        try:
            # Without threads: they would keep buffers of their own, and several parts are read at once.
            file = pa.parquet.ParquetFile(pa.BufferReader(data))
            about = {
                name.decode(): value.decode() for name, value in (file.schema_arrow.metadata or {}).items()
            }
            number = int(about["vipsrv_format"])
            self.facts = ShardFacts(**{name: about[f"vipsrv_{name}"] for name in _FACTS})
        except (pa.ArrowException, OSError, KeyError, ValueError):
            raise BatchError(
                f"{place}: is no part of a manifest, or damaged: move it away, and go on"
            ) from None
        if number > FORMAT:
            raise BatchError(
                f"{place}: has the format {number}, and this version of vipsrv knows {FORMAT}: "
                "use a newer one"
            )
        names = list(columns or schema().names)  # by name: a later version may have added some
        try:
            self.table = file.read(names, use_threads=False).select(names)
            self.table = self.table.cast(pa.schema([schema().field(name) for name in names]))
            self.table.validate(full=True)
        except (pa.ArrowException, OSError, KeyError, ValueError):
            raise BatchError(f"{place}: is damaged: move it away, and go on") from None

    def keys(self) -> list[str]:
        """Return the key of each row."""
        keys: list[str] = self.table["key"].to_pylist()
        return keys

    def ended(self) -> list[int]:
        """Return ``ended`` of each row: milliseconds since the epoch."""
        ended: list[int] = self.table["ended"].cast(arrow().int64()).to_pylist()
        return ended

    def rows(self) -> Iterator[Row]:
        """Yield the rows."""
        return rows_of_table(self.table)


def rows_of_table(table: Any) -> Iterator[Row]:
    """Yield the rows of a table that has all columns of a part."""
    index = table.schema.get_field_index("ended")
    table = table.set_column(index, "ended", table["ended"].cast(arrow().int64()))
    for batch in table.to_batches():
        for values in batch.to_pylist():
            values["outputs"] = tuple(
                OutputRow(**{name: one[name] for name in _OUTPUT}) for one in values["outputs"]
            )
            yield Row(**values)


def _output(output: OutputRow) -> dict[str, Any]:
    return {
        "key": _text(output.key),
        "width": output.width,
        "height": output.height,
        "format": _text(output.format),
        "bytes": output.bytes,
        "sha256": _text(output.sha256),
    }


def _text(value: str) -> str:
    r"""Return text that Parquet can hold: a byte that is not UTF-8 is written as ``\xff``.

    No store of vipsrv lists such a key, but the source may be somebody else's.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        return "".join(printable(one) if "\ud800" <= one <= "\udfff" else one for one in value)
    return value
