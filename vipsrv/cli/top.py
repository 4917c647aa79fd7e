"""``vipsrv top``: the live figures of a running server in a terminal, from its ops listener.

Exit codes: 0 done, 2 the command line is invalid, 3 no ops listener answers or the stream ended, 5 it is
silent.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from vipsrv.address import Address
from vipsrv.cli.exit_codes import ExitCode
from vipsrv.cli.ops_connection import ops_address
from vipsrv.cli.ops_stream import open_stream
from vipsrv.cli.standard_streams import discard_unwritable_output
from vipsrv.errors import ClientTimeout, ConnectFailed, ConnectionLost
from vipsrv.printable import printable
from vipsrv.server.configuration import SettingsSources
from vipsrv.server.settings import DEFAULT_OPS, OFF


def top(
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="[ADDRESS]",
            help="The operator's listener, HOST:PORT or unix:/path (default: the setting 'ops_listen').",
            show_default=False,
        ),
    ] = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Print the figures once, then exit.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a second, or only one with --once.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.001, max=86_400, help="Seconds that the server may be silent.")
    ] = 5.0,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file with the server's settings, as for 'vipsrv serve'."),
    ] = None,
    no_config: Annotated[bool, typer.Option("--no-config", help="Read no TOML file.")] = False,
) -> None:
    """Show what a running server does, once a second: throughput, latencies, workers, errors.

    ctrl-C ends it. Where standard output is no terminal, the figures are printed once. Exit codes: 0 done, 2
    the command line is invalid, 3 no operator's listener answers, or with --once or --json its figures ended,
    5 it is silent.
    """
    where = _find(address, SettingsSources({}, config=config, read_file=not no_config))
    # Imported here because a server, which this command starts as well, does not need rich.
    from vipsrv.cli.top_screen import print_once, run_screen  # noqa: PLC0415

    try:
        if as_json:
            _print_json(where, timeout, once=once)
        elif once or not sys.stdout.isatty():
            print_once(where, timeout)
        else:
            run_screen(where, timeout)
    except (ConnectFailed, ConnectionLost) as error:
        _fail(str(error), code=ExitCode.NO_SERVER)
    except ClientTimeout as error:
        _fail(str(error), code=ExitCode.TIMEOUT)
    except BrokenPipeError:
        discard_unwritable_output()
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _find(given: str | None, sources: SettingsSources) -> Address:
    """Return the address that is given, or that of the server which these settings start."""
    if given is None:
        settings, faults = sources.collect()
        for fault in faults:
            _complain(fault)
        setting = settings.get("ops_listen")
        given = DEFAULT_OPS if setting is None else str(setting.value)
        if given == OFF:
            _fail("the setting 'ops_listen' is off: name the address of a server that has one", code=2)
    try:
        return ops_address(given)
    except ValueError as error:
        _fail(str(error), code=ExitCode.USAGE)


def _print_json(address: Address, timeout: float, *, once: bool) -> None:
    with open_stream(address, timeout) as events:
        for name, data in events:
            if name == "live":
                print(json.dumps(data), flush=True)  # noqa: T201 - programs read these lines
                if once:
                    return


def _complain(message: str) -> None:
    typer.echo(printable(f"vipsrv: {message}"), err=True)


def _fail(message: str, *, code: int) -> NoReturn:
    _complain(message)
    raise typer.Exit(code)
