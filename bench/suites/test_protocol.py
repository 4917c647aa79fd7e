"""Suite: the cost of the protocol alone, from bytes to events, without sockets.

These rows have no image and no server, so they give only messages, or 10**6 bytes, a second.
"""

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from vipsrv.protocol import REPLY, V1_REQUEST, Kind, MessageEnded, ReplyReader, RequestReader, pack_message

MESSAGES = 200
BODY = bytes(2_700_000)
READ = 65_536
"""Bytes that one read of a socket returns."""
OPTIONS = {"width": 800, "height": 600}


def _note(benchmark: BenchmarkFixture, *, messages: int, size: int) -> None:
    stats = benchmark.stats
    assert stats is not None, "benchmarks are switched off"
    seconds = stats.stats.median
    benchmark.extra_info.update(
        messages=messages, messages_per_second=messages / seconds, mb_per_second=size / 1e6 / seconds
    )


def _all(reader: RequestReader | ReplyReader, data: bytes, step: int) -> int:
    ended = 0
    view = memoryview(data)
    for start in range(0, len(data), step):
        for event in reader.receive_data(view[start : start + step]):
            ended += isinstance(event, MessageEnded)
    return ended


def test_packing_a_request_is_a_matter_of_microseconds(benchmark: BenchmarkFixture) -> None:
    """A header with its options is packed in a few microseconds."""

    def pack() -> int:
        return sum(
            len(pack_message(Kind.RESIZE, number, OPTIONS, body_size=50_000)) for number in range(MESSAGES)
        )

    size = benchmark(pack)
    _note(benchmark, messages=MESSAGES, size=size)


def test_small_requests_are_parsed_by_the_hundred_thousand(benchmark: BenchmarkFixture) -> None:
    """Requests without a body, one after another in reads of 64 KiB, are parsed at over 10**5 a second."""
    data = b"".join(pack_message(Kind.PING, number) for number in range(1, MESSAGES + 1))
    assert benchmark(lambda: _all(RequestReader(), data, READ)) == MESSAGES
    _note(benchmark, messages=MESSAGES, size=len(data))


def _version_1() -> tuple[RequestReader, bytes]:
    return RequestReader(), V1_REQUEST.pack(len(BODY), 800, 600) + BODY


def _version_2() -> tuple[RequestReader, bytes]:
    return RequestReader(), pack_message(Kind.RESIZE, 1, OPTIONS, body_size=len(BODY)) + BODY


def _reply() -> tuple[ReplyReader, bytes]:
    head = pack_message(Kind.RESIZE | REPLY, 1, OPTIONS, status=200, body_size=len(BODY))
    return ReplyReader(), head + BODY


@pytest.mark.parametrize("make", [_version_1, _version_2, _reply], ids=["version 1", "version 2", "reply"])
def test_a_large_body_passes_at_the_speed_of_its_reads(
    benchmark: BenchmarkFixture, make: Callable[[], tuple[RequestReader | ReplyReader, bytes]]
) -> None:
    """A body of 2.7 MB passes in reads of 64 KiB without being copied: gigabytes a second."""
    data = make()[1]
    assert benchmark(lambda: _all(make()[0], data, READ)) == 1
    _note(benchmark, messages=1, size=len(data))


def test_a_request_in_pieces_costs_little_more(benchmark: BenchmarkFixture) -> None:
    """A request that arrives a few bytes at a time is parsed without reading a byte twice."""
    data = pack_message(Kind.RESIZE, 1, OPTIONS)
    assert benchmark(lambda: _all(RequestReader(), data, 3)) == 1
    _note(benchmark, messages=1, size=len(data))
