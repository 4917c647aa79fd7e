"""Makes the certificates of ``vipsrv cert``: an authority and what it signs. Needs ``vipsrv[cert]``."""

import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_CLOCK_SKEW = timedelta(hours=1)
"""How far the clock of another machine may be behind."""

_MAX_COMMON_NAME = 64  # characters, RFC 5280

_LABEL = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> Self:
        """Read two PEM texts. Raises ``ValueError``."""
        private = load_pem_private_key(key, None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError("the authority's key was not made by 'vipsrv cert'")  # noqa: TRY004 - a file's fault
        return cls(x509.load_pem_x509_certificate(certificate), private)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key as PEM, without a password."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True)
class Validity:
    """When a certificate is valid: from ``begins``, a moment earlier by default, for so many ``days``."""

    days: float
    begins: datetime | None = None

    def apply(self, builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
        """Set both times of a certificate."""
        begins = self.begins or datetime.now(UTC)
        return builder.not_valid_before(begins - _CLOCK_SKEW).not_valid_after(
            begins + timedelta(days=self.days)
        )


def make_authority(validity: Validity) -> Pair:
    """Make an authority that can sign certificates of servers and clients, and no other authority's."""
    key = _new_key()
    subject = _name("vipsrv lab authority")
    certificate = (
        validity.apply(_builder(subject, key))
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate, key)


def make_server(authority: Pair, hosts: list[str], validity: Validity) -> Pair:
    """Make the certificate of a server with these names and addresses. Raises ``ValueError``."""
    names = [_host(host) for host in hosts]
    return _signed(
        authority, hosts[0] if hosts else "server", names, validity, ExtendedKeyUsageOID.SERVER_AUTH
    )


def make_client(authority: Pair, name: str | None, validity: Validity) -> Pair:
    """Make the certificate of a client; a host name, an e-mail address or a URI says who it is.

    Raises ``ValueError``.
    """
    names = [] if name is None else [_client(name)]
    return _signed(authority, name or "client", names, validity, ExtendedKeyUsageOID.CLIENT_AUTH)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST_NAME.fullmatch(host):
        raise ValueError(f"--host: {host!r} is neither a host name nor an IP address")
    return x509.DNSName(host)


def _client(name: str) -> x509.GeneralName:
    if name.isascii() and name.isprintable() and " " not in name:
        if "://" in name:
            return x509.UniformResourceIdentifier(name)
        if "@" in name:
            return x509.RFC822Name(name)
        if _HOST_NAME.fullmatch(name):
            return x509.DNSName(name)
    raise ValueError(f"NAME: {name!r} is no host name, e-mail address or URI")


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())  # an RSA signature costs the server many times as much


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_MAX_COMMON_NAME])])


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(identifier, critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(
    authority: Pair,
    subject: str,
    names: list[x509.GeneralName],
    validity: Validity,
    purpose: x509.ObjectIdentifier,
) -> Pair:
    key = _new_key()
    issuer = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        validity.apply(_builder(_name(subject), key))
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)
