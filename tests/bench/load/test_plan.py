from collections import Counter
from itertools import islice
from pathlib import Path

from bench.load.plan import Plan, Requests, Source, choices
from vipsrv.protocol import BodyReceived, MessageStarted, RequestReader


def sources(tmp_path: Path, *weights: float) -> tuple[Source, ...]:
    made = []
    for number, weight in enumerate(weights):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(bytes([number]) * (number + 5))
        made.append(Source(path.name, path, number + 5, weight))
    return tuple(made)


def test_a_mix_is_drawn_by_weight_and_the_same_every_time(tmp_path: Path) -> None:
    mix = sources(tmp_path, 3, 1)
    drawn = list(islice(choices(mix, seed=1), 4000))
    assert drawn == list(islice(choices(mix, seed=1), 4000))
    assert drawn != list(islice(choices(mix, seed=2), 4000))
    assert 2800 < Counter(drawn)[0] < 3200


def test_the_server_can_read_requests_of_versions_1_and_2(tmp_path: Path) -> None:
    mix = sources(tmp_path, 1, 1)
    for protocol, ids in ((1, [0]), (2, [1, 2, 3])):
        plan = Plan(
            host="",
            port=0,
            sources=mix,
            protocol=protocol,
            pipeline=len(ids),
            width=40,
            height=30,
            count=1,
        )
        requests = Requests(plan)
        for lane, request_id in enumerate(ids):
            head, body = requests.parts(1, lane)
            started, received, _ = RequestReader().receive_data(head + bytes(body))
            assert isinstance(started, MessageStarted)
            assert isinstance(received, BodyReceived)
            assert (started.version, started.request_id) == (protocol, request_id)
            assert started.meta == {"width": 40, "height": 30}
            assert bytes(received.data) == b"\x01" * 6
