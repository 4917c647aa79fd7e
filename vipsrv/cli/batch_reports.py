"""``vipsrv batch status`` and ``vipsrv batch report``: what has become of the images of a destination."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vipsrv.cli.exit_codes import batch_errors
from vipsrv.errors import BatchError
from vipsrv.printable import printable

if TYPE_CHECKING:
    from vipsrv.batch.report.status import Status

PROGRAM = "vipsrv batch"

EXIT_CODES = (
    "Exit codes: 0 done; 2 the command line is invalid; 4 there is no manifest, or it cannot be read, or a "
    "file cannot be written."
)

STANDARD_OUTPUT = "-"


def use_little_memory() -> None:
    """Have pyarrow, which is not loaded yet, take its memory from the C library.

    Its own allocator keeps half as much again while a manifest is read. Only for a process that is ours.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


_Destination = Annotated[
    str,
    typer.Argument(metavar="DESTINATION", help="Where a batch has written its results.", show_default=False),
]


def status(
    destination: _Destination,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what is done, what has failed, whether a run is at work, and how to go on.

    Nothing is changed: rows that a killed run has left on this machine are only counted.
    """
    from vipsrv.batch.report.status import status_json, status_lines  # noqa: PLC0415 - as in batch.py

    with batch_errors(PROGRAM):
        found, _ = asyncio.run(_read(destination))
        if as_json:
            typer.echo(json.dumps(status_json(found)))
        else:
            for line in status_lines(found):
                typer.echo(printable(line))


def report(
    destination: _Destination,
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The page to write; - is standard output.")
    ] = "batch-report.html",
    failures: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write all failures to this file as well: CSV if it ends in .csv, JSONL otherwise.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a page of HTML: counts by code, bytes, distributions of ratio and time, slowest, failures.

    The page needs no other file and no network.
    """
    from vipsrv.batch.report.page import report_page  # noqa: PLC0415 - as in batch.py
    from vipsrv.batch.report.texts import count_text  # noqa: PLC0415 - likewise

    with batch_errors(PROGRAM):
        found, listed = asyncio.run(_read(destination, failures))
        page = report_page(found)
        if output == STANDARD_OUTPUT:
            sys.stdout.write(page)
            return
        Path(output).write_text(page, encoding="utf-8")
        typer.echo(
            f"{printable(output)}: {count_text(found.figures.done, 'image')} done, "
            f"{found.figures.failures_count:,} failed"
        )
        if failures is not None:
            typer.echo(f"{printable(os.fspath(failures))}: {count_text(listed, 'failure')}")


async def _read(destination: str, failures: Path | None = None) -> "tuple[Status, int]":
    """Return the status of a destination, and how many failures were written to the file, if there is one."""
    use_little_memory()
    from vipsrv.batch.manifest.manifest import Manifest  # noqa: PLC0415 - as in batch.py
    from vipsrv.batch.report.failures_file import write_failures  # noqa: PLC0415 - likewise
    from vipsrv.batch.report.status import status_of  # noqa: PLC0415 - likewise
    from vipsrv.batch.stores.open_store import open_destination  # noqa: PLC0415 - likewise

    opened = open_destination(destination)
    try:
        found = await status_of(opened)
        if not found.figures.parts and not found.runs and not found.unpublished.shards:
            raise BatchError(f"{found.url}: no batch has written here: there is no manifest in .vipsrv")
        return found, 0 if failures is None else await write_failures(Manifest(opened), failures)
    finally:
        await opened.close()
