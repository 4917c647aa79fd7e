"""How ``vipsrv-client``, ``vipsrv batch`` and ``vipsrv demo`` end: an exit code, and a line on failure."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, NoReturn

import typer

from vipsrv.cli.standard_streams import discard_unwritable_output
from vipsrv.errors import (
    BatchError,
    Busy,
    ClientTimeout,
    ConnectFailed,
    ConnectionLost,
    CorruptImage,
    Draining,
    InternalError,
    ProtocolError,
    RequestError,
    ServerLost,
    StartFailed,
    TlsFailed,
    TooLarge,
    Unauthorized,
    UnsupportedFormat,
    VipsrvError,
    WorkerDied,
)
from vipsrv.printable import printable


class ExitCode(IntEnum):
    """The exit code of the process; 0 is success."""

    REFUSED = 1
    USAGE = 2
    NO_SERVER = 3
    FILE = 4
    TIMEOUT = 5
    INTERRUPTED = 130
    TERMINATED = 143


EXIT_CODES = (
    "Exit codes: 0 done; 1 the server refused the token or the image, or failed on it, or some of many "
    "images failed for any reason; 2 the command line is invalid; 3 no server could be reached or started, "
    "or the connection broke; 4 a file could not be read or written; 5 a timeout; 130 interrupted; 143 ended "
    "by SIGTERM."
)

BATCH_EXIT_CODES = (
    "Exit codes: 0 no image failed in this run; 1 all were tried, and some failed or could not be listed; 2 "
    "the command line is invalid; 3 no server could be reached or started, it was lost, or it refused the "
    "token; 4 the batch stopped before its end: the source or the destination cannot be used, an extra is "
    "missing, too many images failed (--max-error-rate), or standard output was closed; 130 or 143 stopped "
    "by ctrl-C or SIGTERM."
)

_AFTER_LOSS = "once it is well, the same command goes on"

_ADVICE: dict[type[VipsrvError], str] = {
    Unauthorized: "name the file of a valid token with --token-file, or in VIPSRV_TOKEN_FILE",
    TooLarge: "ask for less, or raise the server's limits (vipsrv serve --help)",
    UnsupportedFormat: "convert it first; vipsrv-client --formats lists what the server reads",
    CorruptImage: "check that the file is complete",
    Busy: "try again a little later",
    Draining: "try again a little later",
    WorkerDied: "try once more; the server's log says why",
    InternalError: "the server's log says more",
    ConnectFailed: "start a server with 'vipsrv serve', or name another one with --host and --port",
    ConnectionLost: "try again; if it happens again, the server's log says more",
    ProtocolError: "check that a vipsrv server listens at that address",
    ClientTimeout: "try again, or allow more time with --timeout",
    StartFailed: "run 'vipsrv serve' to see more",
}


@contextmanager
def one_line_errors(program: str, *, as_json: bool = False) -> Iterator[None]:
    """Report every expected error in one line, after the program's name, and exit with the error's code.

    With ``as_json`` the line is a JSON object.
    """
    fail = _fail_as_json if as_json else _fail
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except (VipsrvError, OSError, ValueError) as error:
        if isinstance(error, OSError):
            discard_unwritable_output()
        if isinstance(error, BrokenPipeError) and error.filename is None:
            fail(program, "standard output was closed before everything was written", error, ExitCode.FILE)
        fail(program, _place(error) + reason_of(error), error, exit_code_of(error))


def exit_code_of(error: Exception) -> ExitCode:
    """Return the exit code for an expected error."""
    match error:
        case RequestError():
            return ExitCode.REFUSED
        case ClientTimeout():
            return ExitCode.TIMEOUT
        case VipsrvError():
            return ExitCode.NO_SERVER
        case OSError():
            return ExitCode.FILE
        case _:
            return ExitCode.USAGE


def reason_of(error: Exception) -> str:
    """Return what an expected error is, for a person, without the file that it is about."""
    if isinstance(error, RequestError):
        return f"the server answered {error.status} {error.code}: {error}"
    return str(getattr(error, "strerror", None) or error)


def _place(error: Exception) -> str:
    """Return the file that an error is about, with a colon, or an empty text."""
    name = getattr(error, "filename", None)
    return f"{os.fsdecode(name)}: " if isinstance(name, (str, bytes)) else ""


@contextmanager
def batch_errors(program: str) -> Iterator[None]:
    """Report every expected error of a batch in one line, and exit with its code."""
    with one_line_errors(program):
        try:
            yield
        except ServerLost as error:
            _say(program, str(error), _AFTER_LOSS, ExitCode.NO_SERVER)
        except BatchError as error:
            _say(program, str(error), None, ExitCode.FILE)
        except Unauthorized as error:
            refusal = f"the server answered {error.status} {error.code}: {error}"
            _say(program, refusal, _advice(error), ExitCode.NO_SERVER)
        except ConnectFailed as error:
            away = not isinstance(error, TlsFailed)
            advice = "start it, or leave --server out to have one started for the batch" if away else None
            _say(program, str(error), advice, ExitCode.NO_SERVER)


def error_as_json(
    message: str, code: int, *, advice: str | None = None, error: Exception | None = None
) -> str:
    """Return a failure as a JSON object with one name, ``error``. What does not apply is ``null``."""
    return json.dumps({"error": _fields(message, code, advice, error)})


def error_fields(message: str, error: Exception) -> dict[str, Any]:
    """Return the object ``error`` of a failure as ``error_as_json`` does, for one of many images."""
    return _fields(message, exit_code_of(error), _advice(error), error)


def _fields(message: str, code: int, advice: str | None, error: Exception | None) -> dict[str, Any]:
    refusal = error if isinstance(error, RequestError) else None
    return {
        "message": printable(message),
        "advice": advice,
        "exit_code": int(code),
        "status": refusal and refusal.status,
        "code": refusal and refusal.code,
        "retryable": refusal and refusal.retryable,
        "retry_after_ms": refusal and refusal.retry_after_ms,
        "attempts": error.attempts if isinstance(error, VipsrvError) else None,
    }


def _advice(error: Exception) -> str | None:
    return _ADVICE.get(type(error)) if isinstance(error, VipsrvError) else None


def _fail(program: str, message: str, error: Exception, code: ExitCode) -> NoReturn:
    _say(program, message, _advice(error), code)


def _say(program: str, message: str, advice: str | None, code: ExitCode) -> NoReturn:
    # A file name or an argument may contain anything.
    typer.echo(printable(f"{program}: {message}" + (f"; {advice}" if advice else "")), err=True)
    raise typer.Exit(code)


def _fail_as_json(_program: str, message: str, error: Exception, code: ExitCode) -> NoReturn:
    typer.echo(error_as_json(message, code, advice=_advice(error), error=error), err=True)
    raise typer.Exit(code)
