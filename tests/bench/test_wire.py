"""The client of the benchmarks against a real server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.wire import Connection, Refused, resize_file_once, resize_once
from tests.support.image_comparison import open_exact
from tests.support.images import garbage, jpeg
from tests.support.running_server import RunningServer
from vipsrv.protocol import Kind


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with RunningServer("--workers", "1", "--log-level", "error") as running:
        yield running


def test_version_1_from_memory_and_from_a_file(server: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg(300, 200))
    result = resize_once(server.port, path.read_bytes(), 60, 40)
    assert open_exact(result).size == (60, 40)
    assert resize_file_once(server.port, path, 60, 40) == result


def test_version_2_one_after_another_and_pipelined(server: RunningServer) -> None:
    image = jpeg(300, 200)
    with Connection(server.port) as connection:
        result = connection.resize(image, 60, 40)
        connection.send(image, 60, 40)
        connection.send(image, 60, 40)
        assert [connection.receive(), connection.receive()] == [result, result]
    assert open_exact(result).size == (60, 40)


def test_any_request_of_version_2(server: RunningServer) -> None:
    with Connection(server.port) as connection:
        reply = connection.request(Kind.INFO, {}, jpeg(300, 200))
        assert connection.request(Kind.PING).status == 200
    assert json.loads(reply.meta)["source"]["width"] == 300


def test_a_refusal_has_a_status_and_a_code(server: RunningServer) -> None:
    with pytest.raises(Refused) as by_version_1:
        resize_once(server.port, garbage())
    with Connection(server.port) as connection, pytest.raises(Refused) as by_version_2:
        connection.resize(garbage())
    for refused in (by_version_1, by_version_2):
        assert (refused.value.status, refused.value.code) == (415, "unsupported_format")


def test_an_idle_connection_is_open_until_the_server_closes_it() -> None:
    with RunningServer("--workers", "1", "--log-level", "error") as running:
        connections = [Connection(running.port) for _ in range(2)]
        for connection in connections:
            connection.request(Kind.PING)
        assert connections[0].is_open
        running.stop()
        assert not connections[1].is_open
        for connection in connections:
            connection.close()
