"""``vipsrv``: run a server, check what it would have here or whether one answers, list formats, demonstrate.

Exit codes: 0 done, 1 the server could not start or did not answer, 2 the command line is invalid; ``doctor``
also has 3.
"""

import inspect
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ByteSize, ValidationError
from pydantic.fields import FieldInfo

from vipsrv.address import MAX_PORT, Address, is_service_link
from vipsrv.cli.cert import cert_app
from vipsrv.cli.demo import demo
from vipsrv.cli.doctor import run_doctor
from vipsrv.cli.standard_streams import discard_unwritable_output, open_missing_descriptors
from vipsrv.cli.tls_options import Ca, Cert, Key, Tls, TlsOptions
from vipsrv.errors import StartFailed, VipsrvError
from vipsrv.printable import printable
from vipsrv.protocol import DEFAULT_HOST, DEFAULT_PORT
from vipsrv.server import ServerSettings, formats_of, serve
from vipsrv.server.log_queue import STANDARD_ERROR, log_to
from vipsrv.version import __version__

app = typer.Typer(
    name="vipsrv",
    help="A high-throughput image server on libvips.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # The tables of rich cut a long flag off in a terminal of 80 columns.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.add_typer(cert_app)

_METAVARS = {int: "NUMBER", ByteSize: "SIZE", float: "SECONDS", Path: "FOLDER"}


def main() -> None:
    """Run the command; the entry point of the console script."""
    open_missing_descriptors()
    app()


def _print_version(value: bool) -> None:  # noqa: FBT001 - the signature of a typer callback
    if value:
        typer.echo(f"vipsrv {__version__}")
        raise typer.Exit


@app.callback()
def _vipsrv(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _serve(
    *,
    log_level: Annotated[
        str,
        typer.Option(
            envvar="VIPSRV_LOG_LEVEL",
            show_envvar=False,
            metavar="LEVEL",
            help="Lowest level that is logged to standard error: debug, info, warning or error.",
        ),
    ] = "info",
    until_stdin_closes: Annotated[
        bool,
        typer.Option(
            "--until-stdin-closes",
            help="Stop when standard input closes, that is, when the process that started the server ends.",
        ),
    ] = False,
    **given: Any,
) -> None:
    """Run a server. SIGTERM or ctrl-C stops it after the requests in flight, a second one stops it at once.

    When ready, prints "vipsrv listening on HOST:PORT" (or "unix:/path"), one line for each listener.
    Sizes are bytes and may be written as 200MB or 2GiB. Every setting can also come from the environment,
    for example VIPSRV_PORT or VIPSRV_MAX_UPLOAD; a flag wins over it, and an empty variable counts as unset.
    """
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        _fail(f"--log-level: {log_level!r} is not one of debug, info, warning and error", code=2)
    _mention_service_link()
    settings = _settings(given)
    for text in settings.listen:
        try:
            Address.parse(text)
        except ValueError as error:
            _fail(f"--listen: {error}", code=2)
    try:
        with log_to(STANDARD_ERROR, level):
            serve(settings, on_listening=_print_addresses, until_stdin_closes=until_stdin_closes)
    except StartFailed as error:
        discard_unwritable_output()
        _fail(str(error), code=1)


def _doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    **given: Any,
) -> None:
    """Check what a server would have here: versions, formats, confinement, limits, spool folder.

    Takes the options of "vipsrv serve" and its environment, and starts a worker to try. Exit codes: 0 nothing
    is missing, 1 the server cannot run, 2 the command line is invalid, 3 it runs with less than it should.
    """
    raise typer.Exit(run_doctor(_settings(given), as_json=as_json))


@app.command()
def formats(
    formats: Annotated[
        str | None, typer.Option(help="Formats to read, separated by commas, as for 'vipsrv serve'.")
    ] = None,
) -> None:
    """List the formats that a server reads, with library and version, and those that it writes."""
    try:
        known = formats_of(_settings({"formats": formats}))
    except StartFailed as error:
        _fail(str(error), code=1)
    typer.echo("read")
    for name, library in known.readers.items():
        typer.echo(printable(f"  {name:8} {library}"))
    typer.echo("written")
    for name in known.writers:
        typer.echo(printable(f"  {name}"))


@app.command()
def ping(
    host: Annotated[
        str | None,
        typer.Option(
            help="Host of the server, unix:/path or tls://HOST:PORT (default: the first address of "
            f"VIPSRV_LISTEN, or else VIPSRV_HOST, or else {DEFAULT_HOST})."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_PORT, help=f"Port of the server (default: VIPSRV_PORT, or else {DEFAULT_PORT})."
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, max=86_400, help="Seconds to wait for the reply.")
    ] = 3.0,
    *,
    tls: Tls = False,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
) -> None:
    """Check whether a server answers: print the round trip in milliseconds, or exit with 1.

    Without --host and --port, it asks the server that 'vipsrv serve' with the same environment variables
    starts. If that listens on every address of the machine, it asks at 127.0.0.1 or ::1.
    """
    # Imported here because a server does not need the clients.
    from vipsrv.client import Client, Timeout  # noqa: PLC0415
    from vipsrv.client.server_address import choose_listener  # noqa: PLC0415

    _mention_service_link()
    try:
        where = choose_listener(host or None, port)
        each = Timeout(connect=timeout, send=timeout, reply=timeout)
        server = (
            {"address": str(where)} if where.path or where.tls else {"host": where.host, "port": where.port}
        )
        with Client(
            **server, timeout=each, **TlsOptions(tls=tls, ca=ca, cert=cert, key=key).arguments()
        ) as client:
            seconds = client.ping()
    except VipsrvError as error:
        _fail(str(error), code=1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}", code=2)
    except ValueError as error:
        _fail(str(error), code=2)
    typer.echo(f"{where} answered in {seconds * 1000:.1f} ms")


def _settings(given: dict[str, Any]) -> ServerSettings:
    """Make the settings from the command line, and from the environment if the command line has no value."""
    try:
        return ServerSettings(
            **{name: value for name, value in given.items() if value is not None and value != []}
        )
    except ValidationError as error:
        for fault in error.errors():
            _complain(f"{_flag(str(fault['loc'][0]))}: {fault['msg']}, not {fault['input']!r}")
        raise typer.Exit(2) from None


def _mention_service_link() -> None:
    port = os.environ.get("VIPSRV_PORT", "")
    if is_service_link(port):
        _complain(
            f"VIPSRV_PORT={port} is passed over: Kubernetes sets it for a Service named vipsrv; "
            "enableServiceLinks: false in the pod prevents that"
        )


def _print_addresses(addresses: list[Address]) -> None:
    for address in addresses:
        print(f"vipsrv listening on {address}", flush=True)  # noqa: T201 - programs wait for this line


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _complain(message: str) -> None:
    typer.echo(printable(f"vipsrv: {message}"), err=True)


def _fail(message: str, *, code: int) -> NoReturn:
    _complain(message)
    raise typer.Exit(code)


def _parameter(name: str, setting: FieldInfo) -> inspect.Parameter:
    """Make the command-line option of a setting. Its value stays text, which the settings model checks."""
    default = setting.get_default(call_default_factory=True, validated_data={})
    shown = default.human_readable() if isinstance(default, ByteSize) else str(default)
    kind = setting.annotation if isinstance(setting.annotation, type) else str
    if kind is bool:
        flag = f"{_flag(name)}/--no-{_flag(name)[2:]}" if default else _flag(name)
        annotation: Any = Annotated[bool | None, typer.Option(flag, help=setting.description)]
    else:
        option = typer.Option(
            _flag(name),
            help=f"{setting.description}"
            if default in ((), None)
            else f"{setting.description} (default: {shown})",
            metavar=_METAVARS.get(kind, "TEXT"),
        )
        annotation = Annotated[list[str] | None if default == () else str | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _add_settings_command(name: str, command: Callable[..., None]) -> None:
    """Add a command that takes every setting of the server as an option, besides its own options."""
    signature = inspect.signature(command)
    own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    settings = [_parameter(name, setting) for name, setting in ServerSettings.model_fields.items()]
    parameters = [*settings, *own]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    app.command(name)(command)


_add_settings_command("serve", _serve)
_add_settings_command("doctor", _doctor)
