"""Uploads that are cut and go on, over bare sockets against real servers."""

import os
import random
import secrets
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.server.identity.records import add
from tests.support import bare_client
from tests.support.certificates import Lab
from tests.support.running_server import RunningServer
from tests.support.wire_client import Reply, WireClient
from vipsrv.protocol import Kind

OPTIONS: dict[str, Any] = {"width": 60, "fit": "inside"}


def ppm(side: int) -> bytes:
    """An image of so many pixels a side that is as large as it says, whatever is in it."""
    return b"P6 %d %d 255\n" % (side, side) + random.Random(side).randbytes(3 * side * side)


SMALL = ppm(800)
"""1.9 MB: in memory."""

LARGE = ppm(1750)
"""9.2 MB: in a file from its first byte on."""

CUT = 700_001
"""Bytes after which the connection is cut: no round number."""

IMAGES = {"memory": SMALL, "file": LARGE}

on_both = pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)


@pytest.fixture
def upload_id() -> str:
    return secrets.token_hex(16)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, lab: Lab) -> Iterator[RunningServer]:
    """One server for all tests that do not disturb it; its second listener speaks TLS."""
    folder = str(tmp_path_factory.mktemp("spool"))
    certificate, key = lab.server()
    with RunningServer(
        *("--workers", "1", "--spool-dir", folder),
        *("--listen", "127.0.0.1:0", "--listen", "tls://127.0.0.1:0"),
        *("--tls-cert", str(certificate), "--tls-key", str(key)),
    ) as running:
        yield running


@pytest.fixture(scope="module")
def expected(server: RunningServer) -> dict[bytes, bytes]:
    """The results of the images when they are sent at once."""
    with WireClient.connect(server.port) as client:
        return {image: client.call(Kind.RESIZE, OPTIONS, image).body for image in IMAGES.values()}


def upload(upload_id: str, size: int, offset: int) -> dict[str, Any]:
    return {**OPTIONS, "upload": {"id": upload_id, "size": size, "offset": offset}}


def send_part(client: WireClient, upload_id: str, image: bytes, offset: int, end: int) -> None:
    """Begin a RESIZE with the rest of an image, and send it up to ``end``."""
    client.call(Kind.PING)  # so that the server has accepted the connection: before, a reset takes all
    client.begin(Kind.RESIZE, upload(upload_id, len(image), offset), len(image) - offset)
    client.sock.sendall(image[offset:end])


def finish(client: WireClient, upload_id: str, image: bytes, offset: int) -> Reply:
    return client.call(Kind.RESIZE, upload(upload_id, len(image), offset), image[offset:])


def cut(port: int, upload_id: str, image: bytes, end: int = CUT) -> None:
    """Send the first bytes of an image, and reset the connection."""
    with WireClient.connect(port) as client:
        send_part(client, upload_id, image, 0, end)
        client.reset()


@on_both
@pytest.mark.parametrize("end", [WireClient.reset, WireClient.close], ids=["reset", "closed"])
def test_an_upload_goes_on_at_the_byte_where_it_was_cut(
    server: RunningServer,
    expected: dict[bytes, bytes],
    upload_id: str,
    image: bytes,
    end: Callable[[WireClient], None],
) -> None:
    offset = 0
    while offset + CUT < len(image):
        with WireClient.connect(server.port) as client:
            assert client.status(upload_id) == {"received": offset, "size": len(image) if offset else None}
            send_part(client, upload_id, image, offset, offset + CUT)
            end(client)
            offset += CUT
    with WireClient.connect(server.port) as client:
        assert client.status(upload_id) == {"received": offset, "size": len(image)}
        reply = finish(client, upload_id, image, offset)
    assert reply.status == 200, reply.meta
    assert reply.body == expected[image]
    assert reply.meta["source"]["size"] == len(image)


@on_both
def test_a_complete_upload_is_used_without_being_sent_again(
    server: RunningServer, expected: dict[bytes, bytes], upload_id: str, image: bytes
) -> None:
    complete = upload(upload_id, len(image), len(image))
    with WireClient.connect(server.port) as client:
        assert finish(client, upload_id, image, 0).body == expected[image]
        assert client.status(upload_id) == {"received": len(image), "size": len(image)}
        assert client.call(Kind.RESIZE, complete).body == expected[image]
        other = client.call(Kind.RESIZE, {**complete, "width": 30})
        assert other.meta["outputs"][0]["width"] == 30
        info = client.call(Kind.INFO, {"upload": complete["upload"]})
        assert info.meta["source"]["size"] == len(image)


def test_what_does_not_match_is_a_conflict_and_removes_nothing(
    server: RunningServer, expected: dict[bytes, bytes], upload_id: str
) -> None:
    size = len(SMALL)
    cut(server.port, upload_id, SMALL)
    with WireClient.connect(server.port) as client:
        for meta, body in [
            (upload(upload_id, size, CUT - 1), SMALL[CUT - 1 :]),
            (upload(upload_id, size, CUT + 1), SMALL[CUT + 1 :]),
            (upload(upload_id, size + 1, CUT), SMALL[CUT:] + b"x"),
            (upload(upload_id, size, CUT), SMALL[CUT + 1 :]),
            (upload(upload_id, size, size), b""),
            (upload("f" * 32, size, CUT), SMALL[CUT:]),
        ]:
            reply = client.call(Kind.RESIZE, meta, body)
            assert (reply.status, reply.meta["code"]) == (409, "upload_conflict"), reply.meta
            assert client.status(upload_id)["received"] == CUT
        assert finish(client, upload_id, SMALL, CUT).body == expected[SMALL]


def test_an_offset_of_zero_begins_anew(
    server: RunningServer, expected: dict[bytes, bytes], upload_id: str
) -> None:
    cut(server.port, upload_id, LARGE)
    with WireClient.connect(server.port) as client:
        client.status(upload_id)
        assert finish(client, upload_id, SMALL, 0).body == expected[SMALL]
        assert finish(client, upload_id, LARGE, 0).body == expected[LARGE]


def test_a_refused_option_removes_nothing(
    server: RunningServer, expected: dict[bytes, bytes], upload_id: str
) -> None:
    cut(server.port, upload_id, SMALL)
    with WireClient.connect(server.port) as client:
        refused = client.call(Kind.RESIZE, {**upload(upload_id, len(SMALL), CUT), "fit": "bent"}, SMALL[CUT:])
        assert refused.status == 400
        assert client.status(upload_id)["received"] == CUT
        assert finish(client, upload_id, SMALL, CUT).body == expected[SMALL]


@on_both
def test_the_connection_that_fills_an_upload_is_ended_for_the_one_that_goes_on(
    server: RunningServer, expected: dict[bytes, bytes], upload_id: str, image: bytes
) -> None:
    with WireClient.connect(server.port) as old, WireClient.connect(server.port) as new:
        send_part(old, upload_id, image, 0, CUT)
        old.wait_until_delivered()
        assert new.status(upload_id)["received"] == CUT
        assert old.receive().status == 409
        assert bare_client.read_to_end(old.sock) == b""
        assert finish(new, upload_id, image, CUT).body == expected[image]


def test_an_upload_that_stalls_is_kept(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--workers", "1", "--receive-timeout", "0.3", "--spool-dir", str(tmp_path))
    for image, upload_id in ((SMALL, "a" * 32), (LARGE, "b" * 32)):
        with WireClient.connect(server.port) as client:
            send_part(client, upload_id, image, 0, CUT)
            assert client.receive().status == 408
        with WireClient.connect(server.port) as client:
            assert client.status(upload_id)["received"] == CUT


def test_uploads_are_found_after_a_restart_and_after_a_kill(
    start_server: StartServer, tmp_path: Path, expected: dict[bytes, bytes]
) -> None:
    folder = ("--workers", "1", "--spool-dir", str(tmp_path), "--drain", "0.1")
    ids = {image: secrets.token_hex(16) for image in IMAGES.values()}
    first = start_server(*folder)
    for image, one in ids.items():
        cut(first.port, one, image)
    with WireClient.connect(first.port) as client:
        send_part(client, "e" * 32, LARGE, 0, CUT)  # and does not end before the server
        client.wait_until_delivered()
        first.stop()
        assert client.receive().status == 503
    second = start_server(*folder)
    with WireClient.connect(second.port) as client:
        assert client.status("e" * 32)["received"] == CUT
        assert {client.status(one)["received"] for one in ids.values()} == {CUT}
        send_part(client, ids[LARGE], LARGE, CUT, 2 * CUT)
        client.wait_until_delivered()
        with WireClient.connect(second.port) as other:  # which makes sure that the server has read it
            assert other.status(ids[LARGE])["received"] == 2 * CUT
            send_part(other, ids[LARGE], LARGE, 2 * CUT, 3 * CUT)
            other.wait_until_delivered()
            second.process.kill()
            second.process.wait()
    third = start_server(*folder)
    with WireClient.connect(third.port) as client:
        received = client.status(ids[LARGE])["received"]
        # What the dead process had in its memory is lost, and no byte that was not written counts.
        assert 2 * CUT <= received <= 3 * CUT
        assert finish(client, ids[LARGE], LARGE, received).body == expected[LARGE]
        assert finish(client, ids[SMALL], SMALL, CUT).body == expected[SMALL]


def test_each_gateway_goes_on_with_the_uploads_of_the_other(
    start_server: StartServer, tmp_path: Path, expected: dict[bytes, bytes]
) -> None:
    server = start_server("--workers", "2", "--gateways", "2", "--spool-dir", str(tmp_path))
    for image in IMAGES.values():
        upload_id, offset, part = secrets.token_hex(16), 0, len(image) // 3
        while offset + part < len(image):
            with WireClient.connect(server.port) as client:
                assert client.status(upload_id)["received"] == offset
                send_part(client, upload_id, image, offset, offset + part)
                client.reset()
                offset += part
        with WireClient.connect(server.port) as client:
            assert client.status(upload_id)["received"] == offset
            assert finish(client, upload_id, image, offset).body == expected[image]
        for _ in range(8):
            with WireClient.connect(server.port) as client:
                assert client.status(upload_id)["received"] == len(image)


def test_a_successor_goes_on_while_the_old_server_drains(
    start_server: StartServer, tmp_path: Path, expected: dict[bytes, bytes]
) -> None:
    common = ("--workers", "1", "--spool-dir", str(tmp_path), "--control", str(tmp_path / "control"))
    first = start_server(*common, "--drain", "600")
    ids = {image: secrets.token_hex(16) for image in IMAGES.values()}
    with WireClient.connect(first.port) as busy:
        send_part(busy, "b" * 32, SMALL, 0, CUT)  # the first server does not end before this
        for image, upload_id in ids.items():
            cut(first.port, upload_id, image)
            with WireClient.connect(first.port) as client:
                assert client.status(upload_id)["received"] == CUT
        second = start_server(*common, "--takeover")
        for image, upload_id in ids.items():
            with WireClient.connect(second.port) as client:
                assert client.status(upload_id)["received"] == CUT
                assert finish(client, upload_id, image, CUT).body == expected[image]
        busy.sock.sendall(SMALL[CUT:])
        assert busy.receive().status == 200
    assert first.process.wait(bare_client.SECONDS) == 0
    with WireClient.connect(second.port) as client:
        assert client.status("b" * 32)["received"] == len(SMALL)


def test_foreign_and_unknown_uploads_look_the_same(
    start_server: StartServer, tmp_path: Path, upload_id: str
) -> None:
    image = LARGE
    tokens = tmp_path / "tokens.toml"
    shop, other = (add(tokens, name).text for name in ("shop", "other"))
    server = start_server("--workers", "1", "--tokens", str(tokens), "--spool-dir", str(tmp_path))
    with WireClient.connect(server.port) as client:
        client.call(Kind.HELLO, {"token": shop})
        send_part(client, upload_id, image, 0, CUT)
        client.reset()
    with WireClient.connect(server.port) as client:
        client.call(Kind.HELLO, {"token": other})
        assert client.status(upload_id) == client.status("0" * 32) == {"received": 0, "size": None}
        foreign, unknown = (
            client.call(Kind.RESIZE, upload(one, len(image), CUT), image[CUT:])
            for one in (upload_id, "0" * 32)
        )
        assert foreign.status == 409
        assert foreign.meta == unknown.meta
        # The same id is another upload to another client.
        assert finish(client, upload_id, SMALL, 0).status == 200
    with WireClient.connect(server.port) as client:
        client.call(Kind.HELLO, {"token": shop})
        assert client.status(upload_id) == {"received": CUT, "size": len(image)}
    # Nobody else can open the files, and neither their names nor the log tell the id.
    folder = tmp_path / f"vipsrv-uploads-{os.geteuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert upload_id not in path.name + path.read_text(errors="replace")[:1000]
    assert upload_id not in server.log


def test_a_client_of_tls_goes_on(
    server: RunningServer, lab: Lab, expected: dict[bytes, bytes], upload_id: str
) -> None:
    context, port = lab.trusting(), int(server.listeners[1].rpartition(":")[2])

    def connect() -> WireClient:
        return WireClient(context.wrap_socket(bare_client.connect(port), server_hostname="127.0.0.1"))

    with connect() as client:
        send_part(client, upload_id, LARGE, 0, CUT)
        client.reset()
    with connect() as client:
        assert client.status(upload_id)["received"] == CUT
        assert finish(client, upload_id, LARGE, CUT).body == expected[LARGE]


def test_a_client_that_vanishes_before_it_is_accepted_does_no_harm(server: RunningServer) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with socket.create_connection((server.host, server.port)) as sock:
            client = WireClient(sock)
            client.begin(Kind.RESIZE, upload("c" * 32, len(SMALL), 0), len(SMALL))
            client.reset()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    with WireClient.connect(server.port) as client:
        assert client.status("c" * 32) == {"received": 0, "size": None}
