"""The server's certificate: what is refused, how it is replaced, and what new handshakes then use."""

import asyncio
import logging
import os
import ssl
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from tests.support.certificates import EXPIRED, NOT_YET_VALID, Lab
from vipsrv.address import Wire
from vipsrv.cli.lab_certificates import Pair, Validity
from vipsrv.errors import SettingsError
from vipsrv.server.settings import ServerSettings
from vipsrv.server.tls import ServerCertificates, certificate_identity


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def settings(pair: tuple[Path, Path], **other: Any) -> ServerSettings:
    return ServerSettings(tls_cert=pair[0], tls_key=pair[1], **other)


class Handshake:
    """A handshake in memory with a server's context."""

    def __init__(
        self,
        context: ssl.SSLContext,
        client_context: ssl.SSLContext,
        session: ssl.SSLSession | None = None,
        host: str = "localhost",
    ) -> None:
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client_context.wrap_bio(down, up, server_hostname=host, session=session)
        self.server = context.wrap_bio(up, down, server_side=True)
        for _ in range(3):
            for side in (self.client, self.server):
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()

    def serial(self) -> str:
        """The number of the server's certificate."""
        certificate: Any = self.client.getpeercert()
        return str(certificate["serialNumber"])

    def session(self) -> ssl.SSLSession:
        """The session, for which the client has to read what the server sent after the handshake."""
        self.server.write(b"x")
        self.client.read(1)
        assert self.client.session is not None
        return self.client.session


def test_only_tls_from_1_2_with_forward_secrecy_and_our_protocol(lab: Lab) -> None:
    context = ServerCertificates(settings(lab.server())).context(Wire.BINARY)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.maximum_version is ssl.TLSVersion.MAXIMUM_SUPPORTED
    for cipher in context.get_ciphers():
        assert cipher["name"].startswith(("TLS_", "ECDHE-"))
        assert "GCM" in cipher["name"] or "CHACHA20" in cipher["name"]
    client_context = lab.trusting()
    client_context.set_alpn_protocols(["h2", "vipsrv/2"])
    assert Handshake(context, client_context).client.selected_alpn_protocol() == "vipsrv/2"
    assert Handshake(context, lab.trusting()).client.selected_alpn_protocol() is None


def test_the_key_may_be_in_the_file_of_the_certificate(lab: Lab) -> None:
    certificate, key = lab.server()
    certificate.write_bytes(key.read_bytes() + certificate.read_bytes())
    context = ServerCertificates(ServerSettings(tls_cert=certificate)).context(Wire.BINARY)
    assert Handshake(context, lab.trusting()).client.version() == "TLSv1.3"


@dataclass(frozen=True)
class Files:
    """The files of a server, to be damaged, and the key of another certificate."""

    cert: Path
    key: Path
    ca: Path
    other_key: Path

    def encrypt_key(self) -> None:
        pair = Pair.load(self.cert.read_bytes(), self.key.read_bytes())
        password = BestAvailableEncryption(b"secret")
        self.key.write_bytes(pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, password))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:150])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda files: files.cert.unlink(), "--tls-cert: {cert}: No such file or directory"),
        (lambda files: files.key.unlink(), "--tls-key: {key}: No such file or directory"),
        (lambda files: empty(files.cert), "--tls-cert: {cert} has no PEM certificate"),
        (lambda files: empty(files.key), "--tls-key: {key} has no PEM private key"),
        (lambda files: truncate(files.cert), "--tls-cert: {cert} and {key} cannot be used: "),
        (lambda files: truncate(files.key), "--tls-cert: {cert} and {key} cannot be used: "),
        (Files.encrypt_key, "--tls-key: {key} is encrypted; a server needs a key without a password"),
        (
            lambda files: files.other_key.replace(files.key),
            "--tls-key: {key} is not the key of the certificate {cert}",
        ),
        (lambda files: files.ca.unlink(), "--tls-client-ca: {ca}: No such file or directory"),
        (lambda files: empty(files.ca), "--tls-client-ca: {ca} has no PEM certificate"),
        (lambda files: truncate(files.ca), "--tls-client-ca: {ca} cannot be used: "),
    ],
)
def test_files_that_cannot_be_used_are_named_in_one_line(
    lab: Lab, damage: Callable[[Files], object], fault: str
) -> None:
    files = Files(*lab.server(), lab.ca, lab.server("other")[1])
    wanted = settings((files.cert, files.key), tls_client_ca=files.ca)
    working = ServerCertificates(wanted)
    damage(files)
    expected = fault.format(cert=files.cert, key=files.key, ca=files.ca)
    with pytest.raises(SettingsError) as at_start:
        ServerCertificates(wanted)
    with pytest.raises(SettingsError) as at_reload:
        working.prepare_reload(wanted)
    for error in (at_start, at_reload):
        assert str(error.value).startswith(expected)
        assert "\n" not in str(error.value)


def test_a_listener_without_a_certificate() -> None:
    with pytest.raises(SettingsError, match=r"^--tls-cert: a listener tls://… needs a certificate"):
        ServerCertificates(ServerSettings())


@pytest.mark.parametrize(
    ("validity", "hosts", "warning"),
    [
        (EXPIRED, ("localhost",), "is refused by clients: certificate has expired"),
        (NOT_YET_VALID, ("localhost",), "is refused by clients: certificate is not yet valid"),
        (Validity(9.5), ("localhost",), "expires in 9 days, on "),
        (Validity(30), (), "names no host (it has no subjectAltName), so clients refuse it"),
    ],
)
def test_what_clients_will_refuse_is_told_at_the_start(
    lab: Lab,
    caplog: pytest.LogCaptureFixture,
    validity: Validity,
    hosts: tuple[str, ...],
    warning: str,
) -> None:
    pair = lab.server(validity=validity, hosts=hosts)
    ServerCertificates(settings(pair)).report()
    warnings = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"--tls-cert: {pair[0]} {warning}")


def test_a_key_that_everyone_can_read_is_told_at_the_start(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pair = lab.server()
    ServerCertificates(settings(pair)).report()
    assert [one.getMessage().split(" of ")[0] for one in caplog.records] == [f"TLS: certificate {pair[0]}"]
    pair[1].chmod(0o644)
    ServerCertificates(settings(pair)).report()
    assert caplog.records[-1].getMessage() == f"--tls-key: every user of this machine can read {pair[1]}"


def test_a_reload_changes_new_handshakes_and_keeps_sessions(lab: Lab) -> None:
    certificates = ServerCertificates(settings(lab.server("one")))
    trusting = lab.trusting()
    before = Handshake(certificates.context(Wire.BINARY), trusting)
    session = before.session()
    take_over = certificates.prepare_reload(settings(lab.server("two")))
    assert Handshake(certificates.context(Wire.BINARY), trusting).serial() == before.serial()
    take_over()
    assert Handshake(certificates.context(Wire.BINARY), trusting).serial() != before.serial()
    assert Handshake(certificates.context(Wire.BINARY), trusting, session).client.session_reused
    before.server.write(b"still here")
    assert before.client.read() == b"still here"


def rsa_pair(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "rsa.pem", folder / "rsa-key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=rsa", "-days", "20"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run([*make, *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("the openssl command makes the certificate")
    return certificate, key


def test_a_key_of_another_kind_replaces_the_old_certificate(lab: Lab) -> None:
    certificates = ServerCertificates(settings(lab.server()))
    rsa = rsa_pair(lab.folder)
    certificates.prepare_reload(settings(rsa))()
    trusting = ssl.create_default_context(cafile=str(rsa[0]))
    assert Handshake(certificates.context(Wire.BINARY), trusting).client.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):  # not the old one beside it
        Handshake(certificates.context(Wire.BINARY), lab.trusting())


def test_a_session_is_not_resumed_if_clients_are_judged_otherwise(lab: Lab) -> None:
    pair, client = lab.server(), lab.client("alice")
    trusting = lab.trusting(client=client)
    certificates = ServerCertificates(settings(pair, tls_client_ca=lab.ca))
    session = Handshake(certificates.context(Wire.BINARY), trusting).session()
    assert Handshake(certificates.context(Wire.BINARY), trusting, session).client.session_reused
    others = Lab(lab.folder / "others")
    certificates.prepare_reload(settings(pair, tls_client_ca=others.ca))()
    with pytest.raises(ssl.SSLError):
        Handshake(certificates.context(Wire.BINARY), trusting, session)


def replace(path: Path, content: bytes) -> None:
    """Write a file anew, as certbot and Kubernetes do: another file takes the place."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(content)
    temporary.chmod(0o600)
    temporary.replace(path)


class Watched:
    """Certificates, looked at once a second by a clock of the test's own."""

    def __init__(self, lab: Lab) -> None:
        self.certificate, self.key = lab.server()
        self.settings = settings((self.certificate, self.key))
        self.certificates = ServerCertificates(self.settings)
        self._lab = lab
        self._now = 0.0

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self._now += 1.0
            self.certificates.watch(self._now, self.settings)

    def serial(self) -> str:
        return Handshake(self.certificates.context(Wire.BINARY), self._lab.trusting()).serial()


def test_files_that_change_are_loaded_once_they_are_complete(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watched = Watched(lab)
    first = watched.serial()
    caplog.clear()
    watched.look(3)
    assert watched.serial() == first
    certificate, key = lab.server("other")
    replace(watched.certificate, certificate.read_bytes())
    watched.look(5)  # with the old key
    assert watched.serial() == first
    (line,) = [one.getMessage() for one in caplog.records]
    assert line == (
        "the TLS files have changed but are not used, the old ones stay: "
        f"--tls-key: {watched.key} is not the key of the certificate {watched.certificate}"
    )
    caplog.clear()
    replace(watched.key, key.read_bytes())
    watched.look()
    assert watched.serial() == first  # perhaps still being written
    watched.look(5)
    assert watched.serial() != first
    assert [one.getMessage().split(" of ")[0] for one in caplog.records] == [
        f"TLS reloaded: certificate {watched.certificate}"
    ]


def test_a_file_that_is_written_in_place_is_noticed(lab: Lab) -> None:
    watched = Watched(lab)
    first = watched.serial()
    certificate, key = lab.server("other")
    watched.certificate.write_bytes(certificate.read_bytes())
    watched.key.write_bytes(key.read_bytes())
    for path in (watched.certificate, watched.key):
        os.utime(path, (1, 1))  # whatever the clock of the file system is
    watched.look(2)
    assert watched.serial() != first


def test_files_that_go_and_come_back(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(lab)
    first, content = watched.serial(), watched.certificate.read_bytes()
    watched.certificate.unlink()
    watched.look(4)
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().endswith(f"{watched.certificate}: No such file or directory")
    replace(watched.certificate, content)
    watched.look(4)
    assert len(caplog.records) == 1
    assert watched.serial() == first


@pytest.mark.parametrize(
    ("names", "identity"),
    [
        ((("DNS", "a.example"), ("URI", "spiffe://x/y"), ("email", "a@b")), "spiffe://x/y"),
        ((("DNS", "a.example"), ("email", "a@b")), "a@b"),
        ((("IP Address", "10.0.0.1"), ("DNS", "a.example"), ("DNS", "b.example")), "a.example"),
        ((("IP Address", "10.0.0.1"),), None),
        ((), None),
    ],
)
def test_who_a_client_is(names: tuple[tuple[str, str], ...], identity: str | None) -> None:
    transport = asyncio.BaseTransport({"peercert": {"subjectAltName": names}})
    assert certificate_identity(transport) == identity


def test_who_a_client_without_a_certificate_is() -> None:
    assert certificate_identity(asyncio.BaseTransport({})) is None
    assert certificate_identity(asyncio.BaseTransport({"peercert": {}})) is None


def no_descriptor(*_: object) -> int:
    raise OSError(24, "Too many open files")


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files of memory are of Linux")
def test_a_reload_without_descriptors(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates = ServerCertificates(settings(lab.server()))
    before = Handshake(certificates.context(Wire.BINARY), lab.trusting()).serial()
    take_over = certificates.prepare_reload(settings(lab.server()))
    with monkeypatch.context() as patched:
        patched.setattr(os, "memfd_create", no_descriptor)
        take_over()  # cannot fail
        with pytest.raises(SettingsError, match="cannot be given to OpenSSL: Too many open files"):
            certificates.prepare_reload(settings(lab.server()))
    assert Handshake(certificates.context(Wire.BINARY), lab.trusting()).serial() != before
