"""``vipsrv-client``: send a picture to a server, save what comes back, say what it took.

Exit codes: see ``ExitCode`` in ``vipsrv.cli.exits``; ``--help`` lists them, too.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from vipsrv.cli.exits import EXIT_CODES, ExitCode, one_line_errors
from vipsrv.cli.figures import Figures
from vipsrv.cli.saving import check_target, save, target
from vipsrv.client import Client, ResizeArguments, ResizeResult, Timeout
from vipsrv.client.address import UNIX
from vipsrv.client.embedded import EmbeddedServer
from vipsrv.client.sources import OnSent
from vipsrv.errors import ConnectFailed
from vipsrv.options import MAX_DIMENSION
from vipsrv.protocol import DEFAULT_HEIGHT, DEFAULT_HOST, DEFAULT_PORT, DEFAULT_WIDTH
from vipsrv.version import __version__

PROGRAM = "vipsrv-client"

LONG_UPLOAD = 8_000_000
"""Bytes from which a progress bar is shown."""

STANDARD_OUTPUT = Path("-")

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold what the terminal's encoding does not.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


def _print_version(value: bool) -> None:  # noqa: FBT001 - the signature of a typer callback
    if value:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.command(epilog=EXIT_CODES)
def resize(
    image: Annotated[Path, typer.Argument(help="The picture to resize.", show_default=False)],
    *,
    width: Annotated[int, typer.Option(min=1, max=MAX_DIMENSION, help="Pixels.")] = DEFAULT_WIDTH,
    height: Annotated[int, typer.Option(min=1, max=MAX_DIMENSION, help="Pixels.")] = DEFAULT_HEIGHT,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="JPEG quality; without it the server's own.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File or folder to save in, or - for standard output; "
            "without it processed_<name>.jpg beside the picture.",
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(envvar="VIPSRV_HOST", help=f"The server's name, or unix:/path. [{DEFAULT_HOST}]"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, envvar="VIPSRV_PORT", help=f"The server's port. [{DEFAULT_PORT}]"),
    ] = None,
    protocol: Annotated[
        int, typer.Option(min=1, max=2, help="Version of the protocol; 1 for old servers.")
    ] = 2,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds to wait for the answer once the picture is sent.")
    ] = 120.0,
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded/--no-embedded",
            help="Start a server for this call if none is configured and none listens by default.",
        ),
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Resize a picture by a vipsrv server and save the result.

    Prints what it took. With --output - the picture goes to standard output and the figures to standard
    error.
    """
    with one_line_errors(PROGRAM):
        if quiet and as_json:
            raise ValueError("--quiet and --json: choose one")
        if output is not None and output != STANDARD_OUTPUT:
            check_target(image, output)
        options: ResizeArguments = {"width": width, "height": height}
        if quality is not None:
            options["quality"] = quality
        configured = host is not None or port is not None
        upload = Upload(image, options, 1 if protocol == 1 else 2, Timeout(reply=timeout), quiet=quiet)
        result, server, own = _send(
            upload, host or DEFAULT_HOST, port or DEFAULT_PORT, may_start_one=embedded and not configured
        )
        saved = _deliver(image, output, result)
        if not quiet:
            figures = Figures.of(image, result, saved=saved, server=server, embedded=own)
            text = json.dumps(figures.to_json()) if as_json else "\n".join(figures.lines())
            typer.echo(text, err=saved is None)


@dataclass(frozen=True, slots=True)
class Upload:
    """What is to be sent, wherever the server turns out to be."""

    image: Path
    options: ResizeArguments
    protocol: Literal[1, 2]
    timeout: Timeout
    quiet: bool

    def to(self, host: str, port: int) -> ResizeResult:
        """Send it, with a progress bar where one is of use."""
        address = host if host.startswith(UNIX) else None
        with (
            Client(host, port, address=address, protocol=self.protocol, timeout=self.timeout) as client,
            upload_progress(self.image, quiet=self.quiet) as on_sent,
        ):
            return client.resize(self.image, on_sent=on_sent, **self.options)


@contextmanager
def upload_progress(image: Path, *, quiet: bool) -> Iterator[OnSent | None]:
    """A progress bar for a long upload on a terminal; otherwise nothing."""
    size = image.stat().st_size
    if quiet or size < LONG_UPLOAD or not sys.stderr.isatty():
        yield None
        return
    with typer.progressbar(length=size, label=f"sending {image.name}", file=sys.stderr) as bar:
        shown = 0

        def on_sent(sent: int) -> None:
            nonlocal shown
            bar.update(sent - shown)
            shown = sent

        yield on_sent


def _send(upload: Upload, host: str, port: int, *, may_start_one: bool) -> tuple[ResizeResult, str, bool]:
    """The result, the address of the server it came from, and whether that was one of its own."""
    there = host if host.startswith(UNIX) else f"{host}:{port}"
    try:
        return upload.to(host, port), there, False
    except ConnectFailed:
        if not may_start_one:
            raise
    with EmbeddedServer() as server:
        here = f"{server.host}:{server.port}"
        if not upload.quiet:
            note = f"{PROGRAM}: nothing listens on {there}, so a server of its own serves this call on {here}"
            typer.echo(note, err=True)
        return upload.to(server.host, server.port), here, True


def _deliver(image: Path, output: Path | None, result: ResizeResult) -> Path | None:
    """Save the result; the path, or ``None`` for standard output."""
    if output == STANDARD_OUTPUT:
        sys.stdout.buffer.write(result.data)
        sys.stdout.buffer.flush()
        return None
    path = target(image, output, result.format)
    check_target(image, path)
    save(result.data, path)
    return path
