"""Records of tokens, and token files that hold them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vipsrv.server.identity import IdentityLimits
from vipsrv.server.identity.token_file import add_token
from vipsrv.server.identity.token_records import TokenRecord, format_record
from vipsrv.server.identity.tokens import Token, hash_secret, new_token

CREATED = datetime(2026, 11, 27, 9, 0, 0, tzinfo=UTC)


def record_of(
    token: Token, name: str = "shop", *, limits: dict[str, Any] | None = None, **times: Any
) -> TokenRecord:
    return TokenRecord(
        id=token.id,
        name=name,
        digest=hash_secret(token.secret),
        created=CREATED,
        limits=IdentityLimits.from_table(limits or {}),
        **times,
    )


def add(path: Path, name: str = "shop", *, limits: dict[str, Any] | None = None, **times: Any) -> Token:
    """Add a new token to the file, as ``vipsrv token new`` does, and return it."""
    token = new_token()
    add_token(path, lambda _present: record_of(token, name, limits=limits, **times))
    return token


def as_text(records: Sequence[TokenRecord]) -> str:
    return "\n".join(format_record(record) for record in records)
