"""``vipsrv-client``: send an image to a server, save the result, print a report.

The exit codes are ``ExitCode`` in ``vipsrv.cli.exit_codes``; ``--help`` also lists them.
"""

import glob
import json
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from vipsrv.address import MAX_PORT
from vipsrv.cli.exit_codes import EXIT_CODES, ExitCode, error_as_json, one_line_errors
from vipsrv.cli.info_commands import (
    image_rows,
    print_rows,
    refuse_other_options,
    refuse_version_1,
    server_rows,
)
from vipsrv.cli.one_image import STANDARD_OUTPUT, ResultPlace, resize_one, resize_over_version_1
from vipsrv.cli.operation_flags import with_operations
from vipsrv.cli.output_files import output_folder
from vipsrv.cli.resize_flags import (
    DEFAULT_RETRIES,
    BackgroundFlag,
    DeadlineFlag,
    EffortFlag,
    EnlargeFlag,
    FitFlag,
    KeepFlag,
    LosslessFlag,
    MaxBytesFlag,
    PageFlag,
    PagesFlag,
    PositionFlag,
    QualityFlag,
    RetriesFlag,
    TimeoutFlag,
    TokenFileFlag,
    deadline_in_ms,
    format_flag,
)
from vipsrv.cli.result_names import FIELDS
from vipsrv.cli.result_options import (
    choose_format,
    outputs_for,
    parse_bytes,
    parse_sizes,
    version_1_size,
)
from vipsrv.cli.result_report import ResultReport
from vipsrv.cli.server_choice import Answer, CallServer, several_servers
from vipsrv.cli.tls_options import Ca, Cert, Key, Tls, TlsOptions
from vipsrv.cli.upload import open_upload
from vipsrv.client import Client, ResizedImage, ResizeResults, Timeout, Version1Result
from vipsrv.client.login_token import choose_token
from vipsrv.client.resume import check_upload_id
from vipsrv.client.server_address import HOST_VARIABLE, PORT_VARIABLE, choose_server
from vipsrv.client.server_names import SERVERS_VARIABLE
from vipsrv.options import MAX_DIMENSION, Format, Keep, Placeholder, Position, read_placeholders
from vipsrv.protocol import DEFAULT_HEIGHT, DEFAULT_HOST, DEFAULT_PORT, DEFAULT_WIDTH
from vipsrv.version import __version__

PROGRAM = "vipsrv-client"

PATTERN_CHARACTERS = frozenset("*?[")

MAX_HELP_WIDTH = 100
"""Columns: longer lines are hard to read."""

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # By default, help has from 50 to 80 columns whatever the terminal has. A broken word takes one more
        # than this.
        "terminal_width": min(shutil.get_terminal_size().columns, MAX_HELP_WIDTH) - 2,
    },
)

_COMMAND_LINE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""The class of all errors in a command line; typer does not export it."""


def main() -> None:
    """Run the command; the entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # A file name may contain characters that the terminal's encoding lacks.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        if "--json" in sys.argv[1:]:
            _run_with_json_errors()
        app()
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


def _run_with_json_errors() -> NoReturn:
    try:
        sys.exit(app(standalone_mode=False))
    except _COMMAND_LINE_ERROR as error:
        message = getattr(error, "format_message", error.__str__)()
        typer.echo(error_as_json(message, ExitCode.USAGE), err=True)
        sys.exit(ExitCode.USAGE)


def _print_version(value: bool) -> None:  # noqa: FBT001 - the signature of a typer callback
    if value:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.command(epilog=EXIT_CODES)
@with_operations
def resize(
    context: typer.Context,
    images: Annotated[
        list[Path] | None,
        # typer does not check that the file is readable: that error has its own exit code.
        typer.Argument(
            metavar="IMAGE",
            help="The image to resize, or several: files, folders, patterns such as '*.jpg', and - for "
            "standard input.",
            show_default=False,
            readable=False,
        ),
    ] = None,
    *,
    width: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_DIMENSION, help=f"Width in pixels.  [default: {DEFAULT_WIDTH}]"),
    ] = None,
    height: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_DIMENSION,
            help=f"Height in pixels.  [default: {DEFAULT_HEIGHT}]  With only one of width and height, the "
            "image keeps its proportions.",
        ),
    ] = None,
    output_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help="Make several results from one upload, for example 320x,x480,800x600; each is saved as "
            "processed_<name>_<width>x<height>.",
        ),
    ] = None,
    fit: FitFlag = None,
    position: PositionFlag = Position.CENTRE,
    format_: Annotated[Format | None, format_flag("that of the ending of --output; otherwise jpeg")] = None,
    quality: QualityFlag = None,
    effort: EffortFlag = None,
    lossless: LosslessFlag = False,
    max_bytes: MaxBytesFlag = None,
    background: BackgroundFlag = "#ffffff",
    keep: KeepFlag = Keep.NONE,
    page: PageFlag = 0,
    pages: PagesFlag = None,
    enlarge: EnlargeFlag = True,
    operations: dict[str, Any],
    deadline: DeadlineFlag = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            readable=False,
            help="File or folder to save to, or - for standard output; a symbolic link is followed.  "
            "[default: processed_<name> beside the image]",
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            readable=False,
            help="Folder for the results of many images; made if it is missing. Those of images in folders "
            "below an argument go into folders of the same names.  [default: each beside its image]",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="TEMPLATE",
            help="Names of the results of many images, such as {stem}_{size}.{ext}. Fields: "
            f"{', '.join(f'{{{field}}}' for field in FIELDS)}.  [default: as for one image]",
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Take the images of folders within folders, too.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out images whose results exist.")
    ] = False,
    info: Annotated[
        bool,
        typer.Option("--info", help="Print facts from the image's header instead of resizing it."),
    ] = False,
    placeholder: Annotated[
        str | None,
        typer.Option(
            "--placeholder",
            metavar="NAMES",
            help="Print what stands for the image until it is loaded, with commas between them: "
            f"{', '.join(Placeholder)}.",
        ),
    ] = None,
    formats: Annotated[
        bool,
        typer.Option("--formats", help="Print the server's formats, fits and limits instead of resizing."),
    ] = False,
    host: Annotated[
        str | None,
        typer.Option(
            help="Host of the server, unix:/path or tls://HOST:PORT.  "
            f"[env var: {HOST_VARIABLE}; default: {DEFAULT_HOST}]"
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_PORT,
            help=f"Port of the server.  [env var: {PORT_VARIABLE}; default: {DEFAULT_PORT}]",
        ),
    ] = None,
    servers: Annotated[
        list[str] | None,
        typer.Option(
            "--server",
            metavar="ADDRESS",
            help="One of several servers, in place of --host and --port: HOST:PORT, tls://HOST:PORT or "
            f"unix:/path. Repeat it for each.  [env var: {SERVERS_VARIABLE}, separated by commas]",
            show_default=False,
        ),
    ] = None,
    tls: Tls = False,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    token_file: TokenFileFlag = None,
    protocol: Annotated[
        int, typer.Option(min=1, max=2, help="Version of the protocol; 1 is for old servers.")
    ] = 2,
    timeout: TimeoutFlag = 120.0,
    upload_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="32 hex digits by which the server keeps what has arrived of the image, so that the same "
            "command goes on after it was ended.  [default: for images from 8 MiB on, one by the content]",
            show_default=False,
        ),
    ] = None,
    retries: RetriesFlag = DEFAULT_RETRIES,
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded/--no-embedded",
            help="Whether to start a server for this call if none is configured and none listens at the "
            "default address.",
        ),
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the report, or the error, as one JSON object; with many images, one a line."
        ),
    ] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Resize an image, or many, with a vipsrv server and save the results.

    Prints a report of sizes, times and dimensions. With --output - the image goes to standard output and the
    report to standard error. With --json standard error holds nothing but the report or an error.

    With several images, folders or patterns it prints progress, the sum and the failures. It goes on after a
    failure.
    """
    with one_line_errors(PROGRAM, as_json=as_json), ExitStack() as stack:
        if quiet and as_json:
            raise ValueError("--quiet and --json exclude each other")
        silent = quiet or as_json  # standard error holds nothing but JSON
        server = CallServer(
            program=PROGRAM,
            choice=choose_server(host or None, port),
            timeout=Timeout(reply=None, call=timeout),
            retries=retries,
            may_start_one=embedded,
            tls=TlsOptions(tls=tls, ca=ca, cert=cert, key=key),
            token=choose_token(file=token_file),
            quiet=silent,
            servers=several_servers(servers, host or None, port),
        )
        if formats:
            refuse_other_options(context, "--formats", has_image=bool(images))
            refuse_version_1("--formats", protocol)
            print_rows(server_rows(server.ask(Client.hello).value), as_json=as_json)
            return
        if not images:
            raise ValueError("the image is missing; see --help")
        many = _are_many(images, output_dir is not None, name is not None, recursive, skip_existing)
        asked = _placeholders(placeholder, protocol, many=many)
        upload = None if many else stack.enter_context(open_upload(images[0]))
        if info:
            refuse_other_options(context, "--info", also=("placeholder",))
            refuse_version_1("--info", protocol)
            if upload is None:
                raise ValueError("--info takes one image")
            content = upload.content
            described = server.ask(lambda client: client.info(content, placeholder=asked)).value
            print_rows(image_rows(described), as_json=as_json)
            return
        several = output_sizes is not None
        outputs = outputs_for(
            (width, height),
            [] if output_sizes is None else parse_sizes(output_sizes),
            fit=fit,
            position=position,
            format=choose_format(format_, None if several or many else output),
            quality=quality,
            effort=effort,
            lossless=lossless,
            max_bytes=None if max_bytes is None else parse_bytes("--max-bytes", max_bytes),
            background=background,
            keep=keep,
            page=page,
            pages=pages,
            enlarge=enlarge,
            **operations,
        )
        deadline_ms = deadline_in_ms(deadline)
        if upload_id is not None:
            _check_upload_id(upload_id, protocol, many=many)
        if upload is None:
            # Imported here because a single image starts quicker without it.
            from vipsrv.cli.many_command import many_request, resize_many  # noqa: PLC0415

            request = many_request(
                images,
                outputs,
                folder=output_folder(output, output_dir),
                name=name,
                recursive=recursive,
                skip_existing=skip_existing,
                deadline_ms=deadline_ms,
                retries=retries,
                seconds=timeout,
                protocol=protocol,
            )
            resize_many(server, request, quiet=quiet, as_json=as_json)
            return
        to_save = ResultPlace(upload, output, several=several)
        to_save.check()
        answer: Answer[ResizeResults] | Answer[Version1Result]
        if protocol == 1:
            answer = resize_over_version_1(server, upload, version_1_size(outputs, deadline_ms))
            results: Sequence[ResizedImage] = [answer.value]
        else:
            answer = resize_one(server, upload, outputs, deadline_ms, upload_id, asked)
            results = answer.value.outputs
        saved = to_save.save(outputs, results)
        if not quiet:
            report = ResultReport.of(
                upload,
                answer.value,
                saved=saved,
                server=answer.value.server or answer.server,
                embedded=answer.embedded,
                listed=several,
            )
            text = json.dumps(report.to_json()) if as_json else "\n".join(report.lines())
            typer.echo(text, err=output == STANDARD_OUTPUT)


def _placeholders(names: str | None, protocol: int, *, many: bool) -> tuple[Placeholder, ...]:
    """Return what ``--placeholder`` asks for. Raises ``ValueError``."""
    if names is None:
        return ()
    refuse_version_1("--placeholder", protocol)
    if many:
        raise ValueError("--placeholder takes one image")
    return read_placeholders(names.split(","))


def _check_upload_id(upload_id: str, protocol: int, *, many: bool) -> None:
    """Raise ``ValueError`` for an id that is none, and where there can be none."""
    check_upload_id("--upload-id", upload_id)
    refuse_version_1("--upload-id", protocol)
    if many:
        raise ValueError("--upload-id takes one image")


def _are_many(images: Sequence[Path], *only_for_many: bool) -> bool:
    """Whether the arguments or the options ask for more than one image."""
    if len(images) > 1 or any(only_for_many):
        return True
    if not PATTERN_CHARACTERS.isdisjoint(str(images[0])) and not os.path.lexists(images[0]):
        return any(True for _ in glob.iglob(str(images[0]), recursive=True))  # noqa: PTH207 - stops at the first
    return images[0].is_dir()
