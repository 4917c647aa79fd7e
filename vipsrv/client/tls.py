"""TLS of a client: whom it trusts, which certificate it shows, which session it resumes."""

import os
import ssl
from dataclasses import replace
from typing import Any

from vipsrv.address import Address

ALPN_PROTOCOL = "vipsrv/2"

TlsChoice = bool | ssl.SSLContext
"""Whether to use TLS; a context also says how."""

FilePath = str | os.PathLike[str]

_SELF_SIGNED = 18
_UNKNOWN_ISSUER = (2, 19, 20, 21)
_EXPIRED = 10
_NOT_YET_VALID = 9
_WRONG_HOST = (62, 64)
"""Codes of OpenSSL's verification, ``X509_V_ERR_…`` in openssl/x509_vfy.h."""

_PLAIN_SERVER = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"}

_REASONS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server asks for a client certificate; use --cert (cert=…)",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the server refused the handshake; perhaps it asks for a client "
    "certificate: --cert (cert=…)",
    "TLSV1_ALERT_UNKNOWN_CA": "the server does not trust the authority of the client's certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the server refused the client's certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the server refused the client's certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the server refused the client's certificate: it has expired",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the server refused the client's certificate: it is for servers",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the server and the client have no version of TLS in common",
}


class ClientContext(ssl.SSLContext):
    """A context whose connections resume the last session, in asyncio, too, which has no way to name one."""

    session: ssl.SSLSession | None = None

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Make the TLS of one connection."""
        made = super().wrap_bio(*arguments, **options)
        if self.session is not None and not made.server_side:
            made.session = self.session
        return made


class ClientTls:
    """What the connections of one client have in common."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self.context = context
        # Certificates contain neither the dot at the end of an absolute name nor the zone of an IPv6 address.
        self.server_name = server_name.partition("%")[0].removesuffix(".")

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """Make the TLS of one connection."""
        return self.context.wrap_bio(incoming, outgoing, server_hostname=self.server_name)

    def keep_session(self, tls: ssl.SSLObject) -> None:
        """Resume this session with the next connection; call it once the server has sent something.

        The context of a caller is not changed.
        """
        if isinstance(self.context, ClientContext):
            self.context.session = tls.session


def choose_tls(
    address: Address,
    tls: TlsChoice,
    *,
    ca: FilePath | None = None,
    cert: FilePath | None = None,
    key: FilePath | None = None,
    alpn: bool = True,
) -> tuple[Address, ClientTls | None]:
    """Return the address to connect to, and how to encrypt the connections: ``None`` without TLS.

    Raises ``ValueError`` for choices that exclude each other and for files that are not what they should be,
    and ``OSError`` for one that cannot be read.
    """
    named = [name for name, path in (("ca", ca), ("cert", cert), ("key", key)) if path is not None]
    if address.path and tls:
        raise ValueError("tls: a unix socket is not encrypted")
    if isinstance(tls, ssl.SSLContext):
        if named:
            raise ValueError(f"{named[0]}: the context that was given as tls decides this")
        return replace(address, tls=True), ClientTls(tls, address.host)
    if not tls and not address.tls:
        if named:
            raise ValueError(f"{named[0]}: needs TLS, by --tls (tls=True) or an address tls://HOST:PORT")
        return address, None
    return replace(address, tls=True), ClientTls(_context(ca, cert, key, alpn=alpn), address.host)


def _context(
    ca: FilePath | None, cert: FilePath | None, key: FilePath | None, *, alpn: bool
) -> ClientContext:
    if key is not None and cert is None:
        raise ValueError("key: there is no cert that it belongs to")
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an authority below a root may be named, too
    if alpn:
        context.set_alpn_protocols([ALPN_PROTOCOL])
    if ca is None:
        context.load_default_certs()
    else:
        _check_readable(ca)
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError:
            raise ValueError(f"ca: {os.fspath(ca)} has no valid PEM certificate") from None
    if cert is not None:
        _load_own(context, cert, cert if key is None else key)
    return context


class _EncryptedKey(Exception):
    """The key file asks for a password."""


def _refuse_password() -> str:
    raise _EncryptedKey


def _load_own(context: ssl.SSLContext, cert: FilePath, key: FilePath) -> None:
    """Load the client's own certificate. Raises ``ValueError`` and ``OSError``."""
    _check_readable(cert)
    _check_readable(key)
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except _EncryptedKey:
        fault = f"key: {os.fspath(key)} is encrypted; only keys without a password can be used"
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            fault = f"key: {os.fspath(key)} is not the key of the certificate {os.fspath(cert)}"
        else:
            fault = f"cert: {os.fspath(cert)} and {os.fspath(key)} are no PEM certificate and key"
    else:
        return
    raise ValueError(fault)


def _check_readable(path: FilePath) -> None:
    """Raise an ``OSError`` that names the file, which those of ssl do not."""
    with open(path, "rb"):  # noqa: PTH123 - a str is also accepted
        pass


def tls_fault(error: Exception, host: str) -> str | None:
    """Return why TLS failed, or ``None`` if the error is not one of TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _verification_fault(error, host)
    if not isinstance(error, ssl.SSLError):
        return None
    if isinstance(error, ssl.SSLEOFError):
        return "the server closed the connection during the TLS handshake; perhaps it does not speak TLS"
    reason = error.reason or str(error)
    if reason in _PLAIN_SERVER:
        return "the server does not speak TLS there; leave out --tls (tls=True)"
    return _REASONS.get(reason) or f"TLS failed: {reason.replace('_', ' ').lower()}"


def _verification_fault(error: ssl.SSLCertVerificationError, host: str) -> str:
    trust = "if you trust it, name it with --ca (ca=…)"
    if error.verify_code == _SELF_SIGNED:
        return f"the server's certificate is self-signed; {trust}"
    if error.verify_code in _UNKNOWN_ISSUER:
        return f"the server's certificate is of an unknown authority; {trust}"
    if error.verify_code == _EXPIRED:
        return "the server's certificate has expired"
    if error.verify_code == _NOT_YET_VALID:
        return "the server's certificate is not valid yet; check the clocks"
    if error.verify_code in _WRONG_HOST:
        return f"the server's certificate is not for {host!r}, but for another host"
    return f"the server's certificate is not accepted: {error.verify_message}"
