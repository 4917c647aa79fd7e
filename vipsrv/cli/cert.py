"""``vipsrv cert``: certificates of a lab, made by an authority of its own, for trying TLS out.

The authority's certificate is what clients trust (``--ca``), and, if the server asks for certificates of its
clients (``--tls-client-ca``), what the server trusts.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from vipsrv.printable import printable

CA, CA_KEY, CERTIFICATE, KEY = "ca.pem", "ca-key.pem", "cert.pem", "key.pem"

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Hosts of every server certificate, so that it can be tried on its own machine."""

cert_app = typer.Typer(
    name="cert",
    help="Make certificates for trying TLS out; needs the extra vipsrv[cert].",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Days = Annotated[int, typer.Option(min=1, max=3650, help="Days until the certificates expire.")]


@cert_app.command("self-signed")
def self_signed(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder for the files; it is made if it is missing.")
    ],
    *,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|IP",
            help="Name or address by which clients reach the server; may be repeated. localhost, 127.0.0.1 "
            "and ::1 are always included.",
        ),
    ] = None,
    days: Days = 365,
) -> None:
    """Make an authority and a server certificate: ca.pem, ca-key.pem, cert.pem and key.pem.

    Existing files are never overwritten. Only you can read the keys; that of the authority is needed for
    "vipsrv cert client" only.
    """
    hosts = list(dict.fromkeys([*(host or ()), *LOCAL_HOSTS]))
    ca, ca_key, certificate, key = (folder / name for name in (CA, CA_KEY, CERTIFICATE, KEY))
    with _one_line_errors():
        from vipsrv.cli.lab_certificates import Validity, make_authority, make_server  # noqa: PLC0415 - an extra

        _check_absent(ca, ca_key, certificate, key)
        validity = Validity(days)
        authority = make_authority(validity)
        server = make_server(authority, hosts, validity)
        folder.mkdir(parents=True, exist_ok=True)
        _write(ca, authority.certificate_pem, mode=0o644)
        _write(ca_key, authority.key_pem, mode=0o600)
        _write(certificate, server.certificate_pem, mode=0o644)
        _write(key, server.key_pem, mode=0o600)
    typer.echo(
        f"{ca}, {ca_key}, {certificate}, {key}: for {', '.join(hosts)}, {days} days\n"
        "\n"
        "Start the server:\n"
        f"  vipsrv serve --listen tls://0.0.0.0:65432 --tls-cert {certificate} --tls-key {key}\n"
        f"Copy {ca}, and no other file, to each client. Then, there:\n"
        f"  vipsrv-client photo.jpg --width 800 --host {hosts[0]} --tls --ca {CA}\n"
        f'  Client("{hosts[0]}", tls=True, ca="{CA}")'
    )


@cert_app.command("client")
def client(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Who the client is: a host name, an e-mail address or a URI."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of ca.pem and ca-key.pem.")],
    *,
    days: Days = 365,
) -> None:
    """Make a client certificate NAME.pem and its key NAME-key.pem, signed by the authority in DIR."""
    stem = re.sub(r"[^A-Za-z0-9._@-]+", "_", name)
    certificate, key = folder / f"{stem}.pem", folder / f"{stem}-key.pem"
    with _one_line_errors():
        from vipsrv.cli.lab_certificates import Pair, Validity, make_client  # noqa: PLC0415 - an extra

        _check_absent(certificate, key)
        authority = Pair.load((folder / CA).read_bytes(), (folder / CA_KEY).read_bytes())
        made = make_client(authority, name, Validity(days))
        _write(certificate, made.certificate_pem, mode=0o644)
        _write(key, made.key_pem, mode=0o600)
    typer.echo(
        f"{certificate}, {key}: for {name}, {days} days\n"
        "\n"
        f"The server: --tls-client-ca {folder / CA}\n"
        f"The client: --tls --ca {CA} --cert {certificate.name} --key {key.name}"
    )


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Report every expected error in one line, and exit with 1, or 2 if an argument is invalid."""
    try:
        yield
    except ModuleNotFoundError as error:
        advice, code = "pip install 'vipsrv[cert]'", 1
        message = f"'vipsrv cert' needs {error.name}, which is not installed: {advice}"
    except OSError as error:
        message, code = f"{error.filename}: {error.strerror}", 1
    except ValueError as error:
        message, code = str(error), 2
    else:
        return
    typer.echo(printable(f"vipsrv: {message}"), err=True)
    raise typer.Exit(code)


def _check_absent(*paths: Path) -> None:
    """Raise ``FileExistsError``, before anything is written, if one of the files is there."""
    for path in paths:
        if path.exists():
            raise FileExistsError(errno.EEXIST, "exists, and is not overwritten", str(path))


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Write a new file. Raises ``OSError``."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - `Path.open` has no mode of the file
        file.write(content)
