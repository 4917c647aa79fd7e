"""A server with tokens and TLS, set up and used by commands: each fault is one line on each side."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.server.identity.records import add
from tests.support.certificates import EXPIRED, Lab
from tests.support.images import jpeg
from vipsrv.address import Address
from vipsrv.cli.exit_codes import ExitCode
from vipsrv.server.identity.tokens import new_token

ANOTHER = "but for another host"
HOST, OTHER_HOST = "127.0.0.2", "127.0.0.3"
REFUSED = "the server answered 401 unauthorized: "
ADVICE = "; name the file of a valid token with --token-file, or in VIPSRV_TOKEN_FILE"


def command(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an installed command, without the settings of the user who runs the tests."""
    return subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@dataclass
class Site:
    """The files of a server and of a client, as the commands make them."""

    folder: Path
    token: str

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens.toml"

    @property
    def token_file(self) -> Path:
        return self.folder / "shop.token"

    @property
    def ca(self) -> Path:
        return self.folder / "tls" / "ca.pem"

    def pair(self) -> tuple[Path, Path]:
        """The certificate of the server, and its key."""
        return self.folder / "tls" / "cert.pem", self.folder / "tls" / "key.pem"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    certificates = command("vipsrv", "cert", "self-signed", str(folder / "tls"), "--host", HOST)
    assert certificates.returncode == 0, certificates.stderr
    token = command("vipsrv", "token", "new", "shop", "--tokens", str(folder / "tokens.toml"))
    assert token.returncode == 0, token.stderr
    (folder / "shop.token").write_text(token.stdout)
    (folder / "photo.jpg").write_bytes(jpeg())
    return Site(folder, token.stdout.strip())


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    """A copy that the test may change."""
    shutil.copytree(made.folder, tmp_path / "site")
    return Site(tmp_path / "site", made.token)


Change = Callable[[Site], None]


def nothing(_site: Site) -> None:
    """Leave all as it should be."""


def wrong_token(site: Site) -> None:
    site.token_file.write_text(f"{site.token[:-43]}{new_token().secret}\n")


def no_token(site: Site) -> None:
    site.token_file.unlink()


def expired_token(site: Site) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    site.token_file.write_text(f"{add(site.tokens, 'old', expires=now - timedelta(days=1)).text}\n")


def revoked_token(site: Site) -> None:
    assert command("vipsrv", "token", "revoke", "shop", "--tokens", str(site.tokens)).returncode == 0


def expired_certificate(site: Site) -> None:
    """Replace the certificate by one of another authority, which the client is told to trust."""
    lab = Lab(site.folder / "lab")
    for made, used in zip(lab.server(hosts=(HOST,), validity=EXPIRED), site.pair(), strict=True):
        shutil.copy(made, used)
    shutil.copy(lab.ca, site.ca)


def foreign_certificate(site: Site) -> None:
    """Replace the certificate by one of an authority that the client does not know."""
    for made, used in zip(Lab(site.folder / "lab").server(hosts=(HOST,)), site.pair(), strict=True):
        shutil.copy(made, used)


def no_authority(site: Site) -> None:
    site.ca.unlink()


LOG_OF_HANDSHAKE = "the TLS handshake of 127.0.0.1 failed: the client "
UNKNOWN = "the server's certificate is of an unknown authority; if you trust it, name it with --ca (ca=…)"


@pytest.mark.parametrize(
    ("change", "host", "code", "said", "logged"),
    [
        (
            wrong_token,
            HOST,
            ExitCode.REFUSED,
            f"{REFUSED}the server refused the token: the token is unknown or wrong{ADVICE}",
            "the token is unknown or wrong",
        ),
        (
            no_token,
            HOST,
            ExitCode.REFUSED,
            f"{REFUSED}this server requires a token: send HELLO with one first{ADVICE}",
            "this server requires a token: send HELLO with one first",
        ),
        (
            expired_token,
            HOST,
            ExitCode.REFUSED,
            f"{REFUSED}the server refused the token: the token of old expired on <time>{ADVICE}",
            "the token of old expired on <time>",
        ),
        (
            revoked_token,
            HOST,
            ExitCode.REFUSED,
            f"{REFUSED}the server refused the token: the token of shop was revoked on <time>{ADVICE}",
            "the token of shop was revoked on <time>",
        ),
        (
            expired_certificate,
            HOST,
            ExitCode.NO_SERVER,
            "no connection to <address>: the server's certificate has expired",
            f"{LOG_OF_HANDSHAKE}refuses the certificate: it has expired",
        ),
        (
            foreign_certificate,
            HOST,
            ExitCode.NO_SERVER,
            f"no connection to <address>: {UNKNOWN}",
            f"{LOG_OF_HANDSHAKE}does not trust the certificate",
        ),
        (
            nothing,
            OTHER_HOST,
            ExitCode.NO_SERVER,
            f"no connection to <address>: the server's certificate is not for '{OTHER_HOST}', {ANOTHER}",
            f"{LOG_OF_HANDSHAKE}refuses the certificate; is it for this host name?",
        ),
        (
            no_authority,
            HOST,
            ExitCode.NO_SERVER,
            f"no connection to <address>: {UNKNOWN}",
            f"{LOG_OF_HANDSHAKE}does not trust the certificate",
        ),
    ],
)
def test_a_fault_is_one_line_at_the_client_and_one_in_the_log(
    start_server: StartServer,
    site: Site,
    change: Change,
    host: str,
    code: ExitCode,
    said: str,
    logged: str,
) -> None:
    change(site)
    certificate, key = site.pair()
    server = start_server(
        *("--workers", "1", "--tokens", str(site.tokens), "--log-format", "json"),
        *("--listen", f"tls://{host}:0", "--tls-cert", str(certificate), "--tls-key", str(key)),
    )
    server.wait_for_log("started")
    before = len(server.log.splitlines())
    address = server.listeners[0]
    assert Address.parse(address).host == host
    options = ["--ca", str(site.ca)] if site.ca.exists() else []
    options += ["--token-file", str(site.token_file)] if site.token_file.exists() else []
    photo = site.folder / "photo.jpg"
    ended = command("vipsrv-client", str(photo), "--width", "80", "--host", address, *options)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert without_time(ended.stderr).replace(address, "<address>") == f"vipsrv-client: {said}\n"
    server.process.terminate()
    server.process.wait(60)
    lines = [json.loads(line) for line in server.log.splitlines()[before:]]
    told = [line for line in lines if "stop" not in line["event"] and "drain" not in line["event"]]
    assert [without_time(line.get("error", line["event"])) for line in told] == [logged]
    for secret in (site.token, site.token[-43:]):
        assert secret not in server.log + ended.stderr


def test_without_a_fault_there_is_a_result(start_server: StartServer, site: Site) -> None:
    certificate, key = site.pair()
    server = start_server(
        *("--workers", "1", "--tokens", str(site.tokens)),
        *("--listen", f"tls://{HOST}:0", "--tls-cert", str(certificate), "--tls-key", str(key)),
    )
    ended = command(
        *("vipsrv-client", str(site.folder / "photo.jpg"), "--width", "80", "--host", server.listeners[0]),
        *("--ca", str(site.ca), "--token-file", str(site.token_file)),
    )
    assert ended.returncode == 0, ended.stderr
    assert (site.folder / "processed_photo.jpg").is_file()
    assert site.token[-43:] not in server.log + ended.stdout + ended.stderr


def without_time(text: str) -> str:
    """``text`` with the day and time replaced."""
    before, on, after = text.partition(" on 20")
    return text if not on else f"{before} on <time>{after[len('26-11-27 09:00 UTC') :]}"
