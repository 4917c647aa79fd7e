"""Why a running job should stop."""

import socket
import time
from collections.abc import Iterator

import pytest

from vipsrv.errors import Cancelled, DeadlineExceeded, RequestError
from vipsrv.workers.channel import JobHead, Operation
from vipsrv.workers.child.watch import JobWatch

CANCEL = JobHead(operation=Operation.CANCEL, job_id=8).pack()


class Clock:
    """Plays ``time.monotonic``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The gateway's end and the worker's."""
    gateway, worker = socket.socketpair()
    with gateway, worker:
        yield gateway, worker


def watch(worker: socket.socket, *, deadline_ms: int = 0) -> JobWatch:
    return JobWatch(worker, JobHead(operation=Operation.RESIZE, job_id=8, deadline_ms=deadline_ms))


def test_nothing_stops_a_job_without_a_reason(
    pair: tuple[socket.socket, socket.socket], clock: Clock
) -> None:
    one = watch(pair[1])
    clock.now += 10**6
    assert one() is None


def test_the_deadline(pair: tuple[socket.socket, socket.socket], clock: Clock) -> None:
    one = watch(pair[1], deadline_ms=1500)
    clock.now += 1.499
    assert one() is None
    clock.now += 0.001
    reason = one()
    assert isinstance(reason, DeadlineExceeded)
    assert one() is reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (CANCEL, Cancelled("the request was cancelled")),
        (CANCEL[:-1], None),
        (JobHead(operation=Operation.CANCEL, job_id=7).pack(), None),
        (JobHead(operation=Operation.RESIZE, job_id=8).pack(), None),
        (b"x" * 100, Cancelled("the channel to the gateway is broken")),
    ],
    ids=["cancelled", "half a message", "another job is cancelled", "a job", "garbage"],
)
def test_a_message_of_the_gateway(
    pair: tuple[socket.socket, socket.socket], clock: Clock, data: bytes, reason: RequestError | None
) -> None:
    gateway, worker = pair
    one = watch(worker)
    gateway.sendall(data)
    assert one() is None  # the socket is not looked at on every call
    clock.now += 0.02
    found = one()
    assert (type(found), str(found)) == (type(reason), str(reason))
    assert worker.recv(200) == data  # left for the loop


def test_the_end_of_the_gateway(pair: tuple[socket.socket, socket.socket], clock: Clock) -> None:
    gateway, worker = pair
    one = watch(worker)
    gateway.close()
    clock.now += 0.02
    assert str(one()) == "the gateway has closed the channel"
