"""The life of a request, driven by the test as a connection would, but without any socket."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.server.fakes import MANY, Disk, FakeWorkers, content, fail, fill, make_context, succeed
from tests.server.identity.records import add
from vipsrv.errors import (
    BadRequest,
    Busy,
    Cancelled,
    CorruptImage,
    DeadlineExceeded,
    Draining,
    RequestError,
    TooLarge,
    Unauthorized,
    UnsupportedFormat,
)
from vipsrv.options import ImageInfo, ResizeReport
from vipsrv.server.access import Access, Session
from vipsrv.server.context import InFlight, ServerContext
from vipsrv.server.exchange import TRANSITIONS, Exchange, ExchangeState
from vipsrv.server.identity import Identities
from vipsrv.server.identity.token_file import revoke_tokens
from vipsrv.server.report import report_json
from vipsrv.server.settings import ServerSettings
from vipsrv.workers.channel import Digest, Operation
from vipsrv.workers.job import Outcome

SIZE = 1000
META: dict[str, object] = {"width": 9, "height": 9}


class FakeConnection:
    """Carries one exchange: what it does to it is all that a connection of any protocol has to do."""

    def __init__(
        self,
        context: ServerContext,
        operation: Operation = Operation.RESIZE,
        *,
        session: Session | None = None,
    ) -> None:
        flow = context.accounts.open_flow("test")
        self.exchange = Exchange(context, operation, flow, self._finished, session)
        self.finished: list[Outcome] = []

    def send(self, data: bytes, meta: dict[str, object] = META) -> None:
        """A header and all of the body."""
        self.exchange.accept(meta, len(data))
        assert self.exchange.slot is not None
        fill(self.exchange.slot, data)
        self.exchange.body_ended()

    @property
    def error(self) -> RequestError | None:
        (outcome,) = self.finished
        return outcome.error

    def _finished(self, exchange: Exchange) -> None:
        assert exchange is self.exchange
        self.finished.append(exchange.take_outcome())


@pytest.fixture
def workers() -> FakeWorkers:
    return FakeWorkers(free=MANY)


@pytest.fixture
def context(tmp_path: Path, workers: FakeWorkers) -> Iterator[ServerContext]:
    one = make_context(tmp_path, workers, max_upload=1 << 30)
    yield one
    one.spool.close()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def on_disk(tmp_path: Path, workers: FakeWorkers, disk: Disk) -> Iterator[ServerContext]:
    """A context whose spool has no memory, so that every body goes to a file."""
    one = make_context(tmp_path, workers, memory=0)
    yield one
    disk.go_on()
    one.spool.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def test_a_resize_may_ask_for_digests(context: ServerContext, workers: FakeWorkers) -> None:
    exchange = FakeConnection(context).exchange
    exchange.accept(META, SIZE, Digest.TAG)
    assert exchange.slot is not None
    fill(exchange.slot)
    exchange.body_ended()
    (job,) = workers.jobs
    assert json.loads(job.options) == {**META, "digest": "tag"}
    job.fail(Cancelled("the test is over"))
    job.close()


def test_a_resize_from_its_header_to_its_reply(context: ServerContext, workers: FakeWorkers) -> None:
    connection = FakeConnection(context)
    exchange = connection.exchange
    states = [exchange.state]
    exchange.accept({**META, "quality": 70, "deadline_ms": 5000}, SIZE)
    states.append(exchange.state)
    assert exchange.slot is not None
    fill(exchange.slot, bytes(range(250)) * 4)
    exchange.body_ended()
    states.append(exchange.state)
    (job,) = workers.jobs
    assert job.operation is Operation.RESIZE
    assert json.loads(job.options) == {**META, "quality": 70}
    assert job.deadline == exchange.timeline.received + 5
    assert content(job.image) == bytes(range(250)) * 4
    succeed(job, context.spool, size=70)
    states.append(exchange.state)
    assert states == [
        ExchangeState.NEW,
        ExchangeState.RECEIVING,
        ExchangeState.SUBMITTED,
        ExchangeState.REPLIED,
    ]
    (outcome,) = connection.finished
    assert outcome.result is not None
    assert len(content(outcome.result)) == 70
    meta, size = report_json(outcome, exchange.timeline)
    assert size == 70
    assert ResizeReport.from_meta(json.loads(meta)).source.size == SIZE


def test_an_info(context: ServerContext, workers: FakeWorkers) -> None:
    connection = FakeConnection(context, Operation.INFO)
    connection.send(b"image", meta={"whatever": 1})
    (job,) = workers.jobs
    assert job.operation is Operation.INFO
    source = ImageInfo(format="png", width=1, height=2, pages=1, has_alpha=True, orientation=1, size=5)
    job.close()
    job.answer(Outcome(source=source))
    (outcome,) = connection.finished
    assert (outcome.source, outcome.result, outcome.error) == (source, None, None)


def test_the_stages_are_stamped_in_their_order(context: ServerContext, workers: FakeWorkers) -> None:
    connection = FakeConnection(context)
    connection.send(b"image")
    (job,) = workers.jobs
    job.close()
    started = time.monotonic()
    job.answer(Outcome(error=CorruptImage("no"), started=started, ended=time.monotonic()))
    line = connection.exchange.timeline
    stamps = [line.arrived, line.received, line.submitted, line.started, line.ended, line.replied]
    assert stamps == sorted(stamps)
    assert all(stamps)
    assert line.started == started
    assert line.total_ms >= line.receive_ms + line.queue_ms + line.process_ms


@pytest.mark.parametrize(
    ("meta", "size", "error"),
    [
        (META, 0, BadRequest),
        (META, (1 << 30) + 1, TooLarge),
        ({"width": 0}, SIZE, BadRequest),
        ({"width": "9"}, 0, BadRequest),
    ],
)
def test_what_cannot_be_accepted_is_refused(
    context: ServerContext, meta: dict[str, object], size: int, error: type[RequestError]
) -> None:
    connection = FakeConnection(context)
    connection.exchange.accept(meta, size)
    assert isinstance(connection.error, error)
    assert connection.exchange.slot is None


def test_a_draining_server_refuses(context: ServerContext) -> None:
    context.draining = True
    connection = FakeConnection(context)
    connection.exchange.accept(META, SIZE)
    assert isinstance(connection.error, Draining)


def test_a_full_queue_refuses_before_the_body_arrives(tmp_path: Path) -> None:
    context = make_context(tmp_path, FakeWorkers(free=0), queue=0)
    connection = FakeConnection(context)
    connection.exchange.accept(META, SIZE)
    assert isinstance(connection.error, Busy)
    context.spool.close()


def test_a_queue_that_has_become_full_refuses_after_the_body(tmp_path: Path) -> None:
    workers = FakeWorkers(free=1)
    context = make_context(tmp_path, workers, queue=0)
    connection = FakeConnection(context)
    connection.exchange.accept(META, SIZE)
    assert connection.exchange.slot is not None
    fill(connection.exchange.slot)
    workers.free = 0
    connection.exchange.body_ended()
    assert isinstance(connection.error, Busy)
    context.spool.close()


def test_an_upload_may_be_refused_while_it_arrives(context: ServerContext, workers: FakeWorkers) -> None:
    connection = FakeConnection(context)
    connection.exchange.accept(META, SIZE)
    connection.exchange.refuse(CorruptImage("not what it said"))
    assert isinstance(connection.error, CorruptImage)
    assert connection.exchange.slot is None
    assert workers.jobs == []


def test_requests_in_flight_are_counted_with_their_sizes(context: ServerContext) -> None:
    one, other = FakeConnection(context), FakeConnection(context)
    one.exchange.accept(META, 1000)
    other.exchange.accept(META, 500)
    assert context.in_flight == InFlight(requests=2, size=1500)
    one.exchange.cancel()
    assert context.in_flight == InFlight(requests=1, size=500)
    other.exchange.abandon("gone")
    assert context.in_flight == InFlight()


def test_a_request_is_cancelled_while_it_arrives(context: ServerContext) -> None:
    connection = FakeConnection(context)
    connection.exchange.accept(META, SIZE)
    connection.exchange.cancel()
    assert isinstance(connection.error, Cancelled)


def test_a_request_is_cancelled_at_work(context: ServerContext, workers: FakeWorkers) -> None:
    connection = FakeConnection(context)
    connection.send(b"image")
    connection.exchange.cancel()
    assert workers.cancelled == workers.jobs
    assert isinstance(connection.error, Cancelled)


def test_an_abandoned_request_is_stopped_and_not_reported(
    context: ServerContext, workers: FakeWorkers
) -> None:
    arriving, working = FakeConnection(context), FakeConnection(context)
    arriving.exchange.accept(META, SIZE)
    arriving.exchange.abandon("the client disconnected")
    working.send(b"image")
    working.exchange.abandon("the client disconnected")
    assert workers.cancelled == workers.jobs
    assert arriving.finished == working.finished == []
    assert {arriving.exchange.state, working.exchange.state} == {ExchangeState.ABANDONED}


async def test_the_result_of_an_abandoned_request_is_given_back(
    on_disk: ServerContext, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = FakeConnection(on_disk, Operation.INFO)
    connection.exchange.accept({}, SIZE)
    assert connection.exchange.slot is not None
    fill(connection.exchange.slot)
    connection.exchange.body_ended()
    await until(lambda: bool(workers.jobs))
    monkeypatch.setattr(workers, "cancel", lambda _: None)  # as a worker that has just replied
    connection.exchange.abandon("the client disconnected")
    before = on_disk.spool.disk_left
    succeed(workers.jobs[0], on_disk.spool, size=10)
    await until(lambda: on_disk.spool.disk_left == before + SIZE)
    assert connection.finished == []


async def test_a_body_is_submitted_when_the_disk_has_it(
    on_disk: ServerContext, workers: FakeWorkers, disk: Disk
) -> None:
    disk.stop()
    connection = FakeConnection(on_disk)
    connection.send(b"x" * SIZE)
    assert connection.exchange.state is ExchangeState.STORING
    assert workers.jobs == []
    disk.go_on()
    await until(lambda: bool(workers.jobs))
    assert content(workers.jobs[0].image) == b"x" * SIZE
    fail(workers.jobs[0], CorruptImage("no"))
    assert isinstance(connection.error, CorruptImage)


async def test_a_disk_that_fails_refuses(on_disk: ServerContext, disk: Disk) -> None:
    disk.stop()
    connection = FakeConnection(on_disk)
    connection.send(b"image")
    disk.fill_up()
    disk.go_on()
    await until(lambda: bool(connection.finished))
    assert isinstance(connection.error, Busy)


async def test_a_body_that_the_disk_holds_up_is_late(
    on_disk: ServerContext, workers: FakeWorkers, disk: Disk
) -> None:
    disk.stop()
    connection = FakeConnection(on_disk)
    connection.send(b"image", meta={**META, "deadline_ms": 1000})
    connection.exchange.watch(connection.exchange.timeline.received + 1)
    assert connection.finished == []
    connection.exchange.watch(connection.exchange.timeline.received + 1.001)
    assert isinstance(connection.error, DeadlineExceeded)
    disk.go_on()
    assert workers.jobs == []


def test_a_result_that_the_disk_holds_up_is_late(context: ServerContext, workers: FakeWorkers) -> None:
    connection = FakeConnection(context)
    connection.send(b"image")
    (job,) = workers.jobs
    connection.exchange.watch(job.deadline)
    assert not job.answered
    connection.exchange.watch(job.deadline + 0.001)
    assert isinstance(connection.error, DeadlineExceeded)


def test_nothing_is_late_before_it_has_arrived(context: ServerContext) -> None:
    connection = FakeConnection(context)
    connection.exchange.accept(META, SIZE)
    connection.exchange.watch(time.monotonic() + 1e6)
    assert connection.exchange.state is ExchangeState.RECEIVING


CALLS: dict[str, tuple[Callable[[Exchange], object], ExchangeState]] = {
    "accept": (lambda exchange: exchange.accept(META, SIZE), ExchangeState.RECEIVING),
    "body_ended": (lambda exchange: exchange.body_ended(), ExchangeState.STORING),
    "refuse": (lambda exchange: exchange.refuse(Busy("no")), ExchangeState.FINISHED),
    "cancel": (lambda exchange: exchange.cancel(), ExchangeState.FINISHED),
    "abandon": (lambda exchange: exchange.abandon("the client disconnected"), ExchangeState.ABANDONED),
    "take_outcome": (lambda exchange: exchange.take_outcome(), ExchangeState.REPLIED),
}


def bring_to(exchange: Exchange, state: ExchangeState) -> None:
    """Lead a new exchange to a state, while the disk stands still."""
    if state is ExchangeState.NEW:
        return
    exchange.accept(META, SIZE)
    if state is ExchangeState.RECEIVING:
        return
    if state in (ExchangeState.FINISHED, ExchangeState.REPLIED, ExchangeState.ABANDONED):
        if state is ExchangeState.ABANDONED:
            exchange.abandon("the client disconnected")
        else:
            exchange.cancel()
        if state is ExchangeState.REPLIED:
            exchange.take_outcome()
        return
    assert exchange.slot is not None
    fill(exchange.slot)
    exchange.body_ended()


@pytest.mark.parametrize(("state", "call"), list(itertools.product(ExchangeState, CALLS)))
async def test_only_the_transitions_of_the_table_are_possible(
    on_disk: ServerContext, context: ServerContext, disk: Disk, state: ExchangeState, call: str
) -> None:
    disk.stop()
    act, target = CALLS[call]
    chosen = context if state is ExchangeState.SUBMITTED else on_disk
    exchange = Exchange(chosen, Operation.RESIZE, chosen.accounts.open_flow("test"), lambda _: None)
    bring_to(exchange, state)
    assert exchange.state is state
    if target in TRANSITIONS[state]:
        act(exchange)
        assert exchange.state is target
    else:
        with pytest.raises(RuntimeError, match="cannot become"):
            act(exchange)


def test_every_state_but_the_first_is_reached_and_the_last_ones_are_final() -> None:
    assert set(TRANSITIONS) == set(ExchangeState)
    reached = {state for following in TRANSITIONS.values() for state in following}
    assert reached == set(ExchangeState) - {ExchangeState.NEW}
    assert {state for state, following in TRANSITIONS.items() if not following} == {
        ExchangeState.REPLIED,
        ExchangeState.ABANDONED,
    }


# Limits of an identity


def accepted(one: FakeConnection) -> Exchange:
    one.exchange.accept(META, SIZE)
    return one.exchange


def at_work(one: FakeConnection) -> Exchange:
    one.send(b"x" * SIZE)
    return one.exchange


def result(one: FakeConnection, workers: FakeWorkers, context: ServerContext) -> None:
    at_work(one)
    succeed(workers.jobs[-1], context.spool, size=9)


def failure(one: FakeConnection, workers: FakeWorkers, _context: ServerContext) -> None:
    at_work(one)
    fail(workers.jobs[-1], CorruptImage("no"))


ENDS: dict[str, Callable[[FakeConnection, FakeWorkers, ServerContext], None]] = {
    "a result": result,
    "a failure": failure,
    "cancelled at work": lambda one, *_: at_work(one).cancel(),
    "abandoned at work": lambda one, *_: at_work(one).abandon("gone"),
    "cancelled while it arrives": lambda one, *_: accepted(one).cancel(),
    "abandoned while it arrives": lambda one, *_: accepted(one).abandon("gone"),
    "refused while it arrives": lambda one, *_: accepted(one).refuse(Busy("no room")),
    "no room in the spool": lambda one, *_: one.exchange.accept(META, 1 << 29),
    "no valid option": lambda one, *_: one.exchange.accept({"width": 0}, SIZE),
}


@pytest.mark.parametrize("end", ENDS)
async def test_every_end_of_a_request_releases_its_place_in_flight_once(
    tmp_path: Path, workers: FakeWorkers, end: str
) -> None:
    token = add(tmp_path / "tokens.toml", limits={"in_flight": 2})
    access = Access(Identities(tmp_path / "tokens.toml"))
    context = make_context(tmp_path, workers, disk=0, max_upload=1 << 30)
    flow = context.accounts.open_flow("identity:shop")
    session = access.session(access.login(token.text, "192.0.2.1"), flow.account)
    session.admit(0)  # another one that lasts
    connection = FakeConnection(context, session=session)
    ENDS[end](connection, workers, context)
    assert connection.exchange.state in (ExchangeState.REPLIED, ExchangeState.ABANDONED)
    assert session.usage.in_flight == 1
    assert context.in_flight == InFlight()
    # Its job may still end after that.
    for job in workers.jobs:
        if not job.answered:
            fail(job, Cancelled("late"))
    assert session.usage.in_flight == 1
    context.spool.close()


def test_what_an_identity_may_not_is_refused_before_the_body(tmp_path: Path, workers: FakeWorkers) -> None:
    path = tmp_path / "tokens.toml"
    token = add(path, limits={"in_flight": 1, "formats": ["png"]})
    access = Access(Identities(path))
    context = make_context(tmp_path, workers)
    flow = context.accounts.open_flow("identity:shop")
    session = access.session(access.login(token.text, "192.0.2.1"), flow.account)
    png = {**META, "format": "png"}

    def error_of(meta: dict[str, object]) -> RequestError | None:
        connection = FakeConnection(context, session=session)
        connection.exchange.accept(meta, SIZE)
        return connection.error if connection.finished else None

    assert isinstance(error_of(META), UnsupportedFormat)
    assert error_of(png) is None
    assert isinstance(error_of(png), Busy)
    revoke_tokens(path, token.id, datetime.now(UTC).replace(microsecond=0))
    access.prepare_reload(ServerSettings(tokens=path))()
    assert isinstance(error_of(png), Unauthorized)
    context.spool.close()
