"""The token by which a client logs in: from an argument, a file or the environment."""

import os
from collections.abc import Mapping
from pathlib import Path

TOKEN_VARIABLE = "VIPSRV_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_FILE_VARIABLE = "VIPSRV_TOKEN_FILE"  # noqa: S105

MAX_TOKEN_SIZE = 1024
"""Characters: ten times as many as a token of vipsrv has."""


def choose_token(
    token: str | None = None, file: Path | None = None, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Return the token that was given, or that of a file, or that of the environment, or ``None``.

    ``VIPSRV_TOKEN`` holds a token, and ``VIPSRV_TOKEN_FILE`` names a file that does. An empty variable counts
    as unset. Raises ``ValueError`` for what cannot be a token, and ``OSError`` for a file that cannot be
    read. No message contains any part of the token.
    """
    if token is not None:
        return _check("token", token)
    if file is not None:
        return _read("--token-file", file)
    text, name = environment.get(TOKEN_VARIABLE), environment.get(TOKEN_FILE_VARIABLE)
    if text and name:
        raise ValueError(f"{TOKEN_VARIABLE}: is set, and {TOKEN_FILE_VARIABLE} as well; unset one of them")
    if text:
        return _check(TOKEN_VARIABLE, text)
    return _read(TOKEN_FILE_VARIABLE, Path(name)) if name else None


def _read(what: str, file: Path) -> str:
    with file.open("rb") as opened:
        # One more than a token may have, and the end of its line. A larger file is not read to its end.
        data = opened.read(MAX_TOKEN_SIZE + 3)
    return _check(f"{what}: the content of {file}", data.decode("ascii", "replace").rstrip("\r\n"))


def _check(what: str, token: str) -> str:
    if not isinstance(token, str):
        raise TypeError(f"{what}: must be a text, not {type(token).__name__}")
    if not token:
        raise ValueError(f"{what}: is empty")
    if len(token) > MAX_TOKEN_SIZE or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"{what}: must be one token of up to {MAX_TOKEN_SIZE} characters, without spaces")
    return token
