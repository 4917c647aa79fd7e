"""``vipsrv demo``: the whole job for someone who has no picture at hand.

Draws a large TIFF, starts a server, sends the picture, saves the result and prints what it took. Its exit
codes are those of ``vipsrv-client``.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from vipsrv.cli.exits import one_line_errors
from vipsrv.cli.figures import Figures
from vipsrv.cli.saving import save, target
from vipsrv.cli.sending import upload_progress
from vipsrv.cli.striped_tiff import tiff_size, write_tiff
from vipsrv.client import Client
from vipsrv.client.embedded import EmbeddedServer
from vipsrv.options import ResizeOptions
from vipsrv.protocol import DEFAULT_HEIGHT, DEFAULT_WIDTH

PROGRAM = "vipsrv demo"


def demo(
    width: Annotated[
        int, typer.Option(min=1, max=100_000, help="Width of the drawn picture, pixels.")
    ] = 12_000,
    height: Annotated[
        int, typer.Option(min=1, max=100_000, help="Height of the drawn picture, pixels.")
    ] = 9_000,
) -> None:
    """Draw a large TIFF, have it resized by a server of its own, print the figures, leave the result."""
    with one_line_errors(PROGRAM):
        size = tiff_size(width, height)
        folder = Path(tempfile.mkdtemp(prefix="vipsrv-demo-"))
        picture = folder / "picture.tif"
        try:
            _check_room(folder, size)
            typer.echo(f"drawing    a TIFF of {width} x {height} pixels, {size / 1e6:.0f} MB, in {folder}")
            started = time.monotonic()
            write_tiff(picture, width, height)
            typer.echo(f"drawn      in {time.monotonic() - started:.1f} s")
            saved = _resize(picture)
        finally:
            picture.unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
        typer.echo(f"\nThe TIFF is removed; the result stays in {saved}")


def _resize(picture: Path) -> Path:
    started = time.monotonic()
    with EmbeddedServer() as server:
        where = f"{server.host}:{server.port}"
        typer.echo(f"serving    on {where}, ready after {time.monotonic() - started:.1f} s")
        typer.echo(f"sending    the picture, to be {DEFAULT_WIDTH} x {DEFAULT_HEIGHT}\n")
        with Client(server.host, server.port) as client, upload_progress(picture, quiet=False) as on_sent:
            asked = ResizeOptions(width=DEFAULT_WIDTH, height=DEFAULT_HEIGHT)
            results = client.resize_all(picture, [asked], on_sent=on_sent)
    (output,) = results.outputs
    saved = target(picture, None, output.format)
    save(output.data, saved)
    figures = Figures.of(picture, results, saved=[saved], server=where, embedded=True)
    typer.echo("\n".join(figures.lines()))
    return saved


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(f"{folder} has room for {free} bytes and the picture takes {size}; draw a smaller one")
