"""How commands end: one line on standard error, and a code that scripts can go by. And how they can begin."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NoReturn

import typer

from vipsrv.errors import (
    Busy,
    ClientTimeout,
    ConnectFailed,
    ConnectionLost,
    CorruptImage,
    Draining,
    InternalError,
    ProtocolError,
    RequestError,
    StartFailed,
    TooLarge,
    UnsupportedFormat,
    VipsrvError,
    WorkerDied,
)

LAST_STANDARD_DESCRIPTOR = 2


class ExitCode(IntEnum):
    """What the process ends with; 0 is success."""

    REFUSED = 1
    USAGE = 2
    NO_SERVER = 3
    FILE = 4
    TIMEOUT = 5
    INTERRUPTED = 130


EXIT_CODES = (
    "Exit codes: 0 done; 1 the server refused the picture or failed on it; 2 the command line makes no "
    "sense; 3 no server could be reached or started, or the connection broke; 4 a file could not be read or "
    "written; 5 a timeout; 130 interrupted."
)

_WHAT_TO_DO: dict[type[VipsrvError], str] = {
    TooLarge: "ask for less, or have the server's limits raised (vipsrv serve --help)",
    UnsupportedFormat: "convert it first; vipsrv-client --formats lists what the server reads",
    CorruptImage: "check that the file is whole",
    Busy: "try again a little later",
    Draining: "try again a little later",
    WorkerDied: "it may be worth one more try; the server's log says why",
    InternalError: "the server's log says more",
    ConnectFailed: "start a server with 'vipsrv serve', or name another one with --host and --port",
    ConnectionLost: "try again; if it stays so, the server's log says more",
    ProtocolError: "check that a vipsrv server is at that address",
    ClientTimeout: "try again, or give it more time with --timeout",
    StartFailed: "start one by hand with 'vipsrv serve' to see more",
}


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Turn every error that a user can meet into one line, after the program's name, and its exit code."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except RequestError as error:
        _fail(program, f"the server answered {error.status} {error.code}: {error}", error, ExitCode.REFUSED)
    except ClientTimeout as error:
        _fail(program, str(error), error, ExitCode.TIMEOUT)
    except VipsrvError as error:
        _fail(program, str(error), error, ExitCode.NO_SERVER)
    except OSError as error:
        drop_what_cannot_be_written()
        if isinstance(error, BrokenPipeError) and error.filename is None:
            _fail(program, "standard output was closed before all was written", error, ExitCode.FILE)
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        _fail(program, f"{where}{error.strerror or error}", error, ExitCode.FILE)
    except ValueError as error:
        _fail(program, str(error), error, ExitCode.USAGE)


def _fail(program: str, message: str, error: Exception, code: ExitCode) -> NoReturn:
    hint = _WHAT_TO_DO.get(type(error)) if isinstance(error, VipsrvError) else None
    line = f"{program}: {message}" + (f"; {hint}" if hint else "")
    typer.echo(line.replace("\n", " "), err=True)
    raise typer.Exit(code)


def drop_what_cannot_be_written() -> None:
    """What is left for a standard output that is full or closed: else the interpreter complains of it at its
    end, and ends with a code of its own.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def open_missing_descriptors() -> None:
    """Give 0, 1 and 2 to /dev/null where they were closed, as by ``<&-``: else the event loop is given them,
    whose library takes that for a bug and aborts.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= LAST_STANDARD_DESCRIPTOR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
