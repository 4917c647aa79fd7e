"""``vipsrv top``: the live figures of a running server in a terminal, from its ops listener.

Exit codes: 0 done, 1 no ops listener answers or it stopped, 2 the command line is invalid.
"""

import json
import sys
from typing import Annotated, NoReturn

import typer

from vipsrv.address import Address
from vipsrv.cli.ops_stream import open_stream
from vipsrv.cli.standard_streams import discard_unwritable_output
from vipsrv.errors import ConnectFailed, ConnectionLost
from vipsrv.printable import printable

DEFAULT_ADDRESS = "127.0.0.1:9464"

_Address = Annotated[
    str,
    typer.Argument(
        metavar="[ADDRESS]",
        help="Where the ops listener is: HOST:PORT, http://HOST:PORT or unix:/path.",
        show_default=True,
    ),
]


def top(
    address: _Address = DEFAULT_ADDRESS,
    *,
    once: Annotated[bool, typer.Option("--once", help="Print the figures once, then exit.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a second, or only one with --once.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds that the server may be silent.")
    ] = 5.0,
) -> None:
    """Show what a running server does, once a second: throughput, latencies, workers, errors.

    ctrl-C ends it. Where standard output is no terminal, the figures are printed once. Exit codes: 0 done, 1
    no ops listener answers, or with --once or --json it stops, 2 the command line is invalid.
    """
    where = _parse(address)
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
        _fail(str(error), code=1)
    except BrokenPipeError:
        discard_unwritable_output()
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _parse(text: str) -> Address:
    for prefix in ("http://", "ops://"):
        text = text.removeprefix(prefix)
    text = text.removesuffix("/") if not text.startswith(("unix:", "ops+unix:", "http+unix:")) else text
    try:
        address = Address.parse(text)
    except ValueError:
        _fail(f"{text!r} is not HOST:PORT, http://HOST:PORT or unix:/path", code=2)
    if address.tls:
        _fail("the ops listener is read without TLS: name its address as HOST:PORT or unix:/path", code=2)
    return address.reachable()


def _print_json(address: Address, timeout: float, *, once: bool) -> None:
    with open_stream(address, timeout) as events:
        for name, data in events:
            if name == "live":
                print(json.dumps(data), flush=True)  # noqa: T201 - programs read these lines
                if once:
                    return


def _fail(message: str, *, code: int) -> NoReturn:
    typer.echo(printable(f"vipsrv: {message}"), err=True)
    raise typer.Exit(code)
