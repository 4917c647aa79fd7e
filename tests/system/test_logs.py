"""The log of a real server: its lines, a reader that stalls, and what a client can write into it."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.server.identity.records import add
from tests.support import bare_client
from tests.support.images import HEIGHT, WIDTH, jpeg
from tests.support.running_server import RunningServer, wait_until
from vipsrv.client import Client
from vipsrv.errors import Cancelled, RequestError, Unauthorized
from vipsrv.options import ResizeOptions
from vipsrv.protocol import HEADER, Kind, pack_message
from vipsrv.server.identity.tokens import new_token
from vipsrv.version import __version__

NO_IMAGE = bare_client.header(4) + b"none"
FAILED_REQUESTS = 200
REFUSED_REQUESTS = 698
HOSTILE = 'a\n{"event":"forged"}\x1b]0;title\x07\u202e'
SHOWN = 'a\\n{"event":"forged"}\\x1b]0;title\\x07\\u202e'


def lines_of(server: RunningServer) -> list[dict[str, Any]]:
    """Stop a server; what it has logged."""
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(bare_client.SECONDS)
    return [json.loads(line) for line in server.log.splitlines()]


def read_reply(sock: socket.socket) -> tuple[int, int]:
    """Read one reply without a body; its request id and status."""
    header = HEADER.unpack(bare_client.read_exactly(sock, HEADER.size))
    bare_client.read_exactly(sock, header[6])
    return header[5], header[4]


def test_a_stalled_log_reader_stops_neither_requests_nor_the_end() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write_end, b"\n")
    os.set_blocking(write_end, True)  # and now each write to it waits for ever
    with subprocess.Popen(
        [sys.executable, "-m", "vipsrv", "serve", "--port", "0", "--workers", "1", "--log-level", "debug"],
        stdout=subprocess.PIPE,
        stderr=write_end,
        text=True,
    ) as process:
        try:
            os.close(write_end)
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(":")[2])
            for _ in range(FAILED_REQUESTS):
                with bare_client.connect(port) as sock:
                    sock.sendall(NO_IMAGE)
                    assert bare_client.read_answer(sock).error["status"] == 415
            with Client("127.0.0.1", port) as client:
                assert client.ping() > 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(bare_client.SECONDS) == 0
        finally:
            process.kill()
            os.close(read_end)


def test_a_client_cannot_fill_the_log(start_server: StartServer) -> None:
    server = start_server("--workers", "1")
    for _ in range(FAILED_REQUESTS):
        with bare_client.connect(server.port) as sock:
            sock.sendall(NO_IMAGE)
            bare_client.read_answer(sock)
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(bare_client.SECONDS)
    lines = [json.loads(line) for line in server.log.splitlines()]
    refusals = [line for line in lines if line["event"] == "request"]
    counts = [line for line in lines if "more lines were left out: 415 unsupported_format" in line["event"]]
    assert counts
    assert len(refusals) + sum(line["left_out"] for line in counts) == FAILED_REQUESTS


def test_a_line_for_each_request(start_server: StartServer) -> None:
    server = start_server("--workers", "1")
    image = jpeg()
    two = [ResizeOptions(width=10, height=10), ResizeOptions(width=20, height=20)]
    with Client("127.0.0.1", server.port) as client:
        client.ping()
        client.resize_all(image, two)
        client.info(image)
        with pytest.raises(RequestError):
            client.resize(b"none", width=10)
    assert bare_client.ask(server.port, image, 10, 10).result
    first, *requests, last = lines_of(server)
    assert (first["event"], first["version"], first["workers"]) == ("started", __version__, 1)
    assert first["listeners"] == [f"127.0.0.1:{server.port}"]
    assert first["limits"]["max_upload"] == 2 << 30
    assert "libvips" in first
    assert "sandbox" in first
    assert last["event"] == "stopping: 0 connections"
    assert [(line["protocol"], line["kind"], line["status"], line["code"]) for line in requests] == [
        ("v2", "resize", 200, "ok"),
        ("v2", "info", 200, "ok"),
        ("v2", "resize", 415, "unsupported_format"),
        ("v1", "resize", 200, "ok"),
    ]
    resized = requests[0]
    assert resized["source"] == {"format": "jpeg", "width": WIDTH, "height": HEIGHT, "bytes": len(image)}
    assert [(one["width"], one["height"]) for one in resized["results"]] == [(10, 10), (20, 20)]
    assert list(resized["ms"]) == ["receive", "queue", "process", "send", "total"]
    assert resized["ratio"] == round(len(image) / sum(one["bytes"] for one in resized["results"]), 3)
    assert {line["worker"] for line in requests} == {resized["worker"]}
    assert requests[2]["error"].startswith("this is not an image")
    assert len({line["connection"] for line in requests}) == 2


def test_requests_that_were_cancelled_or_left_have_a_line(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--max-output-pixels", "1000000000")
    image = jpeg()
    meta = {"width": 30_000, "height": 30_000}
    with bare_client.connect(server.port) as sock:
        sock.sendall(pack_message(Kind.RESIZE, 7, meta, body_size=len(image)) + image)
        server.wait_until_busy()
        sock.sendall(pack_message(Kind.CANCEL, 8, {"request_id": 7}))
        assert {read_reply(sock), read_reply(sock)} == {(7, Cancelled.status), (8, 200)}
        sock.sendall(pack_message(Kind.RESIZE, 9, meta, body_size=len(image)) + image)
        server.wait_until_busy()
    server.wait_for_log('"lost"')
    cancelled, left = (line for line in lines_of(server) if line["event"] == "request")
    assert (cancelled["id"], cancelled["status"], cancelled.get("lost")) == (7, 499, None)
    assert (left["id"], left["status"], left["lost"]) == (9, 499, "the client disconnected")
    assert left["worker"]


def test_a_flood_of_refusals_is_one_line_and_a_count(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--queue", "0", "--max-output-pixels", "1000000000")
    image = jpeg()
    with bare_client.connect(server.port) as slow, bare_client.connect(server.port) as sock:
        slow.sendall(bare_client.header(len(image), 30_000, 30_000) + image)
        server.wait_until_busy()
        for number in range(REFUSED_REQUESTS):
            sock.sendall(pack_message(Kind.RESIZE, number, {"width": 9, "height": 9}, body_size=1) + b"x")
            assert read_reply(sock) == (number, 429)
    lines = lines_of(server)
    (refused,) = (line for line in lines if line.get("status") == 429)
    counts = [line for line in lines if "left_out" in line]
    assert refused["code"] == "busy"
    assert {line["event"].partition(": ")[2] for line in counts} == {"429 busy of 127.0.0.1"}
    assert 1 + sum(line["left_out"] for line in counts) == REFUSED_REQUESTS


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_a_client_writes_stays_in_its_line(start_server: StartServer, form: str) -> None:
    server = start_server("--workers", "1", "--log-format", form)
    metas: list[dict[str, Any]] = [{"request_id": HOSTILE}, {HOSTILE: 1}]
    with bare_client.connect(server.port) as sock:
        for number, meta in enumerate(metas):
            sock.sendall(pack_message(Kind.RESIZE, number, {"width": 9, **meta}, body_size=4) + b"none")
            assert read_reply(sock)[1] >= 400
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(bare_client.SECONDS)
    lines = server.log.splitlines()
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
    if form == "json":
        assert json.loads(lines[1])["request_id"] == SHOWN
        assert json.loads(lines[2])["error"].endswith("is not an option of RESIZE")


def test_connections_and_pings_are_logged_at_debug(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--log-level", "debug")
    with Client("127.0.0.1", server.port) as client:
        client.ping()
    lines = lines_of(server)
    assert [(line["event"], line["level"]) for line in lines[1:-1]] == [
        ("connection opened", "debug"),
        ("request", "debug"),
        ("connection closed", "debug"),
    ]
    assert {line["connection"] for line in lines[1:-1]} == {1}


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_columns_with_colours(no_color: str) -> None:
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "vipsrv", "serve", "--port", "0", "--workers", "1", "--no-config"],
        stdout=subprocess.PIPE,
        stderr=terminal,
        start_new_session=True,
        env={**os.environ, "NO_COLOR": no_color},
    ) as process:
        try:
            os.close(terminal)
            assert process.stdout is not None
            assert process.stdout.readline()
            line = b""
            while b"listeners" not in line:
                line += os.read(controller, 65536)
        finally:
            process.terminate()
            os.close(controller)
    assert (b"\x1b[" in line) == (not no_color)
    assert b"started" in line
    assert not line.startswith(b"{")


def test_a_log_file(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "log"
    server = start_server("--workers", "1", "--log-file", str(path))
    assert bare_client.ask(server.port, jpeg(), 10, 10).result
    wait_until(lambda: '"event":"request"' in path.read_text(), "the line of the request")
    server.stop()
    assert events_of(path) == ["started", "request", "stopping: 0 connections"]


def test_a_log_file_that_cannot_be_opened_is_an_error_of_the_start(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "log"
    command = [sys.executable, "-m", "vipsrv", "serve", "--port", "0", "--log-file", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"vipsrv: log_file: {path} cannot be opened: No such file or directory; name a file in a folder that "
        "the server may write to\n"
    )


def test_a_log_file_that_was_renamed_is_opened_again_on_sighup(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path, old = folder / "log", folder / "log.1"
    with RunningServer("--workers", "1", "--log-file", str(path), new_session=True) as server:
        path.rename(old)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: path.exists() and "were reloaded" in path.read_text(), "the new file")
        assert bare_client.ask(server.port, jpeg(), 10, 10).result
        moved = folder.rename(tmp_path / "moved")  # the file cannot be opened again
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "were not reloaded" in (moved / "log").read_text(), "the refusal")
        assert server.log == ""
        assert server.stop() == 0
    assert events_of(moved / "log.1") == ["started"]
    reloaded, request, refused, stopped = events_of(moved / "log")
    assert (reloaded, request) == ("the settings were reloaded: no value has changed", "request")
    assert refused == (
        f"the settings were not reloaded: log_file: {path} cannot be opened: No such file or directory; name "
        "a file in a folder that the server may write to"
    )
    assert stopped == "stopping: 0 connections"


def events_of(path: Path) -> list[str]:
    """The events of the lines in a log file."""
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


def test_a_line_names_the_identity_and_never_has_the_token(start_server: StartServer, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    token, unknown = add(tokens, "shop"), new_token()
    server = start_server("--workers", "1", "--tokens", str(tokens), "--log-level", "debug")
    with Client(server.host, server.port, token=token.text) as client:
        client.resize(jpeg(), width=10)
    with Client(server.host, server.port, token=unknown.text) as client, pytest.raises(Unauthorized):
        client.resize(jpeg(), width=10)
    lines = lines_of(server)
    requests = [line for line in lines if line["event"] == "request"]
    resized = next(line for line in requests if line["kind"] == "resize")
    assert (resized["status"], resized["identity"]) == (200, "shop")
    assert 401 in {line["status"] for line in requests}
    assert token.secret not in server.log
    assert unknown.secret not in server.log
