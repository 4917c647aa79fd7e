"""All failures of a destination as a file: JSONL, or CSV for spreadsheets."""

import csv
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO

from vipsrv.batch.manifest.latest_rows import latest_parts
from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.manifest.parts import rows_of_table
from vipsrv.batch.rows import OK, Row

_COLUMNS = (
    *("key", "status", "code", "message", "bytes", "attempts", "ms", "ended"),
    *("version", "options", "run"),
)

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of a formula, which the name of an image could bring along."""


async def write_failures(manifest: Manifest, path: Path) -> int:
    """Write a line for each image that has failed, and return how many there are.

    A name that ends in ``.csv`` makes it CSV, in which a text that a spreadsheet would take for a formula
    starts with ``'``; anything else is JSONL. Raises ``OSError``.
    """
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        write = _csv_writer(file) if path.suffix.lower() == ".csv" else _json_writer(file)
        async for row in _failed_rows(manifest):
            write(row)
            count += 1
    return count


async def _failed_rows(manifest: Manifest) -> AsyncIterator[Row]:
    async for part in latest_parts(manifest):
        import pyarrow.compute as pc  # noqa: PLC0415 - slow to load, and an extra

        for row in rows_of_table(part.table.filter(pc.not_equal(part.table["code"], OK))):
            yield row


def _json_writer(file: IO[str]) -> Callable[[Row], None]:
    def write(row: Row) -> None:
        values = asdict(row)
        file.write(json.dumps({name: values[name] for name in _COLUMNS}, ensure_ascii=False) + "\n")

    return write


def _csv_writer(file: IO[str]) -> Callable[[Row], None]:
    writer = csv.writer(file)
    writer.writerow(_COLUMNS)

    def write(row: Row) -> None:
        values = asdict(row)
        writer.writerow([_cell(values[name]) for name in _COLUMNS])

    return write


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
