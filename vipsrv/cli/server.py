"""``vipsrv``: run a server, check what it would have here or whether one answers, list formats, demonstrate.

Exit codes: 0 done, 1 the server could not start or did not answer, 2 the command line is invalid; ``doctor``
also has 3, and ``health`` has 3 and 5.
"""

import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ByteSize
from pydantic.fields import FieldInfo

from vipsrv.address import MAX_PORT, Address, Wire, is_service_link
from vipsrv.cli.batch import batch_app
from vipsrv.cli.cert import cert_app
from vipsrv.cli.config import print_configuration, print_example, print_schema
from vipsrv.cli.demo import demo
from vipsrv.cli.doctor import run_doctor
from vipsrv.cli.exit_codes import ExitCode
from vipsrv.cli.health import Answer, NoOperator, ask
from vipsrv.cli.ops_connection import ops_address
from vipsrv.cli.reload import reload_server
from vipsrv.cli.standard_streams import discard_unwritable_output, open_missing_descriptors
from vipsrv.cli.tls_options import Ca, Cert, Key, Tls, TlsOptions, trust_own_certificate
from vipsrv.cli.token import app as token_commands
from vipsrv.cli.top import top
from vipsrv.errors import (
    ClientTimeout,
    ConnectFailed,
    ConnectionLost,
    SettingsError,
    StartFailed,
    VipsrvError,
)
from vipsrv.printable import printable
from vipsrv.protocol import DEFAULT_HOST, DEFAULT_PORT
from vipsrv.server import Configuration, ServerSettings, SettingsSources, formats_of, serve
from vipsrv.server.configuration.environment import PREFIX
from vipsrv.server.configuration.origin import flag_of
from vipsrv.server.configuration.types import bare_type
from vipsrv.server.logs.server_log import ServerLog
from vipsrv.server.pid_file import NoServer
from vipsrv.server.settings import DEFAULT_OPS, OFF
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
app.command()(top)
app.add_typer(batch_app)
app.add_typer(token_commands, name="token")
app.add_typer(cert_app)

_METAVARS = {int: "NUMBER", ByteSize: "SIZE", float: "SECONDS", Path: "FILE"}

_Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="TOML file with settings (default: VIPSRV_CONFIG, or else ./vipsrv.toml or /etc/vipsrv.toml if "
        "there is one).",
    ),
]
_NoConfig = Annotated[bool, typer.Option("--no-config", help="Read no TOML file.")]


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

    When ready, prints "vipsrv listening on HOST:PORT" (or "unix:/path"), one line for each listener, and then
    where its operator finds metrics, health and the live page.
    Sizes are bytes and may be written as 200MB or 2GiB. Every setting can also come from the environment,
    for example VIPSRV_MAX_UPLOAD, from a file that VIPSRV_MAX_UPLOAD_FILE names, and from a TOML file with
    the key max_upload. A flag wins over the environment, and that over the TOML file.
    """
    sources = _sources(given)
    configuration = _read(sources)
    try:
        with ServerLog(configuration.settings) as log:
            serve(
                configuration,
                read=sources.read,
                log=log,
                on_listening=_print_addresses,
                until_stdin_closes=until_stdin_closes,
            )
    except (StartFailed, SettingsError) as error:
        discard_unwritable_output()
        _fail(str(error), code=1)


def _doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    **given: Any,
) -> None:
    """Check what a server would have here: versions, formats, confinement, limits, spool folder.

    Takes the options of "vipsrv serve", its environment and its TOML file, and starts a worker to try. Exit
    codes: 0 nothing is missing, 1 the server cannot run, 2 the settings are invalid, 3 it runs with less than
    it should.
    """
    raise typer.Exit(run_doctor(_read(_sources(given)).settings, as_json=as_json))


def _config(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    example: Annotated[
        bool, typer.Option("--example", help="Print a commented TOML file with all settings instead.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of the TOML file instead.")
    ] = False,
    **given: Any,
) -> None:
    """Print the settings that a server would have here, and where each comes from.

    Takes the options of "vipsrv serve", its environment and its TOML file. Exit codes: 0, or 2 if a setting
    is invalid.
    """
    if example:
        print_example()
    elif schema:
        print_schema()
    else:
        print_configuration(_read(_sources(given)), as_json=as_json)


@app.command()
def reload(
    pid_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pid file of the server (default: the setting).")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, max=86_400, help="Seconds to wait for the outcome.")
    ] = 30.0,
    config: _Config = None,
    *,
    no_config: _NoConfig = False,
) -> None:
    """Make a running server read its TOML file again, and the files of tokens, certificates and secrets.

    The server takes over all that has changed, or nothing. Exit codes: 0 it has taken it over, 1 it has
    refused it or there is no server, 2 the command line is invalid.
    """
    given, faults = _sources({"pid_file": pid_file, "config": config, "no_config": no_config}).collect()
    if "pid_file" not in given:
        for fault in faults:
            _complain(fault)
        _fail("--pid-file: name the file that 'vipsrv serve --pid-file FILE' has written", code=2)
    try:
        last = reload_server(Path(given["pid_file"].value), timeout)
    except NoServer as error:
        _fail(str(error), code=1)
    if last.taken_over:
        typer.echo("the settings were reloaded")
        for line in last.lines:
            typer.echo(printable(line))
        return
    for line in last.lines:
        _complain(line)
    _fail("the settings were not reloaded; those from before hold", code=1)


@app.command()
def formats(
    formats: Annotated[
        str | None, typer.Option(help="Formats to read, separated by commas, as for 'vipsrv serve'.")
    ] = None,
    config: _Config = None,
    *,
    no_config: _NoConfig = False,
) -> None:
    """List the formats that a server reads, with library and version, and those that it writes."""
    sources = _sources({"formats": formats, "config": config, "no_config": no_config})
    settings = _read(sources).settings
    try:
        known = formats_of(settings)
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
            help="Host of the server, unix:/path or tls://HOST:PORT (default: of the setting 'listen' the "
            f"first address without TLS, or else the first; or else 'host', or else {DEFAULT_HOST})."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_PORT,
            help=f"Port of the server (default: the setting 'port', or else {DEFAULT_PORT}).",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, max=86_400, help="Seconds to wait for the reply.")
    ] = 3.0,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="File with a token, which is then checked as well (default: VIPSRV_TOKEN_FILE, or "
            "VIPSRV_TOKEN with the token itself). A ping needs none.",
        ),
    ] = None,
    config: _Config = None,
    *,
    no_config: _NoConfig = False,
    tls: Tls = False,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
) -> None:
    """Check whether a server answers: print the round trip in milliseconds, or exit with 1.

    Without --host and --port, it asks the server that 'vipsrv serve' with the same environment variables
    and TOML file starts. If that listens on every address of the machine, it asks at 127.0.0.1 or ::1. If
    that takes TLS only, it trusts the certificate of the setting 'tls_cert', whatever its name.
    """
    _mention_service_link()
    given = _given_settings(_sources({"config": config, "no_config": no_config}))
    options = TlsOptions(tls=tls, ca=ca, cert=cert, key=key)
    try:
        where, seconds = _ping(given, host, port, timeout=timeout, token_file=token_file, tls=options)
    except VipsrvError as error:
        _fail(str(error), code=1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}", code=2)
    except ValueError as error:
        _fail(str(error), code=2)
    typer.echo(f"{where} answered in {seconds * 1000:.1f} ms")


def _ping(
    given: dict[str, Any],
    host: str | None = None,
    port: int | None = None,
    *,
    timeout: float,
    token_file: Path | None = None,
    tls: TlsOptions | None = None,
) -> tuple[Address, float]:
    """Ping the server that the settings ``given`` are of, unless ``host`` or ``port`` name another.

    Return its address and the seconds. Raises ``VipsrvError``, ``OSError`` for a file, or ``ValueError``.
    """
    # Imported here because a server does not need the clients.
    from vipsrv.client import Client, Timeout  # noqa: PLC0415
    from vipsrv.client.login_token import choose_token  # noqa: PLC0415
    from vipsrv.client.server_address import choose_listener  # noqa: PLC0415

    options = tls or TlsOptions(tls=False, ca=None, cert=None, key=None)
    where = choose_listener(host or None, port, _address_variables(given))
    each = Timeout(connect=timeout, send=timeout, reply=timeout)
    server = {"address": str(where)} if where.path or where.tls else {"host": where.host, "port": where.port}
    secured = options.arguments()
    if where.tls and host is None and options.ca is None and options.cert is None and "tls_cert" in given:
        secured["tls"] = trust_own_certificate(Path(given["tls_cert"]))
    with Client(**server, timeout=each, token=choose_token(file=token_file), **secured) as client:
        return where, client.ping()


@app.command()
def health(
    *,
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether it is ready for requests, not only alive.")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="The operator's listener, HOST:PORT or unix:/path (default: the setting 'ops_listen').",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, max=86_400, help="Seconds to wait for the reply.")
    ] = 8.0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print each check as well.")] = False,
    config: _Config = None,
    no_config: _NoConfig = False,
) -> None:
    """Ask whether a server is alive or ready, for probes that run a command.

    Asks the operator's listener of the server that 'vipsrv serve' with the same environment variables and
    TOML file starts: for --ready a small image goes through the queue and a worker. A server without that
    listener is asked by 'ping', which finds out whether it has workers. Exit codes: 0 alive or ready, 1 it is
    not, 2 the command line or a setting is invalid, 3 there is no server, 5 it does not answer in time.
    """
    given = _given_settings(_sources({"config": config, "no_config": no_config}))
    setting = given.get("ops_listen")
    try:
        found = None if address is None and setting == OFF else ops_address(address or setting or DEFAULT_OPS)
        answer = _ask_health(found, given, ready=ready, timeout=timeout, chosen=bool(address or setting))
    except ValueError as error:
        _fail(str(error), code=ExitCode.USAGE)
    except TimeoutError as error:
        _fail(str(error), code=ExitCode.TIMEOUT)
    except NoOperator as error:
        _fail(str(error), code=ExitCode.NO_SERVER)
    for line in (*(answer.checks if verbose else ()), answer.text):
        typer.echo(printable(line))
    if not answer.ok:
        raise typer.Exit(ExitCode.REFUSED)


def _ask_health(
    found: Address | None, given: dict[str, Any], *, ready: bool, timeout: float, chosen: bool
) -> Answer:
    """Ask the operator's listener at ``found``; without one, ping the server.

    ``chosen`` is whether the operator has named the address: then there has to be a listener. Raises
    ``NoOperator``, ``TimeoutError`` or ``ValueError``.
    """
    if found is not None:
        try:
            return ask(found, ready=ready, timeout=timeout)
        except NoOperator:
            if chosen:
                raise
    try:
        where, _ = _ping(given, timeout=timeout)
    except ClientTimeout as error:
        raise TimeoutError(str(error)) from None
    except (ConnectFailed, ConnectionLost) as error:
        raise NoOperator(str(error)) from None
    except VipsrvError as error:
        return Answer(ok=False, text=f"not {'ready' if ready else 'alive'}: {error}")
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from None
    if ready:
        return Answer(
            ok=True, text=f"ready: {where} has workers; no image was tried, which needs --ops-listen"
        )
    return Answer(ok=True, text="alive")


def _sources(given: dict[str, Any]) -> SettingsSources:
    """Return the places to read settings from: the flags of the command line and what they name."""
    config, read_file = given.pop("config"), not given.pop("no_config")
    if config is not None and not read_file:
        _fail("--config and --no-config exclude each other", code=2)
    return SettingsSources(given, config=config, read_file=read_file)


def _read(sources: SettingsSources) -> Configuration:
    """Read the settings; exit with 2 and a line for each fault."""
    _mention_service_link()
    try:
        return sources.read()
    except SettingsError as error:
        for fault in error.faults:
            _complain(fault)
        raise typer.Exit(2) from None


def _given_settings(sources: SettingsSources) -> dict[str, Any]:
    """Return the settings that are no defaults, from all sources.

    Faults are only mentioned: a health check must not fail while someone edits the settings of a server that
    runs.
    """
    given, faults = sources.collect()
    for fault in faults:
        _complain(fault)
    return {name: one.value for name, one in given.items()}


def _address_variables(given: dict[str, Any]) -> dict[str, str]:
    """Return the environment with the address of the server from all sources."""
    addresses = {
        f"{PREFIX}{name.upper()}": ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name in ("listen", "host", "port")
        if (value := given.get(name)) is not None
    }
    return {**os.environ, **addresses}


def _mention_service_link() -> None:
    port = os.environ.get("VIPSRV_PORT", "")
    if is_service_link(port):
        _complain(
            f"VIPSRV_PORT={port} is passed over: Kubernetes sets it for a Service named vipsrv; "
            "enableServiceLinks: false in the pod prevents that"
        )


def _print_addresses(addresses: list[Address]) -> None:
    for address in sorted(addresses, key=lambda one: one.wire is Wire.OPS):
        if address.wire is Wire.OPS:
            where = replace(address, wire=Wire.HTTP)
            print(f"vipsrv for its operator at {where}", flush=True)  # noqa: T201 - as below
        else:
            print(f"vipsrv listening on {address}", flush=True)  # noqa: T201 - programs wait for this line


def _complain(message: str) -> None:
    typer.echo(printable(f"vipsrv: {message}"), err=True)


def _fail(message: str, *, code: int) -> NoReturn:
    _complain(message)
    raise typer.Exit(code)


def _parameter(name: str, setting: FieldInfo) -> inspect.Parameter:
    """Make the command-line option of a setting. Its value stays text, which the settings model checks."""
    default = setting.get_default(call_default_factory=True, validated_data={})
    shown = default.human_readable() if isinstance(default, ByteSize) else str(default)
    kind, flag = bare_type(setting.annotation), flag_of(name)
    if kind is bool:
        flag = f"{flag}/--no-{flag[2:]}" if default else flag
        annotation: Any = Annotated[bool | None, typer.Option(flag, help=setting.description)]
    else:
        option = typer.Option(
            flag,
            help=f"{setting.description}"
            if default in ((), None)
            else f"{setting.description} (default: {shown})",
            metavar="FOLDER" if name.endswith("_dir") else _METAVARS.get(kind, "TEXT"),
        )
        annotation = Annotated[list[str] | None if default == () else str | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _add_settings_command(name: str, command: Callable[..., None]) -> None:
    """Add a command that takes every setting of the server and its file as options, besides its own."""
    signature = inspect.signature(command)
    own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    settings = [_parameter(name, setting) for name, setting in ServerSettings.model_fields.items()]
    file = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, default, kind in (("config", None, _Config), ("no_config", False, _NoConfig))
    ]
    parameters = [*settings, *file, *own]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    app.command(name)(command)


_add_settings_command("serve", _serve)
_add_settings_command("doctor", _doctor)
_add_settings_command("config", _config)
