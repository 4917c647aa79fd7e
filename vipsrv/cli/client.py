"""``vipsrv-client``: send a picture to a server, save what comes back, say what it took.

Exit codes: see ``ExitCode`` in ``vipsrv.cli.exits``; ``--help`` lists them, too.
"""

import errno
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vipsrv.cli.asking import outputs_for, parse_bytes, parse_sizes
from vipsrv.cli.exits import EXIT_CODES, ExitCode, one_line_errors
from vipsrv.cli.figures import Figures
from vipsrv.cli.saving import check_folder, check_target, save, target, targets, write_all
from vipsrv.cli.sending import Server, check_picture, upload_progress
from vipsrv.cli.telling import image_rows, refuse_other_options, server_rows
from vipsrv.client import Client, ResizeResults, Timeout
from vipsrv.client.timeouts import MAX_SECONDS
from vipsrv.options import MAX_DIMENSION, Fit, Format, Keep, Position, ResizeOptions
from vipsrv.protocol import DEFAULT_HEIGHT, DEFAULT_HOST, DEFAULT_PORT, DEFAULT_WIDTH
from vipsrv.version import __version__

PROGRAM = "vipsrv-client"

STANDARD_OUTPUT = Path("-")

MAX_DEADLINE = (2**31 - 1) // 1000
"""Seconds: what the protocol can say."""

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
    context: typer.Context,
    image: Annotated[
        Path | None,
        # Whether it is readable shows when it is read, as an error of the file and none of the command line.
        typer.Argument(help="The picture to resize.", show_default=False, readable=False),
    ] = None,
    *,
    width: Annotated[
        int | None, typer.Option(min=1, max=MAX_DIMENSION, help=f"Pixels.  [default: {DEFAULT_WIDTH}]")
    ] = None,
    height: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_DIMENSION,
            help=f"Pixels.  [default: {DEFAULT_HEIGHT}]  With only one of both, the picture's proportions "
            "give the other.",
        ),
    ] = None,
    output_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help="Several results from one upload, as 320x,x480,800x600; "
            "each is saved as processed_<name>_<width>x<height>.",
        ),
    ] = None,
    fit: Annotated[
        Fit | None,
        typer.Option(
            help="How a picture of other proportions is fitted: stretched (fill), with borders (contain), "
            "cut (cover), no larger (inside) or no smaller (outside) than the size.  "
            "[default: fill; inside where one side is left out]"
        ),
    ] = None,
    position: Annotated[
        Position,
        typer.Option(
            metavar="PLACE", help=f"What cover keeps and where contain places: {', '.join(Position)}."
        ),
    ] = Position.CENTRE,
    format_: Annotated[
        Format, typer.Option("--format", help="Of the result; auto keeps the picture's where it can.")
    ] = Format.JPEG,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="Quality; without it the server's own.")
    ] = None,
    lossless: Annotated[bool, typer.Option("--lossless", help="Lose nothing in the encoding.")] = False,
    max_bytes: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Lower the quality until a result fits, as 100KB or 1.5MiB."),
    ] = None,
    background: Annotated[
        str, typer.Option(metavar="COLOUR", help="Behind transparency and in borders.")
    ] = "#ffffff",
    keep: Annotated[Keep, typer.Option(help="Metadata of the picture that a result carries.")] = Keep.NONE,
    page: Annotated[
        int, typer.Option(min=0, help="Page of a document or frame of an animation, from 0.")
    ] = 0,
    enlarge: Annotated[
        bool, typer.Option("--enlarge/--no-enlarge", help="Whether a small picture is made larger.")
    ] = True,
    deadline: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=MAX_DEADLINE,
            metavar="SECONDS",
            help="The server gives up when the answer takes longer; without it the server's own holds.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            readable=False,
            help="File or folder to save in, or - for standard output; "
            "without it processed_<name> beside the picture.",
        ),
    ] = None,
    info: Annotated[
        bool,
        typer.Option("--info", help="Resize nothing: print what the server reads in the picture's header."),
    ] = False,
    formats: Annotated[
        bool,
        typer.Option("--formats", help="Resize nothing: print what the server reads, writes and allows."),
    ] = False,
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
        float,
        typer.Option(
            min=0.001, max=MAX_SECONDS, help="Seconds to wait for the answer once the picture is sent."
        ),
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
    error; with --json nothing but these, unless it fails.
    """
    with one_line_errors(PROGRAM):
        if quiet and as_json:
            raise ValueError("--quiet and --json: choose one")
        # Whoever reads the JSON from standard error, beside the picture, finds nothing else there.
        silent = quiet or (as_json and output == STANDARD_OUTPUT)
        server = Server(
            program=PROGRAM,
            host=host or DEFAULT_HOST,
            port=port or DEFAULT_PORT,
            protocol=1 if protocol == 1 else 2,
            timeout=Timeout(reply=timeout),
            may_start_one=embedded and host is None and port is None,
            quiet=silent,
        )
        if formats:
            refuse_other_options(context, "--formats", image)
            _print(server_rows(server.ask(Client.hello).answer), as_json=as_json)
            return
        if image is None:
            raise ValueError("the picture is missing; see --help")
        picture = image
        check_picture(picture)
        if info:
            refuse_other_options(context, "--info")
            _print(image_rows(server.ask(lambda client: client.info(picture)).answer), as_json=as_json)
            return
        outputs = outputs_for(
            (width, height),
            [] if output_sizes is None else parse_sizes(output_sizes),
            fit=fit,
            position=position,
            format=format_,
            quality=quality,
            lossless=lossless,
            max_bytes=None if max_bytes is None else parse_bytes("--max-bytes", max_bytes),
            background=background,
            keep=keep,
            page=page,
            enlarge=enlarge,
        )
        several = output_sizes is not None
        _check_output(picture, output, several=several)
        deadline_ms = None if deadline is None else max(1, round(deadline * 1000))
        answered = server.ask(lambda client: _resize(client, picture, outputs, deadline_ms, quiet=silent))
        saved = _deliver(picture, output, answered.answer, several=several)
        if not quiet:
            figures = Figures.of(
                picture,
                answered.answer,
                saved=saved,
                server=answered.server,
                embedded=answered.embedded,
                listed=several,
            )
            text = json.dumps(figures.to_json()) if as_json else "\n".join(figures.lines())
            typer.echo(text, err=output == STANDARD_OUTPUT)


def _print(rows: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for name, value in rows.items():
        text = ", ".join(value) if isinstance(value, list) else value
        typer.echo(f"{name.replace('_', ' '):<21} {'not told' if text is None else text}")


def _check_output(image: Path, output: Path | None, *, several: bool) -> None:
    """Refuse before anything is sent what could not be delivered afterwards."""
    if output is None:
        check_folder(image.parent)
    elif several:
        if output == STANDARD_OUTPUT:
            raise ValueError("--output -: standard output takes one result, and --output-sizes makes several")
        check_folder(output)
    elif output != STANDARD_OUTPUT:
        check_target(image, output)
    elif sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")


def _resize(
    client: Client, image: Path, outputs: tuple[ResizeOptions, ...], deadline_ms: int | None, *, quiet: bool
) -> ResizeResults:
    with upload_progress(image, quiet=quiet) as on_sent:
        return client.resize_all(image, outputs, deadline_ms=deadline_ms, on_sent=on_sent)


def _deliver(image: Path, output: Path | None, results: ResizeResults, *, several: bool) -> list[Path | None]:
    """Save the results; the path of each, or ``None`` for standard output."""
    if output == STANDARD_OUTPUT:
        write_all(results.outputs[0].data, sys.stdout.buffer)
        return [None]
    if several:
        paths = targets(image, output, results.outputs)
    else:
        paths = [target(image, output, results.outputs[0].format)]
        check_target(image, paths[0])
    for result, path in zip(results.outputs, paths, strict=True):
        save(result.data, path)
    return list(paths)
