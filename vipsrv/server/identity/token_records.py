"""The records of a token file: TOML with one table for each token, named by the token's id.

::

    [mzxw6ytboi5dkmrq]
    name = "shop"
    sha256 = "…"                      # of the secret; the secret itself is nowhere
    created = 2026-11-27T09:00:00Z
    expires = 2027-02-25T09:00:00Z    # optional
    revoked = 2026-12-24T18:00:00Z    # optional
    limits = { requests_per_second = 20, formats = ["jpeg", "png"] }    # optional
"""

import re
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vipsrv.errors import SettingsError
from vipsrv.printable import printable
from vipsrv.server.identity.identity import IdentityLimits, check_name
from vipsrv.server.identity.tokens import ID_PATTERN

_DIGEST = re.compile(r"[0-9a-f]{64}")
_REQUIRED = ("name", "sha256", "created")
_OPTIONAL = ("expires", "revoked", "limits")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """What the file holds about one token. Times are in whole seconds and have a zone."""

    id: str
    name: str
    digest: bytes
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    limits: IdentityLimits = field(default_factory=IdentityLimits)

    def state(self, now: float) -> str:
        """Return ``valid``, ``expired`` or ``revoked``; ``now`` is Unix time."""
        if self.revoked is not None:
            return "revoked"
        if self.expires is not None and self.expires.timestamp() <= now:
            return "expired"
        return "valid"


def parse_tokens(data: bytes, path: Path) -> tuple[TokenRecord, ...]:
    """Read the text of a token file. Raises ``SettingsError`` with ``path`` and the line."""
    try:
        text = data.decode("utf-8")
        tables = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}:{line}: the token file is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: the token file is not valid TOML: {printable(str(error))}") from None
    records: dict[str, TokenRecord] = {}
    of_name: dict[str, TokenRecord] = {}
    of_digest: dict[bytes, TokenRecord] = {}
    for token_id, table in tables.items():
        try:
            record = records[token_id] = _record(token_id, table)
            _check_same_secret(record, of_digest.setdefault(record.digest, record))
            if record.revoked is None:
                _check_same_limits(record, of_name.setdefault(record.name, record))
        except ValueError as error:
            header = find_header(text, token_id)
            place = f"{path}:{text.count(chr(10), 0, header.start()) + 1}" if header else f"{path}"
            raise SettingsError(f"{place}: [{printable(token_id)}]: {error}") from None
    return tuple(records.values())


def format_record(record: TokenRecord) -> str:
    """Return the table of a token as text."""
    lines = [
        f"[{record.id}]",
        f'name = "{record.name}"',
        f'sha256 = "{record.digest.hex()}"',
        f"created = {timestamp(record.created)}",
    ]
    if record.expires is not None:
        lines.append(f"expires = {timestamp(record.expires)}")
    if record.revoked is not None:
        lines.append(f"revoked = {timestamp(record.revoked)}")
    if limits := record.limits.to_table():
        lines.append("limits = { " + ", ".join(f"{k} = {_value(v)}" for k, v in limits.items()) + " }")
    return "\n".join(lines) + "\n"


def find_header(text: str, token_id: str) -> re.Match[str] | None:
    """Find the line that begins the table of a token."""
    return re.search(rf'^[ \t]*\[[ \t]*"?{re.escape(token_id)}"?[ \t]*\][^\n]*', text, re.MULTILINE)


def timestamp(time: datetime) -> str:
    """Return a time as the file has it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _record(token_id: str, table: Any) -> TokenRecord:
    if not isinstance(table, dict):
        raise ValueError("must be a table: a line with the id in brackets, and its keys below")  # noqa: TRY004
    if not ID_PATTERN.fullmatch(token_id):
        raise ValueError("is not an id: 8 or more of the letters a to z and digits 2 to 7")
    known = (*_REQUIRED, *_OPTIONAL)
    for key in table:
        if key not in known:
            raise ValueError(f"{printable(key)}: is unknown; known are {', '.join(known)}")
    for key in _REQUIRED:
        if key not in table:
            raise ValueError(f"{key}: is missing")
    return TokenRecord(
        id=token_id,
        name=_name(table["name"]),
        digest=_digest(table["sha256"]),
        created=_time("created", table["created"]),
        expires=_time("expires", table["expires"]) if "expires" in table else None,
        revoked=_time("revoked", table["revoked"]) if "revoked" in table else None,
        limits=_limits(table.get("limits", {})),
    )


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("name: must be text")  # noqa: TRY004 - one error type for all that is wrong
    try:
        return check_name(value)
    except ValueError as error:
        raise ValueError(f"name: {error}") from None


def _digest(value: Any) -> bytes:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError("sha256: must be 64 digits of lower-case hex")
    return bytes.fromhex(value)


def _limits(value: Any) -> IdentityLimits:
    if not isinstance(value, dict):
        raise ValueError("limits: must be a table")  # noqa: TRY004
    try:
        return IdentityLimits.from_table(value)
    except ValueError as error:
        raise ValueError(f"limits: {error}") from None


def _check_same_secret(record: TokenRecord, first: TokenRecord) -> None:
    """Raise ``ValueError`` if a token has the secret of an earlier one, ``first``."""
    if first is not record:
        raise ValueError(f"sha256: is that of [{first.id}]; each token has a secret of its own")


def _check_same_limits(record: TokenRecord, first: TokenRecord) -> None:
    """Raise ``ValueError`` if a token gives its identity other limits than an earlier one, ``first``."""
    if first.limits != record.limits:
        raise ValueError(
            f"limits: differ from those of [{first.id}]; both are tokens of {record.name!r}, whose limits "
            "apply to all its tokens together"
        )


def _time(key: str, value: Any) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(f"{key}: must be a time with its zone, for example 2027-02-25T09:00:00Z")
    return value.astimezone(UTC)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(f'"{one}"' for one in value) + "]"
    return repr(value)
