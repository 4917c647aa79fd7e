"""``vipsrv cert``: the files that it makes, and what it refuses."""

import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_server import vipsrv
from tests.server.test_tls import Handshake
from vipsrv.address import Wire
from vipsrv.server.settings import ServerSettings
from vipsrv.server.tls import ServerCertificates


def test_an_authority_and_a_server_for_these_hosts(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "tls"
    made = vipsrv("cert", "self-signed", str(folder), "--host", "images.example", "--host", "10.0.0.7")
    assert (made.returncode, made.stderr) == (0, "")
    assert f"vipsrv serve --listen tls://0.0.0.0:65432 --tls-cert {folder}/cert.pem" in made.stdout
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert {name for name, mode in modes.items() if mode == 0o600} == {"ca-key.pem", "key.pem"}
    assert set(modes) == {"ca.pem", "ca-key.pem", "cert.pem", "key.pem"}
    settings = ServerSettings(tls_cert=folder / "cert.pem", tls_key=folder / "key.pem")
    context = ServerCertificates(settings).context(Wire.BINARY)
    trusting = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    for host in ("images.example", "10.0.0.7", "localhost", "127.0.0.1", "::1"):
        assert Handshake(context, trusting, host=host).client.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        Handshake(context, trusting, host="other.example")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    assert vipsrv("cert", "self-signed", str(tmp_path)).returncode == 0
    (tmp_path / "ca.pem").unlink()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    again = vipsrv("cert", "self-signed", str(tmp_path))
    assert again.returncode == 1
    assert again.stderr == f"vipsrv: {tmp_path}/ca-key.pem: exists, and is not overwritten\n"
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_client_certificate(tmp_path: Path) -> None:
    assert vipsrv("cert", "self-signed", str(tmp_path)).returncode == 0
    made = vipsrv("cert", "client", "spiffe://lab/alice", str(tmp_path))
    assert (made.returncode, made.stderr) == (0, "")
    certificate, key = tmp_path / "spiffe_lab_alice.pem", tmp_path / "spiffe_lab_alice-key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    settings = ServerSettings(
        tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem", tls_client_ca=tmp_path / "ca.pem"
    )
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    trusting.load_cert_chain(certificate, key)
    shown = Handshake(ServerCertificates(settings).context(Wire.BINARY), trusting).server.getpeercert()
    assert shown is not None
    assert shown["subjectAltName"] == (("URI", "spiffe://lab/alice"),)


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (
            ["self-signed", "{folder}", "--host", "a b"],
            2,
            "--host: 'a b' is neither a host name nor an IP address",
        ),
        (
            ["client", "a b", "{folder}"],
            1,
            "{folder}/ca.pem: No such file or directory",
        ),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, arguments: list[str], code: int, line: str) -> None:
    ended = vipsrv("cert", *(argument.format(folder=tmp_path) for argument in arguments))
    assert (ended.returncode, ended.stderr) == (code, f"vipsrv: {line.format(folder=tmp_path)}\n")
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        f"sys.argv = ['vipsrv', 'cert', 'self-signed', {str(tmp_path)!r}]\n"
        "from vipsrv.cli.server import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    advice = "pip install 'vipsrv[cert]'"
    assert ended.stderr == f"vipsrv: 'vipsrv cert' needs cryptography, which is not installed: {advice}\n"
