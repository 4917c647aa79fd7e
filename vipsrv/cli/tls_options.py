"""The options by which ``vipsrv-client`` and ``vipsrv ping`` encrypt their connection."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypedDict

import typer

Tls = Annotated[
    bool,
    typer.Option(
        "--tls", help="Encrypt the connection, and check the server's certificate; as tls://HOST:PORT does."
    ),
]
Ca = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        readable=False,  # that error has its own exit code
        help="PEM file of the authority that has signed the server's certificate.  [default: those that this "
        "machine trusts]",
    ),
]
Cert = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", readable=False, help="PEM file of a client certificate, if the server asks for one."
    ),
]
Key = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", readable=False, help="PEM file of its private key.  [default: in the file of --cert]"
    ),
]


class TlsArguments(TypedDict):
    """The arguments of a client that concern TLS."""

    tls: bool | ssl.SSLContext
    ca: Path | None
    cert: Path | None
    key: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """What was chosen on the command line."""

    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def arguments(self) -> TlsArguments:
        """Return the arguments for a client."""
        return {"tls": self.tls, "ca": self.ca, "cert": self.cert, "key": self.key}


def trust_own_certificate(cert: Path) -> ssl.SSLContext:
    """Return a context that trusts a server of this machine by its certificate file, under any name.

    A health check asks at a loopback address, for which the certificate of a server is rarely made. Raises
    ``ValueError`` for a file without a certificate and ``OSError`` for one that cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself, not its authority
    try:
        context.load_verify_locations(cadata=cert.read_text("ascii", errors="replace"))
    except ssl.SSLError:
        raise ValueError(f"tls_cert: {cert} has no valid PEM certificate") from None
    return context
