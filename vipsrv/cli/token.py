"""``vipsrv token``: make, list and revoke the tokens of a token file.

Exit codes: 0 done, 1 the token file cannot be read or changed, 2 the command line is invalid.
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError

from vipsrv.cli.standard_streams import discard_unwritable_output
from vipsrv.errors import SettingsError
from vipsrv.printable import printable
from vipsrv.server.configuration import SettingsSources
from vipsrv.server.identity.identity import IdentityLimits, check_name
from vipsrv.server.identity.token_file import TokenFile, add_token, read_token_file, revoke_tokens
from vipsrv.server.identity.token_records import TokenRecord
from vipsrv.server.identity.tokens import Token, hash_secret, new_token

app = typer.Typer(
    help="Make, list and revoke tokens, by which clients log in.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Tokens = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="The token file (default: the setting 'tokens' of the server: VIPSRV_TOKENS or its TOML file).",
    ),
]
_Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="TOML file with the server's settings, as for 'vipsrv serve'."),
]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_DURATION = re.compile(r"([0-9]{1,9})([smhdwy])")
_TAKES_EFFECT = "a running server takes that over on 'vipsrv reload' (SIGHUP)"


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Name of the client; it appears in the log.")],
    *,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="How long the token is good, for example 90d, 12h or 1y (default: for ever)."
        ),
    ] = None,
    requests_per_second: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Requests a second, in the long run.")
    ] = None,
    bytes_per_second: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Bytes of uploads a second, in the long run: 10MB.")
    ] = None,
    in_flight: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Requests at the same time.")
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", help="Pixels of the largest image, and of all results of a request."),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Formats that may be uploaded and asked for, separated by commas: jpeg,png."
        ),
    ] = None,
    priority: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER", help="Weight in the queue; 2 is twice the usual share of the workers."
        ),
    ] = None,
    tokens: _Tokens = None,
    config: _Config = None,
) -> None:
    """Make a token for a client, print it, and add its digest to the token file.

    The token is printed on standard output, this once; nothing else is: TOKEN=$(vipsrv token new shop). The
    limits apply to all tokens of a name together. A second token of a name has the limits of the first.
    """
    path = _token_file(tokens, config)
    now = datetime.now(UTC).replace(microsecond=0)
    given = {
        "requests_per_second": requests_per_second,
        "bytes_per_second": None if bytes_per_second is None else _size(bytes_per_second),
        "in_flight": in_flight,
        "max_pixels": max_pixels,
        "formats": None if formats is None else [word.strip() for word in formats.split(",")],
        "priority": priority,
    }
    limits = _limits({limit: value for limit, value in given.items() if value is not None})
    end = None if expires is None else _end(expires, now)
    try:
        check_name(name)
    except ValueError as error:
        _fail(f"NAME: {error}", code=2)
    token = new_token()
    with _one_line_errors():
        record = add_token(path, lambda present: _record(token, name, present, path, now, end, limits))
    try:
        typer.echo(token.text)
    except OSError as error:
        discard_unwritable_output()
        _fail(f"standard output: {error.strerror}; nobody has this token: revoke {token.id}", code=1)
    until = "" if record.expires is None else f" until {_shown_time(record.expires)}"
    _say(f"added the token {token.id} of {name} to {path}, good{until or ' for ever'}; {_TAKES_EFFECT}")


@app.command("list")
def list_(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    tokens: _Tokens = None,
    config: _Config = None,
) -> None:
    """List the tokens: id, name, state, times and limits. The tokens themselves are not in the file."""
    path = _token_file(tokens, config)
    now = time.time()
    with _one_line_errors():
        file = _read(path)
    if as_json:
        typer.echo(json.dumps({"tokens": [_as_json(one, now) for one in file.records]}, indent=2))
        return
    rows = [("ID", "NAME", "STATE", "CREATED", "EXPIRES", "LIMITS")]
    rows += [
        (
            one.id,
            one.name,
            one.state(now),
            _shown_time(one.created),
            "never" if one.expires is None else _shown_time(one.expires),
            ", ".join(f"{name} {_shown_limit(value)}" for name, value in one.limits.to_table().items())
            or "–",
        )
        for one in file.records
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


@app.command("revoke")
def revoke(
    which: Annotated[
        str, typer.Argument(metavar="NAME|ID", help="Name, for all its tokens, or id of one token.")
    ],
    *,
    tokens: _Tokens = None,
    config: _Config = None,
) -> None:
    """Revoke one token, or all tokens of a name. Connections that use it lose it as well."""
    path = _token_file(tokens, config)
    with _one_line_errors():
        revoked = revoke_tokens(path, which, datetime.now(UTC).replace(microsecond=0))
    if not revoked:
        _say(f"{printable(which)} was revoked before")
        return
    for one in revoked:
        _say(f"revoked the token {one.id} of {one.name}")
    _say(_TAKES_EFFECT)


def _record(
    token: Token,
    name: str,
    present: tuple[TokenRecord, ...],
    path: Path,
    now: datetime,
    end: datetime | None,
    limits: IdentityLimits | None,
) -> TokenRecord:
    """Make the record of a new token. Raises ``SettingsError`` if the name has other limits."""
    others = [one.limits for one in present if one.name == name and one.revoked is None]
    if others and limits is not None and limits != others[0]:
        raise SettingsError(
            f"{path}: {name} has a token with other limits, and they apply to all its tokens together; leave "
            "the limits out, or change them in the file first"
        )
    return TokenRecord(
        id=token.id,
        name=name,
        digest=hash_secret(token.secret),
        created=now,
        expires=end,
        limits=others[0] if others else limits or IdentityLimits(),
    )


def _read(path: Path) -> TokenFile:
    file = read_token_file(path)
    if file.warning:
        _say(file.warning)
    return file


def _token_file(given: str | None, config: Path | None) -> Path:
    """Return the path of the token file: that of the flag, or of the server's setting."""
    if given:
        return Path(given)
    try:
        path = SettingsSources(config=config).read().settings.tokens
    except SettingsError as error:
        for fault in error.faults:
            _say(fault)
        raise typer.Exit(2) from None
    if path is None:
        _fail("which token file? Name it by --tokens FILE, or by the server's setting 'tokens'", code=2)
    return path


def _limits(table: dict[str, Any]) -> IdentityLimits | None:
    """Return the limits of the command line, or ``None`` if it has none."""
    try:
        return IdentityLimits.from_table(table) if table else None
    except ValueError as error:
        limit, _, reason = str(error).partition(":")
        _fail(f"--{limit.replace('_', '-')}:{reason}", code=2)


def _size(text: str) -> int:
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        _fail(f"--bytes-per-second: {printable(text)!r} is not a number of bytes, for example 10MB", code=2)


def _end(text: str, now: datetime) -> datetime:
    """Return the time at which a token of this duration expires."""
    match = _DURATION.fullmatch(text)
    if match is None or not int(match[1]):
        _fail(
            f"--expires: {printable(text)!r} is not a time, for example 90d; units are s, m, h, d, w and y",
            code=2,
        )
    try:
        return now + timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
    except OverflowError:
        _fail(f"--expires: {text} is too long; without --expires the token is good for ever", code=2)


def _as_json(record: TokenRecord, now: float) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "state": record.state(now),
        "created": record.created.isoformat(),
        "expires": None if record.expires is None else record.expires.isoformat(),
        "revoked": None if record.revoked is None else record.revoked.isoformat(),
        "limits": record.limits.to_table(),
    }


def _shown_time(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")


def _shown_limit(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        _fail(str(error), code=1)


def _say(message: str) -> None:
    typer.echo(printable(f"vipsrv: {message}"), err=True)


def _fail(message: str, *, code: int) -> NoReturn:
    _say(message)
    raise typer.Exit(code)
