"""The certificate, key and client CA of the server: loaded, checked, and replaced while it runs.

::

    files ── read once ──► checked in a context of its own ──► taken over: new handshakes use it
                                  │
                                  └─ unusable: one line in the log, and the old certificate stays

A connection keeps what it has begun with: replacing a certificate changes new handshakes only.
"""

import asyncio
import logging
import os
import ssl
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vipsrv.address import Wire
from vipsrv.errors import SettingsError
from vipsrv.server.settings import ServerSettings
from vipsrv.server.small_file import read_small_file

ALPN_PROTOCOL = "vipsrv/2"

_ALPN = {Wire.BINARY: ALPN_PROTOCOL, Wire.HTTP: "http/1.1", Wire.OPS: "http/1.1"}
"""What a listener offers, so that a client which expects another protocol notices (RFC 7301)."""

CHECK_SECONDS = 1.0
"""Seconds between two looks at the files. A change is loaded when a second look finds nothing newer."""

CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
"""The ciphers of TLS 1.2: those of Mozilla's intermediate configuration without finite-field Diffie-Hellman
(https://wiki.mozilla.org/Security/Server_Side_TLS). TLS 1.3 has OpenSSL's own three, as Mozilla's list."""

EXPIRES_SOON_DAYS = 14

_MOST_BYTES = 4 * 1024 * 1024
"""Of a PEM file; the certificates of all public authorities have about 250 KB."""

_PEM_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_PEM_CERTIFICATE_END = b"-----END CERTIFICATE-----"
_PEM_KEY = b"PRIVATE KEY-----"

_KEY_KINDS = (bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2b6570"))
"""Object identifiers of public keys as they are in a certificate: RSA, elliptic curves, Ed25519."""

_IDENTITY_NAMES = ("URI", "email", "DNS")

_log = logging.getLogger(__name__)


def certificate_identity(transport: asyncio.BaseTransport) -> str | None:
    """Return the name that a verified client certificate gives its owner, or ``None`` without a certificate.

    It is the first URI of its subject alternative names, or else the first e-mail address, or else the first
    DNS name. The subject's common name is not used.
    """
    certificate: dict[str, Any] = transport.get_extra_info("peercert") or {}
    names: tuple[tuple[str, str], ...] = certificate.get("subjectAltName", ())
    for wanted in _IDENTITY_NAMES:
        for kind, name in names:
            if kind == wanted:
                return name
    return None


def certificate_fault(transport: asyncio.BaseTransport, now: float) -> str | None:
    """Return why the client with this verified certificate must not be served, or ``None``.

    ``now`` is Unix time. OpenSSL does not check a certificate again when its owner resumes a session, and
    gives the owner another ticket each time. So an expired certificate has to be noticed here.
    """
    if certificate_identity(transport) is None:
        return "the client's certificate names nobody: it has no URI, e-mail address or DNS name"
    if ssl.cert_time_to_seconds(transport.get_extra_info("peercert")["notAfter"]) < now:
        return "the client's certificate has expired"
    return None


Stamp = tuple[tuple[int, int, int] | None, ...]
"""Time of change, inode and size of each file; ``None`` for one that is missing."""


@dataclass(frozen=True, slots=True)
class _Files:
    """The paths of PEM files; a key that is not named is in the certificate's file."""

    certificate: Path
    key: Path
    client_ca: Path | None

    @classmethod
    def of(cls, settings: ServerSettings) -> "_Files":
        """Return the files that the settings name. Raises ``SettingsError``."""
        if settings.tls_cert is None:
            raise SettingsError("--tls-cert: a listener tls://… needs a certificate; see 'vipsrv cert'")
        return cls(settings.tls_cert, settings.tls_key or settings.tls_cert, settings.tls_client_ca)

    def stamp(self) -> Stamp:
        """Return what changes when one of the files changes."""
        return tuple(
            _stamp(path) for path in (self.certificate, self.key, self.client_ca) if path is not None
        )


@dataclass(frozen=True, slots=True)
class _Contents:
    """What the files held at one moment."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None

    @classmethod
    def of(cls, files: _Files) -> "_Contents":
        """Read the files. Raises ``SettingsError``."""
        return cls(
            _read("--tls-cert", files.certificate, _PEM_CERTIFICATE, "PEM certificate"),
            _read("--tls-key", files.key, _PEM_KEY, "PEM private key"),
            None
            if files.client_ca is None
            else _read("--tls-client-ca", files.client_ca, _PEM_CERTIFICATE, "PEM certificate"),
        )

    @property
    def leaf(self) -> bytes:
        """The server's own certificate, which comes first in its file."""
        start = self.certificate.index(_PEM_CERTIFICATE)
        end = self.certificate.find(_PEM_CERTIFICATE_END, start)
        return self.certificate[start : end + len(_PEM_CERTIFICATE_END) if end >= 0 else None]

    @property
    def key_kind(self) -> bytes | None:
        """The object identifier of the kind of the certificate's public key."""
        with suppress(ValueError):
            der = ssl.PEM_cert_to_DER_cert(self.leaf.decode("ascii"))
            return next((kind for kind in _KEY_KINDS if kind in der), None)
        return None


class ServerCertificates:
    """The TLS contexts of all listeners, one for each protocol, made from the files that the settings name.

    Raises ``SettingsError`` if they cannot be used.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._files = _Files.of(settings)
        self._tried = self._files.stamp()
        self._changed: Stamp | None = None
        self._check_at = 0.0
        self._contents = _Contents.of(self._files)
        self._contexts = _make_contexts(self._files, self._contents)
        self.expires: float | None = None
        """When the certificate expires, in seconds since the epoch; unknown before ``examine``."""

    def report(self) -> None:
        """Log at the start what handshakes use."""
        self._report("TLS")

    def context(self, wire: Wire) -> ssl.SSLContext:
        """Return the context for the next handshake before this protocol."""
        return self._contexts[wire]

    def prepare_reload(self, settings: ServerSettings) -> Callable[[], None]:
        """Load and check the files that ``settings`` name; return a function that takes them over.

        Raises ``SettingsError`` if they cannot be used. The function that is returned cannot fail.
        """
        files = _Files.of(settings)
        stamp = files.stamp()
        contents = _Contents.of(files)
        contexts = _make_contexts(files, contents)

        def take_over() -> None:
            # Its own context keeps the key with which it encrypts session tickets, so that clients can resume
            # their sessions. It must not be kept if the certificates of clients are judged otherwise from
            # now on, nor can it take a key of another kind without keeping the old certificate, too.
            kind = contents.key_kind
            same_kind = kind is not None and kind == self._contents.key_kind
            try:
                if not same_kind or contents.client_ca != self._contents.client_ca:
                    self._contexts = contexts
                else:
                    for context in self._contexts.values():
                        _load_chain(context, files, contents)
            except SettingsError:  # no descriptor is left
                self._contexts = contexts
            changed = contents != self._contents
            self._files, self._contents, self._tried, self._changed = files, contents, stamp, None
            if changed:
                self._report("TLS reloaded")

        return take_over

    def watch(self, now: float, settings: ServerSettings) -> None:
        """Load the files again if they have changed since they were last tried."""
        if now < self._check_at:
            return
        self._check_at = now + CHECK_SECONDS
        stamp = self._files.stamp()
        if stamp == self._tried:
            self._changed = None
        elif stamp != self._changed:
            self._changed = stamp  # perhaps still being written
        else:
            self._tried, self._changed = stamp, None
            try:
                take_over = self.prepare_reload(settings)
            except SettingsError as error:
                _log.error("the TLS files have changed but are not used, the old ones stay: %s", error)
            else:
                take_over()

    def examine(self) -> tuple[str, list[str]]:
        """Return whose certificate new handshakes use, and what is wrong with it or its key."""
        names, faults, self.expires = _try_out(self._contexts[Wire.BINARY], self._contents)
        found = [f"--tls-cert: {self._files.certificate} {fault}" for fault in faults]
        with suppress(OSError):
            if stat.S_IMODE(self._files.key.stat().st_mode) & stat.S_IROTH:
                found.append(f"--tls-key: every user of this machine can read {self._files.key}")
        return names, found

    def _report(self, what: str) -> None:
        """Log what new handshakes use, and what is wrong with it."""
        ca = (
            ""
            if self._files.client_ca is None
            else f", clients need a certificate of {self._files.client_ca}"
        )
        try:
            names, faults = self.examine()
        except OSError as error:  # no descriptor is left: a reload must not fail because of that
            names, faults = (
                "",
                [f"--tls-cert: {self._files.certificate} could not be tried out: {error.strerror}"],
            )
        _log.info("%s: certificate %s%s%s", what, self._files.certificate, names, ca)
        for fault in faults:
            _log.warning("%s", fault)


def _make_contexts(files: _Files, contents: _Contents) -> dict[Wire, ssl.SSLContext]:
    return {wire: _make_context(files, contents, protocol) for wire, protocol in _ALPN.items()}


def _make_context(files: _Files, contents: _Contents, protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols([protocol])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # One ticket a handshake is enough, as a client of ours keeps its connection. By default there are two.
    context.num_tickets = 1
    _load_chain(context, files, contents)
    if contents.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            with _as_file(contents.client_ca) as path:
                context.load_verify_locations(path)
        except ssl.SSLError as error:
            raise SettingsError(
                f"--tls-client-ca: {files.client_ca} cannot be used: {_words(error)}"
            ) from None
        except OSError as error:
            raise SettingsError(
                f"--tls-client-ca: {files.client_ca} cannot be given to OpenSSL: {error.strerror}"
            ) from None
    return context


class _EncryptedKey(Exception):
    """The key file asks for a password."""


def _refuse_password() -> str:
    raise _EncryptedKey


def _load_chain(context: ssl.SSLContext, files: _Files, contents: _Contents) -> None:
    """Set the certificate and key of a context. Raises ``SettingsError``."""
    try:
        with _as_file(contents.certificate) as certificate, _as_file(contents.key) as key:
            context.load_cert_chain(certificate, key, password=_refuse_password)
    except _EncryptedKey:
        fault = f"--tls-key: {files.key} is encrypted; a server needs a key without a password"
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            fault = f"--tls-key: {files.key} is not the key of the certificate {files.certificate}"
        else:
            both = " and ".join(dict.fromkeys([str(files.certificate), str(files.key)]))
            fault = f"--tls-cert: {both} cannot be used: {_words(error)}"
    except OSError as error:  # no descriptor is left, or there is no /proc
        fault = f"--tls-cert: {files.certificate} cannot be given to OpenSSL: {error.strerror}"
    else:
        return
    raise SettingsError(fault)


def _words(error: ssl.SSLError) -> str:
    return (error.reason or "not valid PEM").replace("_", " ").lower()


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """Give ``data`` a path, since OpenSSL reads certificates and keys from files only."""
    with ExitStack() as stack:
        if hasattr(os, "memfd_create"):
            memory = stack.enter_context(open(os.memfd_create("tls"), "wb", buffering=0))  # noqa: PTH123 - no path
            memory.write(data)
            yield f"/proc/self/fd/{memory.fileno()}"
        else:
            file = stack.enter_context(tempfile.NamedTemporaryFile(buffering=0))
            file.write(data)
            yield file.name


def _read(flag: str, path: Path, has: bytes, kind: str) -> bytes:
    """Read a file that has to contain ``has``. Raises ``SettingsError``."""
    try:
        data, _ = read_small_file(path, _MOST_BYTES)
    except OSError as error:
        raise SettingsError(f"{flag}: {path}: {error.strerror}") from None
    if has not in data:
        raise SettingsError(f"{flag}: {path} has no {kind}")
    return data


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _try_out(context: ssl.SSLContext, contents: _Contents) -> tuple[str, list[str], float | None]:
    """Make a handshake in memory; return whose certificate it is, why clients may refuse it, and when it
    expires, in seconds since the epoch.
    """
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trust the certificate itself
    with _as_file(contents.leaf) as path:
        client_context.load_verify_locations(path)
    upwards, downwards = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(downwards, upwards)
    server = context.wrap_bio(upwards, downwards, server_side=True)
    try:
        for side in (client, server, client):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return "", [f"is refused by clients: {error.verify_message}"], None
    except ssl.SSLError as error:
        return "", [f"is refused by clients: {_words(error)}"], None
    certificate: dict[str, Any] = client.getpeercert() or {}
    names = [name for kind, name in certificate.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}]
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    faults = [] if names else ["names no host (it has no subjectAltName), so clients refuse it"]
    days = (ends - datetime.now(UTC)).days
    if days < EXPIRES_SOON_DAYS:
        faults.append(f"expires in {days} days, on {ends:%Y-%m-%d}")
    return f" of {', '.join(names) or 'no host'}, valid until {ends:%Y-%m-%d}", faults, ends.timestamp()
