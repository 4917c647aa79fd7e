"""Who may use the server: clients with a token or a certificate, and version 1 clients of named addresses.

::

    client certificate ─────────────────────────────► identity
    token ──► penalty of the address? ──► identify ──► identity ──► Session: its limits, held at each request
                     └─ 429                  └─ 401, and the penalty of the address grows

Without a token file every client may use the server, and nothing here is asked for a request.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from vipsrv.address import Address
from vipsrv.errors import Busy, Limit, SettingsError, StartFailed, Unauthorized, UnsupportedFormat
from vipsrv.options import Format
from vipsrv.server.accounts import IDENTITY, Account, address_of
from vipsrv.server.address_list import AddressList
from vipsrv.server.identity import Identities, Identity, IdentityLimits, Penalties, Usage
from vipsrv.server.identity.directory import WRONG_TOKEN
from vipsrv.server.identity.shared_quotas import SharedQuotas
from vipsrv.server.request_options import formats_of_results
from vipsrv.server.settings import ServerSettings
from vipsrv.server.tls import certificate_identity
from vipsrv.workers.channel import JobLimits

_log = logging.getLogger(__name__)

Clock = Callable[[], float]

CertificateIdentity = Callable[[asyncio.BaseTransport], str | None]
"""Returns the identity in the client certificate that a transport has verified, or ``None``."""


def identity_key(name: str) -> str:
    """Return the key of the account of an identity."""
    return IDENTITY + name


class Session:
    """Holds the requests of a connection that has logged in against the limits of its identity.

    ``account`` is that of the identity, whose weight in the fair queue follows the priority.
    """

    __slots__ = ("_account", "_clock", "_identities", "_identity", "_job_limits", "_wall_clock", "usage")

    def __init__(
        self,
        identities: Identities,
        identity: Identity,
        account: Account,
        *,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        self._identities = identities
        self._account = account
        self._clock = clock
        self._wall_clock = wall_clock
        self.usage: Usage = identities.usage(identity)
        self._apply(identity)

    @property
    def name(self) -> str:
        """The name of the identity."""
        return self._identity.name

    def refresh(self) -> None:
        """Apply the identity's present limits. Raises ``Unauthorized`` if its token is no longer good."""
        self.use(self._identities.refresh(self._identity, self._wall_clock()))

    def use(self, identity: Identity) -> None:
        """Apply other limits of the identity, or go on with another of its tokens."""
        if identity is not self._identity:
            self.usage = self._identities.usage(identity)
            self._apply(identity)

    def check_formats(self, options: bytes) -> None:
        """Raise ``UnsupportedFormat`` if the options of a RESIZE name a format that is not allowed."""
        allowed = self._identity.limits.formats
        if allowed is None:
            return
        for name in formats_of_results(options):
            # The worker, which knows the format of the image, checks what ``auto`` becomes.
            if name not in allowed and name != Format.AUTO:
                raise UnsupportedFormat(
                    f"format: {name} is not among the formats of this client's token: "
                    f"{', '.join(sorted(allowed))}"
                )

    def limit_job(self, options: bytes) -> bytes:
        """Return the options of a job with the limits that the worker checks."""
        return options if self._job_limits is None else self._job_limits.add_to(options)

    def admit(self, size: int) -> Usage:
        """Count a request with a body of ``size`` bytes; ``done`` of the result ends it. Raises ``Busy``."""
        self.usage.admit(size, self._clock())
        return self.usage

    def count(self, size: int) -> None:
        """Count an upload of ``size`` bytes that was admitted before its size was known."""
        self.usage.count(size, self._clock())

    def give_back(self, size: int) -> None:
        """Stop counting ``size`` bytes of an upload that have not arrived: they will be sent again."""
        self.usage.give_back(size, self._clock())

    def describe(self, server: dict[str, Any]) -> dict[str, Any]:
        """Return what a HELLO reply says about the server, with what holds for this identity."""
        limits = self._identity.limits
        described = {**server, "identity": self.name, "identity_limits": limits.to_table()}
        if "limits" in server:
            described["limits"] = _limits_of(limits, server["limits"])
        if limits.formats is not None and "formats" in server:
            described["formats"] = {
                way: [name for name in names if name in limits.formats]
                for way, names in server["formats"].items()
            }
        return described

    def _apply(self, identity: Identity) -> None:
        self._identity = identity
        self._account.weight = identity.limits.priority
        self._job_limits = _job_limits(identity.limits)


class Access:
    """Decides which clients may use the server; without ``identities`` all may.

    ``allow_v1`` names the addresses whose version 1 clients need no token. Times come from ``clock``
    (monotonic) and ``wall_clock`` (Unix time).
    """

    def __init__(
        self,
        identities: Identities | None = None,
        *,
        allow_v1: Iterable[str] = (),
        certificate_identity: CertificateIdentity | None = None,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        self._identities = identities
        self._allow_v1 = AddressList(allow_v1)
        self._certificate_identity = certificate_identity
        self._penalties = Penalties()
        self._clock = clock
        self._wall_clock = wall_clock
        self.requires_login = identities is not None
        self.attempts = 0
        """The number of tokens that were looked up; those of addresses with a penalty are not."""

    @classmethod
    def of(cls, settings: ServerSettings, quotas: SharedQuotas | None = None) -> "Access":
        """Make the rules that the settings state. Raises ``StartFailed`` for a token file with faults."""
        try:
            identities = None if settings.tokens is None else Identities(settings.tokens, quotas=quotas)
        except SettingsError as error:
            raise StartFailed(str(error)) from None
        return cls(identities, allow_v1=settings.allow_v1, certificate_identity=certificate_identity)

    def certified(self, transport: asyncio.BaseTransport) -> str | None:
        """Return the identity in the client certificate of a transport, or ``None``."""
        return None if self._certificate_identity is None else self._certificate_identity(transport)

    def allows_v1(self, peer: object) -> bool:
        """Whether version 1 clients with this ``peername`` need no token."""
        return peer in self._allow_v1

    def login(self, token: str, address: str) -> Identity:
        """Return the identity of a token; ``address`` is the key of the account of the client's address.

        Raises ``Unauthorized``, and ``Busy`` while the address has a penalty for logins that failed.
        """
        now = self._clock()
        until = self._penalties.until(address, now)
        if until > now:
            raise Busy(
                "too many logins from this address have failed; try again later",
                retry_after_ms=int((until - now) * 1000) + 1,
                limit=Limit.LOGIN_PENALTY,
            )
        self.attempts += 1
        try:
            return self._required.identify(token, self._wall_clock())
        except Unauthorized as error:
            # Whoever has the secret of a token that has expired does not guess.
            if error.message == WRONG_TOKEN and self._penalties.failed(address, now):
                _log.warning("logins from %s are refused for a while: too many have failed", address)
            raise

    def session(self, identity: Identity, account: Account) -> Session:
        """Begin the session of a connection that has logged in."""
        return Session(self._required, identity, account, clock=self._clock, wall_clock=self._wall_clock)

    def prepare_reload(self, settings: ServerSettings) -> Callable[[], None]:
        """Load the rules of new settings, and return a function that takes them over and cannot fail.

        Raises ``SettingsError``.
        """
        if self._identities is None:
            if settings.tokens is not None:
                raise SettingsError("tokens: cannot be added by a reload; restart the server for that")
            take_tokens = None
        else:
            take_tokens = self._identities.prepare_reload(settings)
        allow_v1 = AddressList(settings.allow_v1)

        def take_over() -> None:
            self._allow_v1 = allow_v1
            if take_tokens is not None:
                take_tokens()

        return take_over

    @property
    def _required(self) -> Identities:
        if self._identities is None:
            raise RuntimeError("this server has no tokens, so nobody logs in")
        return self._identities


def is_exposed(listener: Address) -> bool:
    """Whether other machines may reach a listener, whose host is a numeric address."""
    address = address_of((listener.host,)) if not listener.path else None
    return address is not None and not address.is_loopback


def _limits_of(identity: IdentityLimits, server: dict[str, int]) -> dict[str, int]:
    """Return the limits of a server as they hold for an identity."""
    limits = dict(server)
    if identity.max_pixels is not None:
        for name in ("max_pixels", "max_output_pixels"):
            limits[name] = min(limits[name], identity.max_pixels)
    if identity.in_flight is not None:
        limits["workers"] = min(limits["workers"], identity.in_flight)
        # Of the requests that it may have in flight, those wait that do not run.
        limits["queue_per_client"] = min(limits["queue_per_client"], identity.in_flight - limits["workers"])
    return limits


@lru_cache(256)
def _job_limits(limits: IdentityLimits) -> JobLimits | None:
    found = JobLimits(max_pixels=limits.max_pixels, formats=limits.formats)
    return None if found.is_empty else found
