"""Certificates for tests: an authority of the test's own, and what it signs."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vipsrv.cli.lab_certificates import Pair, Validity, make_authority, make_client, make_server

HOSTS = ("localhost", "127.0.0.1")

VALID = Validity(30)
EXPIRED = Validity(1, begins=datetime.now(UTC) - timedelta(days=3))
NOT_YET_VALID = Validity(1, begins=datetime.now(UTC) + timedelta(days=3))


class Lab:
    """An authority with its files in ``folder``. What is made is two paths: a certificate and its key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.authority = make_authority(Validity(30))
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self.authority.certificate_pem)

    def server(
        self, name: str = "server", *, hosts: tuple[str, ...] = HOSTS, validity: Validity = VALID
    ) -> tuple[Path, Path]:
        return self._write(name, make_server(self.authority, list(hosts), validity))

    def client(self, name: str | None, *, validity: Validity = VALID) -> tuple[Path, Path]:
        return self._write("client", make_client(self.authority, name, validity))

    def trusting(self, *, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """A client's context that trusts the authority."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if client is not None:
            context.load_cert_chain(*client)
        return context

    def _write(self, name: str, pair: Pair) -> tuple[Path, Path]:
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        certificate.write_bytes(pair.certificate_pem)
        key.touch(mode=0o600)
        key.write_bytes(pair.key_pem)
        return certificate, key
