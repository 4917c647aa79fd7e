"""The generator in this process, against a real server and a scripted one."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.load.connection import ServerGone
from bench.load.generator import Generator, Tally
from bench.load.histogram import Latencies
from bench.load.plan import Plan, Source
from bench.load.schedule import Schedule
from tests.client.fake_server import LARGE, FakeServer, Peer, silent
from tests.support.images import garbage, jpeg
from tests.support.running_server import RunningServer
from vipsrv.errors import Busy
from vipsrv.protocol import V1_REPLY

Script = Callable[[Peer], None]
RESULT = b"\xff\xd8 and so on"


def source(folder: Path, data: bytes, weight: float = 1.0) -> Source:
    path = folder / f"{len(list(folder.iterdir()))}.jpg"
    path.write_bytes(data)
    return Source(path.name, path, len(data), weight)


def generated(plan: Plan, *, late_by: float = 0.0) -> Tally:
    generator = Generator(plan, plan.connections)
    start = time.monotonic() - late_by
    try:
        return generator.run(
            Schedule(start=start, measure_from=start, count=plan.count, rate=plan.rate), start, None
        )
    finally:
        generator.close()


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    def make(port: int, **changes: Any) -> Plan:
        usual: dict[str, Any] = {"sources": (source(tmp_path, b"image"),), "connections": 1, "count": 1}
        return Plan(host="127.0.0.1", port=port, **(usual | changes))

    return make


MakePlan = Callable[..., Plan]


@pytest.mark.parametrize(
    "load",
    [
        {"protocol": 1, "connections": 3},
        {"protocol": 2, "connections": 2, "pipeline": 3},
        {"protocol": 2, "connections": 1, "rate": 200.0},
    ],
)
def test_results_and_errors_of_a_real_server_are_counted(
    server: RunningServer, tmp_path: Path, planned: MakePlan, load: dict[str, Any]
) -> None:
    good, bad = source(tmp_path, jpeg(320, 240)), source(tmp_path, garbage(3000))
    plan = planned(server.port, sources=(good, bad), count=24, width=40, height=30, **load)
    tally = generated(plan)
    first, second = tally.images
    assert first.answered + second.failed == 24
    assert first.answered > 4
    assert second.failed > 4
    assert first.failed == second.answered == 0
    assert dict(tally.errors) == {"unsupported_format": second.failed}
    assert tally.replies_in_time == 24
    assert tally.results_in_time == first.answered
    assert tally.sent_bytes_in_time == first.answered * good.size
    assert tally.received_bytes_in_time == first.result_bytes > 100 * first.answered
    assert len(Latencies().add(tally.latency)) == first.answered


def test_a_request_larger_than_the_sockets_hold_arrives_whole(planned: MakePlan, tmp_path: Path) -> None:
    received: list[int] = []

    def script(peer: Peer) -> None:
        head, body = peer.read_request()
        received.append(len(body))
        peer.reply(head, body=RESULT)

    with FakeServer(script) as fake:
        plan = planned(fake.port, protocol=2, sources=(source(tmp_path, bytes(LARGE)),))
        assert generated(plan).images[0].answered == 1
    assert received == [LARGE]


def test_replies_out_of_order_belong_to_their_requests(planned: MakePlan, tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        first, _ = peer.read_request()
        second, _ = peer.read_request()
        peer.refuse(second, Busy("later"))
        peer.reply(first, body=RESULT)

    with FakeServer(script) as fake:
        mix = (source(tmp_path, b"one"), source(tmp_path, b"two"))
        tally = generated(planned(fake.port, protocol=2, pipeline=2, count=2, sources=mix, seed=3))
    assert dict(tally.errors) == {"busy": 1}
    assert [image.answered for image in tally.images] == [1, 0]
    assert [image.failed for image in tally.images] == [0, 1]


def _closes(peer: Peer) -> None:
    peer.read_request()
    peer.socket.sendall(V1_REPLY.pack(60) + bytes(10))


def _sends_no_jpeg(peer: Peer) -> None:
    peer.read_request()
    peer.reply_v1(b"no image")


def _refuses(peer: Peer) -> None:
    head, _ = peer.read_request()
    peer.refuse(head, Busy("later"))


def _sends_garbage(peer: Peer) -> None:
    peer.read_request()
    peer.socket.sendall(bytes(4) + b"NIPS" + bytes(20))


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (_closes, "connection_lost"),
        (_sends_no_jpeg, "not_a_jpeg"),
        (_refuses, "busy"),
        (_sends_garbage, "protocol"),
    ],
)
def test_a_result_that_is_not_a_jpeg_is_an_error(planned: MakePlan, script: Script, code: str) -> None:
    with FakeServer(script, script) as fake:
        tally = generated(planned(fake.port, count=2))
    assert dict(tally.errors) == {code: 2}
    assert tally.images[0].failed == 2
    assert tally.results_in_time == 0
    assert len(Latencies().add(tally.latency)) == 0


def test_a_lost_connection_loses_its_requests_and_is_replaced(planned: MakePlan) -> None:
    def dies(peer: Peer) -> None:
        peer.read_request()
        peer.read_request()

    def serves(peer: Peer) -> None:
        for _ in range(2):
            head, _ = peer.read_request()
            peer.reply(head, body=RESULT)

    with FakeServer(dies, serves) as fake:
        tally = generated(planned(fake.port, protocol=2, pipeline=2, count=4))
    assert dict(tally.errors) == {"connection_lost": 2}
    assert tally.images[0].answered == 2


def test_a_server_that_never_answers_times_out(planned: MakePlan) -> None:
    with FakeServer(silent) as fake:
        tally = generated(planned(fake.port, protocol=2, pipeline=3, count=3, timeout=0.2))
    assert dict(tally.errors) == {"no_reply": 3}


def test_an_open_loop_counts_from_when_a_request_was_due(planned: MakePlan) -> None:
    def script(peer: Peer) -> None:
        for _ in range(4):
            head, _ = peer.read_request()
            peer.reply(head, body=RESULT)

    with FakeServer(script) as fake:
        # As if nothing could be sent for the first 1,000 seconds.
        tally = generated(planned(fake.port, protocol=2, count=4, rate=1000.0), late_by=1000.0)
    latency, service = Latencies().add(tally.latency), Latencies().add(tally.service)
    assert len(latency) == len(service) == 4
    assert latency.percentile(0) > 990_000
    assert service.percentile(100) < 900_000


def test_a_closed_loop_can_correct_for_coordinated_omission(planned: MakePlan) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        time.sleep(0.05)  # the wait is what is measured
        peer.reply(head, body=RESULT)

    with FakeServer(script) as fake:
        tally = generated(planned(fake.port, protocol=2, expected_interval=0.01))
    assert len(Latencies().add(tally.latency)) >= 5
    assert len(Latencies().add(tally.service)) == 1


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_refused_connection_is_an_error(planned: MakePlan, protocol: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ServerGone, match=r"(?i)refused"):
        generated(planned(port, protocol=protocol))
