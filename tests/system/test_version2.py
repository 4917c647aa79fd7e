"""Version 2 over bare sockets against a real server: what the clients rely on, and what they never do."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.support import bare_client
from tests.support.image_comparison import open_exact
from tests.support.images import jpeg
from tests.support.running_server import RunningServer, worker_pids
from tests.support.wire_client import Reply, WireClient
from vipsrv.protocol import REPLY, Kind, pack_message
from vipsrv.version import __version__

GIANT = {"width": 30_000, "height": 30_000}
"""A result that takes a worker many seconds: for what happens meanwhile."""


class Connection(WireClient):
    """A connection with the requests of these tests."""

    def send(self, kind: int, request_id: int, meta: dict[str, Any] | None = None, body: bytes = b"") -> None:
        self.sock.sendall(pack_message(kind, request_id, meta, body_size=len(body)) + body)

    def resize(self, request_id: int, width: int, height: int, **options: Any) -> None:
        self.send(Kind.RESIZE, request_id, {"width": width, "height": height, **options}, jpeg())


@pytest.fixture
def connection(server: RunningServer) -> Iterator[Connection]:
    with bare_client.connect(server.port) as sock:
        yield Connection(sock)


@pytest.fixture
def patient(start_server: StartServer) -> Iterator[tuple[RunningServer, Connection]]:
    """A server with one worker that may be kept busy for long, and a connection to it."""
    server = start_server("--workers", "1", "--max-output-pixels", "1000000000")
    with bare_client.connect(server.port) as sock:
        yield server, Connection(sock)


def test_a_pipelining_client_does_not_starve_another(patient: tuple[RunningServer, Connection]) -> None:
    """Decided by counts: first in, first out would answer all 32 before the other client."""
    server, greedy = patient
    for number in range(32):
        greedy.resize(number, 2000, 2000, format="png")
    greedy.receive()  # by now all of them are in the queue
    answered = 1
    with socket.create_connection((server.host, server.port), 60, source_address=("127.0.0.2", 0)) as sock:
        assert Connection(sock).call(Kind.RESIZE, {"width": 9, "height": 9}, jpeg()).status == 200
    greedy.sock.settimeout(0)
    try:
        while True:
            greedy.receive()
            answered += 1
    except BlockingIOError:
        pass  # no more replies have arrived
    assert answered < 16


def test_one_address_may_not_fill_the_queue(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--queue-per-client", "2", "--max-output-pixels", "1000000000")
    with bare_client.connect(server.port) as sock:
        greedy = Connection(sock)
        greedy.resize(0, **GIANT)
        for number in range(1, 6):
            greedy.resize(number, 9, 9)
        refused = [greedy.receive() for _ in range(2)]
    assert [reply.status for reply in refused] == [429, 429]
    assert "--queue-per-client" in refused[0].meta["message"]
    assert refused[0].meta["retry_after_ms"] > 0


def test_ping(connection: Connection) -> None:
    assert connection.call(Kind.PING) == Reply(Kind.PING | REPLY, 200, 7, {})


def test_hello_describes_the_server(connection: Connection) -> None:
    meta = connection.call(Kind.HELLO, {"client": "test"}).meta
    assert meta["server"] == f"vipsrv/{__version__}"
    assert {"jpeg", "png", "webp", "tiff", "gif", "avif"} <= set(meta["formats"]["in"])
    assert {"jpeg", "png", "webp", "avif", "tiff", "gif"} <= set(meta["formats"]["out"])
    assert set(meta["libraries"]) == set(meta["formats"]["in"])
    assert meta["libraries"]["jpeg"].startswith("libvips")
    assert meta["fits"] == ["fill", "contain", "cover", "inside", "outside"]
    assert meta["limits"]["max_upload"] == 2 * 1024**3


def test_resize_reports_what_was_done(connection: Connection) -> None:
    image = jpeg(400, 300)
    reply = connection.call(Kind.RESIZE, {"width": 120, "height": 90, "quality": 70}, image)
    assert open_exact(reply.body).size == (120, 90)
    assert reply.meta["source"] == {
        "format": "jpeg",
        "width": 400,
        "height": 300,
        "pages": 1,
        "has_alpha": False,
        "orientation": 1,
        "size": len(image),
    }
    assert reply.meta["outputs"] == [
        {"width": 120, "height": 90, "format": "jpeg", "quality": 70, "size": len(reply.body)}
    ]
    assert reply.meta["ratio"] == pytest.approx(len(image) / len(reply.body), abs=0.001)
    ms = reply.meta["ms"]
    assert ms["process"] > 0
    assert ms["total"] >= ms["receive"] + ms["queue"] + ms["process"]


def test_several_results_of_one_upload(connection: Connection) -> None:
    sizes = [(120, 90), (30, 20), (60, 45)]
    outputs = [{"width": width, "height": height, "format": "png"} for width, height in sizes]
    reply = connection.call(Kind.RESIZE, {"outputs": outputs}, jpeg(400, 300))
    assert [(one["width"], one["height"]) for one in reply.meta["outputs"]] == sizes
    rest = reply.body
    for one in reply.meta["outputs"]:
        data, rest = rest[: one["size"]], rest[one["size"] :]
        assert open_exact(data).size == (one["width"], one["height"])
    assert rest == b""


def test_options_that_exclude_each_other_are_refused_by_name(connection: Connection) -> None:
    reply = connection.call(Kind.RESIZE, {"width": 9, "height": 9, "lossless": True}, jpeg())
    assert reply.status == 400
    assert reply.meta["message"].startswith("lossless")


def test_info_reads_the_header(connection: Connection) -> None:
    reply = connection.call(Kind.INFO, None, jpeg(400, 300))
    assert (reply.meta["source"]["width"], reply.meta["source"]["height"]) == (400, 300)
    assert reply.body == b""


@pytest.mark.parametrize(
    ("kind", "meta", "body", "said"),
    [
        (Kind.HELLO, {"token": "secret"}, b"", "token"),
        (Kind.UPLOAD_STATUS, {}, b"", "id"),
        (Kind.UPLOAD_STATUS, {"id": "G" * 32}, b"", "id"),
        (Kind.CANCEL, {}, b"", "request_id"),
        (Kind.PING, {}, b"x", "no body"),
        (Kind.INFO, {}, b"", "no image"),
        (Kind.RESIZE, {"width": 9, "height": 9}, b"", "no image"),
        (Kind.RESIZE, {"width": 9}, b"x", "height"),
        (Kind.RESIZE, {"width": 9, "height": 9, "fit": "bent"}, b"x", "fit"),
        (Kind.RESIZE, {"width": 9, "height": 9, "colour": 9}, b"x", "colour"),
        (Kind.RESIZE, {"outputs": [{"width": 9, "height": 9}] * 17}, b"x", "outputs"),
        (Kind.RESIZE, {"width": True, "height": 9}, b"x", "width"),
        (Kind.RESIZE, {"width": 9, "height": 9, "upload": {"id": "0" * 32}}, b"x", "upload"),
        (Kind.INFO, {"upload": {"id": "0" * 31, "size": 1, "offset": 0}}, b"x", "upload"),
        (99, {}, b"x", "99"),
    ],
)
def test_an_invalid_request_is_refused_and_the_connection_stays_open(
    connection: Connection, kind: int, meta: dict[str, Any], body: bytes, said: str
) -> None:
    reply = connection.call(kind, meta, body)
    assert (reply.status, reply.meta["code"]) == (400, "bad_request")
    assert said in reply.meta["message"]
    assert connection.call(Kind.PING).status == 200


def test_an_invalid_header_ends_the_connection_with_a_reason(connection: Connection) -> None:
    connection.call(Kind.PING)
    connection.sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.receive().status == 400
    assert connection.sock.recv(1) == b""


def test_an_image_over_the_limit_ends_the_connection_after_what_is_in_flight(
    connection: Connection,
) -> None:
    connection.resize(1, 50, 50)
    connection.sock.sendall(pack_message(Kind.RESIZE, 2, {"width": 9, "height": 9}, body_size=2**40))
    replies = {reply.id: reply for reply in (connection.receive(), connection.receive())}
    assert open_exact(replies[1].body).size == (50, 50)
    assert replies[2].status == 413
    assert connection.sock.recv(1) == b""


def test_requests_are_answered_in_the_order_of_completion(patient: tuple[RunningServer, Connection]) -> None:
    _, connection = patient
    connection.send(Kind.RESIZE, 1, {"width": 5000, "height": 5000}, jpeg())
    connection.send(Kind.PING, 2)
    assert [connection.receive().id, connection.receive().id] == [2, 1]


def test_many_requests_in_one_write(connection: Connection) -> None:
    image = jpeg(100, 80)
    count = 100  # three times as many as may be in flight
    messages = [
        pack_message(Kind.RESIZE, number, {"width": 10 + number, "height": 20}, body_size=len(image)) + image
        for number in range(count)
    ]
    connection.sock.sendall(b"".join(messages))
    replies = [connection.receive() for _ in range(count)]
    assert {reply.id for reply in replies} == set(range(count))
    for reply in replies:
        assert open_exact(reply.body).size == (10 + reply.id, 20)


def test_beyond_32_in_flight_the_server_stops_reading(patient: tuple[RunningServer, Connection]) -> None:
    _, connection = patient
    connection.resize(1000, 3000, 3000)
    for number in range(31):
        connection.resize(number, 10, 10)
    connection.send(Kind.PING, 5000)
    # A PING that is read is answered at once. This one is not, before the one worker has done the first.
    assert connection.receive().id == 1000
    assert 5000 in {connection.receive().id for _ in range(32)}


def test_an_id_that_is_in_flight_is_refused(patient: tuple[RunningServer, Connection]) -> None:
    _, connection = patient
    connection.send(Kind.RESIZE, 1, GIANT, jpeg())
    connection.resize(1, 10, 10)
    reply = connection.receive()
    assert (reply.id, reply.status) == (1, 400)


def test_cancel_stops_a_job_that_runs(patient: tuple[RunningServer, Connection]) -> None:
    server, connection = patient
    before = worker_pids(server.pid)
    connection.send(Kind.RESIZE, 1, GIANT, jpeg())
    server.wait_until_busy()
    connection.send(Kind.CANCEL, 2, {"request_id": 1})
    cancelled, cancel = connection.receive(), connection.receive()
    assert (cancelled.id, cancelled.status, cancelled.meta["code"]) == (1, 499, "cancelled")
    assert (cancel.id, cancel.meta) == (2, {"cancelled": True})
    connection.resize(3, 10, 10)
    assert connection.receive().status == 200
    assert worker_pids(server.pid) == before, "the worker should have stopped without being killed"


def test_cancel_removes_a_job_that_waits(patient: tuple[RunningServer, Connection]) -> None:
    _, connection = patient
    connection.send(Kind.RESIZE, 1, GIANT, jpeg())
    connection.resize(2, 10, 10)
    connection.send(Kind.CANCEL, 3, {"request_id": 2})
    assert [(reply.id, reply.status) for reply in (connection.receive(), connection.receive())] == [
        (2, 499),
        (3, 200),
    ]


def test_cancel_of_what_is_not_in_flight(connection: Connection) -> None:
    assert connection.call(Kind.CANCEL, {"request_id": 12345}).meta == {"cancelled": False}


def test_a_deadline_of_the_client(patient: tuple[RunningServer, Connection]) -> None:
    _, connection = patient
    large = {"width": 9000, "height": 9000, "deadline_ms": 100}  # not hopeless, and not done by then
    assert connection.call(Kind.RESIZE, large, jpeg()).status == 504


def test_a_deadline_that_cannot_be_met_is_refused_immediately(
    patient: tuple[RunningServer, Connection],
) -> None:
    _, connection = patient
    reply = connection.call(Kind.RESIZE, {**GIANT, "deadline_ms": 200}, jpeg())
    assert reply.status == 413
    assert "deadline" in reply.meta["message"]


def test_a_client_that_ends_its_stream_has_its_work_cancelled(
    patient: tuple[RunningServer, Connection],
) -> None:
    server, connection = patient
    connection.send(Kind.RESIZE, 1, GIANT, jpeg())
    server.wait_until_busy()
    connection.sock.shutdown(socket.SHUT_WR)
    assert connection.sock.recv(1) == b""
    assert bare_client.ask(server.port, jpeg(), 10, 10).size > 0
