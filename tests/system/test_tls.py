"""TLS from outside: servers and commands as processes, and what each side says when something is wrong."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.conftest import StartServer
from tests.server.identity.records import add as add_token
from tests.support import bare_client
from tests.support.certificates import EXPIRED, Lab
from tests.support.images import encode, photo
from tests.support.running_server import RunningServer
from vipsrv import AsyncClient, Client, TlsFailed, Version1Client
from vipsrv.address import Address
from vipsrv.cli.server import app

NO_SERVER, REFUSED, USAGE, FILE = 3, 1, 2, 4

UNKNOWN = (
    "no connection to tls://127.0.0.1:{tls}: the server's certificate is of an unknown authority; "
    "if you trust it, name it with --ca (ca=…)"
)
PLAIN = (
    "no connection to tls://127.0.0.1:{plain}: the server does not speak TLS there; "
    "leave out --tls (tls=True)"
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def server(lab: Lab) -> Iterator[RunningServer]:
    """A server with a listener with TLS, and a plain one."""
    certificate, key = lab.server()
    listeners = ("--listen", "tls://127.0.0.1:0", "--listen", "127.0.0.1:0")
    files = ("--tls-cert", str(certificate), "--tls-key", str(key))
    with RunningServer("--workers", "2", *listeners, *files) as running:
        yield running


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "photo.jpg"
    path.write_bytes(encode(photo(), "JPEG"))
    return path


def port_of(server: RunningServer, listener: int = 0) -> int:
    return Address.parse(server.listeners[listener]).port


def vipsrv_client(image: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")}
    return subprocess.run(
        [str(Path(sys.executable).with_name("vipsrv-client")), str(image), "--quiet", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )


def test_a_client_on_the_command_line(server: RunningServer, lab: Lab, image: Path) -> None:
    address = server.listeners[0]
    assert address.startswith("tls://127.0.0.1:")
    ended = vipsrv_client(image, "--host", address, "--ca", str(lab.ca))
    assert (ended.returncode, ended.stderr) == (0, "")
    ended = vipsrv_client(
        image, "--host", "localhost", "--port", str(port_of(server)), "--tls", "--ca", str(lab.ca)
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert image.with_name("processed_photo.jpg").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "line", "logged"),
    [
        (
            ["--host", "tls://127.0.0.1:{tls}"],
            NO_SERVER,
            UNKNOWN,
            "the TLS handshake of 127.0.0.1 failed: the client does not trust the certificate",
        ),
        (
            ["--host", "127.0.0.1", "--port", "{tls}"],
            REFUSED,
            "the server answered 400 bad_request: this address takes TLS only; use --tls (tls=True)",
            "the TLS handshake of 127.0.0.1 failed: the client does not speak TLS",
        ),
        (
            ["--host", "127.0.0.1", "--port", "{tls}", "--protocol", "1"],
            REFUSED,
            "the server answered 400 bad_request: this address takes TLS only; use --tls (tls=True)",
            "the TLS handshake of 127.0.0.1 failed: the client does not speak TLS",
        ),
        (
            ["--host", "tls://127.0.0.1:{plain}", "--ca", "{ca}"],
            NO_SERVER,
            PLAIN,
            '"error":"the client speaks TLS, which this address does not"',
        ),
        (
            ["--host", "tls://127.0.0.1:{tls}", "--ca", "{folder}/missing.pem"],
            FILE,
            "{folder}/missing.pem: No such file or directory",
            None,
        ),
        (
            ["--host", "127.0.0.1", "--port", "{tls}", "--ca", "{ca}"],
            USAGE,
            "ca: needs TLS, by --tls (tls=True) or an address tls://HOST:PORT",
            None,
        ),
        (
            ["--host", "tls://127.0.0.1:{tls}", "--key", "{ca}"],
            USAGE,
            "key: there is no cert that it belongs to",
            None,
        ),
    ],
)
def test_what_is_wrong_is_one_line_on_each_side(
    start_server: StartServer,
    lab: Lab,
    image: Path,
    arguments: list[str],
    code: int,
    line: str,
    logged: str | None,
) -> None:
    certificate, key = lab.server()
    listeners = ("--listen", "tls://127.0.0.1:0", "--listen", "127.0.0.1:0")
    running = start_server(
        "--workers", "1", *listeners, "--tls-cert", str(certificate), "--tls-key", str(key)
    )
    names = {
        "tls": port_of(running),
        "plain": port_of(running, 1),
        "ca": lab.ca,
        "folder": lab.folder,
    }
    ended = vipsrv_client(image, *(argument.format(**names) for argument in arguments))
    assert ended.stderr == f"vipsrv-client: {line.format(**names)}\n"
    assert ended.returncode == code
    if logged is not None:
        running.wait_for_log(logged)
    told = [one for one in running.log.splitlines() if "handshake" in one or "request" in one]
    assert len(told) == (logged is not None)
    assert "Traceback" not in running.log


def test_another_host_and_an_expired_certificate(start_server: StartServer, lab: Lab) -> None:
    other, old = lab.server("other", hosts=("images.example",)), lab.server("old", validity=EXPIRED)
    for pair, wanted in (
        (other, "the server's certificate is not for '127.0.0.1', but for another host"),
        (old, "the server's certificate has expired"),
    ):
        running = start_server(
            *("--workers", "1", "--listen", "tls://127.0.0.1:0"),
            *("--tls-cert", str(pair[0]), "--tls-key", str(pair[1])),
        )
        address = running.listeners[0]
        with (
            Client(address=address, ca=lab.ca) as client,
            pytest.raises(TlsFailed, match=f"^no connection to {address}: {wanted}$"),
        ):
            client.ping()

        async def ping(address: str = address, wanted: str = wanted) -> None:
            async with AsyncClient(address=address, ca=lab.ca) as client:
                with pytest.raises(TlsFailed, match=f"^no connection to {address}: {wanted}$"):
                    await client.ping()

        asyncio.run(ping())
        running.wait_for_log("the TLS handshake of 127.0.0.1 failed: ")
        assert "Traceback" not in running.log


def test_a_client_certificate_is_asked_for(start_server: StartServer, lab: Lab) -> None:
    certificate, key = lab.server()
    running = start_server(
        *("--workers", "1", "--listen", "tls://127.0.0.1:0", "--tls-client-ca", str(lab.ca)),
        *("--tls-cert", str(certificate), "--tls-key", str(key)),
    )
    address = running.listeners[0]
    wanted = f"^the connection to {address} was lost: the server asks for a client certificate; use --cert"
    own = lab.client("alice")

    async def ping(cert: Path | None = None, key: Path | None = None) -> float:
        async with AsyncClient(address=address, ca=lab.ca, cert=cert, key=key) as client:
            return await client.ping()

    with Client(address=address, ca=lab.ca) as client, pytest.raises(TlsFailed, match=wanted):
        client.ping()
    running.wait_for_log("the TLS handshake of 127.0.0.1 failed: the client showed no certificate")
    with pytest.raises(TlsFailed, match=wanted):
        asyncio.run(ping())
    with Client(address=address, ca=lab.ca, cert=own[0], key=own[1]) as client:
        assert client.ping() > 0
    assert asyncio.run(ping(*own)) > 0
    foreign = Lab(lab.folder / "foreign").client("mallory")
    with (
        Client(address=address, ca=lab.ca, cert=foreign[0], key=foreign[1]) as client,
        pytest.raises(TlsFailed, match="the server does not trust the authority of the client's certificate"),
    ):
        client.ping()


def test_a_health_check_trusts_the_certificate_of_its_own_server(
    start_server: StartServer, lab: Lab, tmp_path: Path
) -> None:
    certificate, key = lab.server("far", hosts=("images.example",))
    tokens = tmp_path / "tokens.toml"
    add_token(tokens)
    files = ("--tls-cert", str(certificate), "--tls-key", str(key), "--tokens", str(tokens))
    running = start_server("--listen", "tls://127.0.0.1:0", *files)

    def ping(tls_cert: Path) -> Result:
        environment = {"VIPSRV_LISTEN": running.listeners[0], "VIPSRV_TLS_CERT": str(tls_cert)}
        return CliRunner().invoke(app, ["ping", "--no-config", "--timeout", "30"], env=environment)

    assert ping(certificate).stdout.startswith(f"{running.listeners[0]} answered in ")
    other = ping(Lab(tmp_path / "other").server()[0])
    assert (other.exit_code, other.stderr) == (1, f"vipsrv: {UNKNOWN.format(tls=port_of(running))}\n")
    for path, line in (
        (key, f"tls_cert: {key} has no valid"),
        (tmp_path / "none", f"{tmp_path}/none: No such"),
    ):
        refused = ping(path)
        assert (refused.exit_code, line in refused.stderr) == (2, True)


def test_both_protocols_and_many_threads(server: RunningServer, lab: Lab, image: Path) -> None:
    data = image.read_bytes()
    with Client(address=server.listeners[0], ca=lab.ca) as client:
        sizes: list[tuple[int, int]] = []

        def resize(width: int) -> None:
            result = client.resize(data, width=width, height=20)
            sizes.append((result.width, width))

        threads = [threading.Thread(target=resize, args=(20 + number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(sizes) == 16
        assert all(width == wanted for width, wanted in sizes)
    with Version1Client(address=server.listeners[0], ca=lab.ca) as old:
        assert old.resize(image, width=30, height=20).data.startswith(b"\xff\xd8")


def test_a_large_file_and_a_context_of_the_caller(server: RunningServer, lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(encode(photo(1500, 1200), "BMP") + bytes(8 << 20))  # what follows a BMP is ignored
    with Client("localhost", port_of(server), tls=lab.trusting()) as client:
        assert client.resize(path, width=40, height=30).width == 40

    async def resize() -> int:
        async with AsyncClient("localhost", port_of(server), tls=lab.trusting()) as client:
            return (await client.resize(path, width=40, height=30)).width

    assert asyncio.run(resize()) == 40


def test_a_second_connection_resumes_the_session(server: RunningServer, lab: Lab) -> None:
    with Client(address=server.listeners[0], ca=lab.ca) as client:
        resumed = []
        for _ in range(2):
            client.ping()
            (pool,) = client._caller._pools.values()
            connection = pool._connections[-1]
            resumed.append(connection._socket.resumed)  # type: ignore[union-attr]
            connection.close()
    assert resumed == [False, True]

    async def ping() -> list[bool]:
        resumed = []
        async with AsyncClient(address=server.listeners[0], ca=lab.ca) as client:
            for _ in range(2):
                await client.ping()
                (pool,) = client._caller._pools.values()
                connection = pool._connections[-1]
                resumed.append(bool(connection._transport.get_extra_info("ssl_object").session_reused))
                await connection.close()
        return resumed

    assert asyncio.run(ping()) == [False, True]


def test_a_new_certificate_under_load(start_server: StartServer, lab: Lab, tmp_path: Path) -> None:
    """Eight connections go on, and a new handshake gets the new certificate."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    first, second = lab.server("first"), lab.server("second")
    shutil.copy(first[0], certificate)
    shutil.copy(first[1], key)
    running = start_server(
        *("--workers", "2", "--listen", "tls://127.0.0.1:0"),
        *("--tls-cert", str(certificate), "--tls-key", str(key)),
    )
    stop = threading.Event()
    done: list[int] = []
    data = encode(photo(), "JPEG")

    def load() -> None:
        with Client(address=running.listeners[0], ca=lab.ca) as client:
            count = 0
            while not stop.is_set():
                client.resize(data, width=30, height=20)
                count += 1
            (pool,) = client._caller._pools.values()
            assert len(pool._connections) == 1
            assert pool._connections[0].usable
            done.append(count)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for source, target in ((second[0], certificate), (second[1], key)):
            temporary = target.with_suffix(".new")
            shutil.copy(source, temporary)
            temporary.replace(target)
        running.wait_for_log("TLS reloaded: certificate")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(done) == 8
    assert min(done) > 0
    context = lab.trusting()
    with (
        socket.create_connection(("127.0.0.1", port_of(running))) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connected,
    ):
        shown = connected.getpeercert(binary_form=True)
    assert shown == ssl.PEM_cert_to_DER_cert(second[0].read_text())


def test_a_start_that_fails_is_one_line(lab: Lab) -> None:
    certificate, _ = lab.server()
    key = lab.server("other")[1]
    command = [sys.executable, "-m", "vipsrv", "serve", "--listen", "tls://127.0.0.1:0"]
    ended = subprocess.run(
        [*command, "--tls-cert", str(certificate), "--tls-key", str(key)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == f"vipsrv: --tls-key: {key} is not the key of the certificate {certificate}\n"


def test_openssl_can_connect(server: RunningServer, lab: Lab) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command")
    command = [openssl, "s_client", "-connect", f"127.0.0.1:{port_of(server)}", "-CAfile", str(lab.ca)]
    ended = subprocess.run(
        [*command, "-verify_return_error", "-alpn", "vipsrv/2", "-brief"],
        input=b"",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0
    assert b"TLSv1.3" in ended.stderr
    assert b"Verification: OK" in ended.stderr


def test_an_old_client_s_image_whose_size_begins_like_tls(server: RunningServer, image: Path) -> None:
    """352 MB: the first bytes of such a header are those of a ClientHello, and it is none."""
    size = 0x16030140
    data = image.read_bytes()
    with bare_client.connect(port_of(server, 1)) as sock:
        sock.sendall(bare_client.header(size, 33, 22) + data)
        left, zeros = size - len(data), bytes(1 << 20)
        while left:
            left -= sock.send(zeros[: min(left, len(zeros))])
        answer = bare_client.read_to_end(sock)
    assert answer[4:6] == b"\xff\xd8"
    assert int.from_bytes(answer[:4]) == len(answer) - 4
