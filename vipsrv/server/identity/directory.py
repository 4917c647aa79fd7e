"""The identities of a server: finds the one of a token, and what it uses."""

import hmac
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Protocol

from vipsrv.errors import SettingsError, Unauthorized
from vipsrv.server.identity.identity import Identity
from vipsrv.server.identity.shared_quotas import SharedQuotas
from vipsrv.server.identity.token_file import read_token_file
from vipsrv.server.identity.token_records import TokenRecord
from vipsrv.server.identity.tokens import hash_secret, split_token
from vipsrv.server.identity.usage import Usage

_log = logging.getLogger(__name__)

WRONG_TOKEN = "the token is unknown or wrong"  # noqa: S105 - a message
"""The one answer to an unknown id and to a wrong secret."""


class TokenRefused(Unauthorized):
    """A client has sent a token that is wrong, or that is no longer good."""


class _TokenSettings(Protocol):
    """The part of ``ServerSettings`` that a reload uses here."""

    @property
    def tokens(self) -> Path | None:
        """The token file."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One token: its digest, whose it is, and until when it is good (Unix time; 0 if it is revoked)."""

    digest: bytes
    identity: Identity
    good_until: float
    revoked: float | None

    @classmethod
    def of(cls, record: TokenRecord) -> "_Entry":
        expires = inf if record.expires is None else record.expires.timestamp()
        revoked = None if record.revoked is None else record.revoked.timestamp()
        return cls(
            digest=record.digest,
            identity=Identity(record.name, record.limits, record.id),
            good_until=expires if revoked is None else 0.0,
            revoked=revoked,
        )


class Identities:
    """The tokens of a token file and the usage of each identity.

    With ``quotas`` their usage is that at all gateways of the server. ``clock`` is that of ``Usage``. Raises
    ``SettingsError`` if the file cannot be read or is not valid.
    """

    def __init__(
        self,
        path: Path,
        *,
        quotas: SharedQuotas | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quotas = quotas
        self._clock = clock
        self._entries = _read(path)
        self._by_digest = _by_digest(self._entries)
        # What a secret that is not in the file is compared with; nobody knows the secret of this one.
        self._nobody = _Entry(hash_secret(secrets.token_urlsafe()), Identity("nobody"), 0.0, None)
        self._usages: dict[str, Usage] = {}

    def __len__(self) -> int:
        """The number of tokens in the file, including those that are no longer good."""
        return len(self._entries)

    def identify(self, token: str, now: float) -> Identity:
        """Return the identity of a token. ``now`` is Unix time.

        Raises ``Unauthorized``. An unknown id and a wrong secret get the same answer after the same work.
        Only a client with the right secret is told that the token has expired or was revoked.
        """
        parts = split_token(token)
        digest = hash_secret(parts.secret)
        # A search by the id would find the entry of a known id, and take up to 80 ns more or less than for an
        # unknown one (decision 33). A search by the digest finds nothing in both cases. How it compares does
        # not matter: a client cannot choose digests, and one that is known leads to no secret.
        entry = self._by_digest.get(digest, self._nobody)
        if not hmac.compare_digest(entry.digest, digest) or entry.identity.token_id != parts.id:
            raise TokenRefused(WRONG_TOKEN)
        if now >= entry.good_until:
            raise _no_longer_good(entry)
        return entry.identity

    def refresh(self, identity: Identity, now: float) -> Identity:
        """Return an identity with its present limits, for the next request of a connection.

        ``now`` is Unix time. Raises ``TokenRefused`` if the token was revoked or removed, or has expired.
        """
        entry = self._entries.get(identity.token_id)
        if entry is None or entry.identity.name != identity.name:
            raise TokenRefused(f"the token of {identity.name} was removed")
        if now >= entry.good_until:
            raise _no_longer_good(entry)
        return entry.identity

    def usage(self, identity: Identity) -> Usage:
        """Return what all connections of an identity use together."""
        usage = self._usages.get(identity.name)
        if usage is None:
            shared = None if self._quotas is None else self._quotas.record(identity.name)
            usage = self._usages[identity.name] = Usage(identity, shared, self._clock())
        return usage

    def prepare_reload(self, settings: _TokenSettings) -> Callable[[], None]:
        """Read the file again, and return a function that takes it over and cannot fail.

        Raises ``SettingsError`` if the file cannot be read or is not valid; the old tokens then stay.
        """
        if settings.tokens is None:
            raise SettingsError("tokens: cannot be removed by a reload; restart the server for that")
        entries = _read(settings.tokens)

        def take_over() -> None:
            self._take_over(entries)

        return take_over

    def _take_over(self, entries: dict[str, _Entry]) -> None:
        self._entries = entries
        self._by_digest = _by_digest(entries)
        now = self._clock()
        present = {entry.identity.name: entry.identity for entry in entries.values() if entry.revoked is None}
        for name, usage in list(self._usages.items()):
            if name in present:
                usage.renew(present[name], now)
            elif not usage.in_flight:
                del self._usages[name]


def _read(path: Path) -> dict[str, _Entry]:
    file = read_token_file(path)
    if file.warning:
        _log.warning("%s", file.warning)
    return {record.id: _Entry.of(record) for record in file.records}


def _by_digest(entries: dict[str, _Entry]) -> dict[bytes, _Entry]:
    return {entry.digest: entry for entry in entries.values()}


def _no_longer_good(entry: _Entry) -> TokenRefused:
    name = entry.identity.name
    if entry.revoked is not None:
        return TokenRefused(f"the token of {name} was revoked on {_day(entry.revoked)}")
    return TokenRefused(f"the token of {name} expired on {_day(entry.good_until)}")


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
