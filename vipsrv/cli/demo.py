"""``vipsrv demo``: a complete example for a user without an image at hand.

It draws a large TIFF, starts a server, sends the image, saves the result and prints a report. Its exit codes
are those of ``vipsrv-client``.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from vipsrv.cli.demo_image import tiff_size, write_tiff
from vipsrv.cli.exit_codes import one_line_errors
from vipsrv.cli.output_files import ending_of, output_file
from vipsrv.cli.result_report import ResultReport
from vipsrv.cli.upload import UploadImage, upload_progress
from vipsrv.client.embedded import EmbeddedServer
from vipsrv.options import ResizeOptions
from vipsrv.protocol import DEFAULT_HEIGHT, DEFAULT_WIDTH

PROGRAM = "vipsrv demo"


def demo(
    width: Annotated[
        int, typer.Option(min=1, max=100_000, help="Width of the drawn image in pixels.")
    ] = 12_000,
    height: Annotated[
        int, typer.Option(min=1, max=100_000, help="Height of the drawn image in pixels.")
    ] = 9_000,
) -> None:
    """Draw a large TIFF, resize it with an embedded server, print a report and keep the result."""
    with one_line_errors(PROGRAM):
        size = tiff_size(width, height)
        folder = Path(tempfile.mkdtemp(prefix="vipsrv-demo-"))
        image = folder / "image.tif"
        try:
            check_room(folder, size)
            typer.echo(f"drawing    a TIFF of {width} x {height} pixels, {size / 1e6:.0f} MB, in {folder}")
            started = time.monotonic()
            write_tiff(image, width, height)
            typer.echo(f"drawn      in {time.monotonic() - started:.1f} s")
            saved = _resize(image)
        finally:
            image.unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
        typer.echo(f"\nThe TIFF is removed; the result stays in {saved}")


def _resize(image: Path) -> Path:
    # Imported here because `vipsrv serve` starts quicker without it.
    from vipsrv.client import Client  # noqa: PLC0415

    started = time.monotonic()
    with EmbeddedServer() as server:
        typer.echo(f"serving    on {server}, ready after {time.monotonic() - started:.1f} s")
        typer.echo(f"sending    the image, to be resized to {DEFAULT_WIDTH} x {DEFAULT_HEIGHT}\n")
        upload = UploadImage.of_file(image)
        with (
            Client(server.host, server.port) as client,
            upload_progress("vipsrv", upload, quiet=False) as progress,
        ):
            options = ResizeOptions(width=DEFAULT_WIDTH, height=DEFAULT_HEIGHT)
            results = client.resize_all(image, [options], on_sent=progress.on_sent)
    (output,) = results.outputs
    saved = output_file(image, None, ending_of(options.format, output.format)).save(output)
    report = ResultReport.of(upload, results, saved=[saved], server=str(server), embedded=True)
    typer.echo("\n".join(report.lines()))
    return saved


def check_room(folder: Path, size: int) -> None:
    """Raise ``OSError`` if the folder's disk has not enough free space for an image of ``size`` bytes."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(f"{folder} has {free} free bytes and the image takes {size}; draw a smaller one")
