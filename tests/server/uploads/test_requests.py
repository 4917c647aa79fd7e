"""A request with an upload: what it is held against, and what it leaves behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.fakes import FakeWorkers, fill, make_context, succeed
from tests.server.identity.records import add
from vipsrv.errors import BadRequest, Busy, CorruptImage, TooLarge, UploadConflict
from vipsrv.server.access import Access, Session
from vipsrv.server.accounts import Flow
from vipsrv.server.context import ServerContext
from vipsrv.server.exchange import Exchange, ExchangeState
from vipsrv.server.identity import Identities
from vipsrv.server.uploads import Uploads
from vipsrv.workers.channel import Operation

ID = "d" * 32
SIZE = 100_000
HALF = 40_000


@pytest.fixture
def workers() -> FakeWorkers:
    return FakeWorkers(free=8)


@pytest.fixture
def context(tmp_path: Path, workers: FakeWorkers) -> Iterator[ServerContext]:
    context = make_context(tmp_path, workers, spool_dir=tmp_path, max_upload=1_000_000)
    context.uploads = Uploads(context.spool, context.settings)
    yield context
    context.spool.close()


@pytest.fixture
def flow(context: ServerContext) -> Flow:
    return context.accounts.open_flow("192.0.2.1")


def begin(
    context: ServerContext,
    flow: Flow,
    offset: int,
    body: int | None,
    *,
    size: int = SIZE,
    operation: Operation = Operation.RESIZE,
    session: Session | None = None,
    **meta: object,
) -> Exchange:
    exchange = Exchange(context, operation, flow, lambda _: None, session)
    options = {"width": 8, "height": 6} if operation is Operation.RESIZE else {}
    exchange.accept({**options, "upload": {"id": ID, "size": size, "offset": offset}, **meta}, body)
    return exchange


def put(exchange: Exchange, size: int) -> None:
    assert exchange.slot is not None
    end = exchange.slot.received + size
    while exchange.slot.received < end:
        room = exchange.slot.room()
        exchange.slot.filled(min(len(room), end - exchange.slot.received))


def received(context: ServerContext, flow: Flow) -> int:
    assert context.uploads is not None
    return context.uploads.status(flow.account, ID).received


async def test_an_abandoned_request_leaves_its_bytes_and_nothing_in_flight(
    context: ServerContext, flow: Flow
) -> None:
    exchange = begin(context, flow, 0, SIZE)
    put(exchange, HALF)
    assert (context.in_flight.requests, context.in_flight.size) == (1, SIZE)
    exchange.abandon("the client disconnected")
    assert (context.in_flight.requests, context.in_flight.size) == (0, 0)
    assert received(context, flow) == HALF


@pytest.mark.parametrize("operation", Operation)
async def test_the_rest_makes_the_whole_image(
    context: ServerContext, flow: Flow, workers: FakeWorkers, operation: Operation
) -> None:
    exchange = begin(context, flow, 0, SIZE)
    put(exchange, HALF)
    exchange.abandon("the client disconnected")
    exchange = begin(context, flow, HALF, SIZE - HALF, operation=operation)
    put(exchange, SIZE - HALF)
    exchange.body_ended()
    assert exchange.size == SIZE
    (job,) = workers.jobs
    assert (job.image.size, sum(map(len, job.image.views))) == (SIZE, SIZE)
    succeed(job, context.spool, size=9)
    outcome = exchange.take_outcome()
    assert outcome.error is None
    assert outcome.result is not None
    outcome.result.close()
    # A complete one takes an empty body, as often as it is asked for.
    again = begin(context, flow, SIZE, 0, operation=operation)
    again.body_ended()
    assert again.state is ExchangeState.SUBMITTED


async def test_only_a_successful_reply_makes_an_upload_the_first_to_go(
    context: ServerContext, flow: Flow, workers: FakeWorkers
) -> None:
    assert context.uploads is not None
    exchange = begin(context, flow, 0, SIZE)
    put(exchange, SIZE)
    exchange.body_ended()
    workers.jobs[0].fail(CorruptImage("damaged"))
    workers.jobs[0].close()
    exchange.take_outcome()
    (upload,) = context.uploads.idle
    assert upload.replied_at is None
    exchange = begin(context, flow, SIZE, 0)
    exchange.body_ended()
    succeed(workers.jobs[1], context.spool, size=9)
    result = exchange.take_outcome().result
    assert result is not None
    result.close()
    assert upload.replied_at is not None


@pytest.mark.parametrize(
    ("offset", "body", "size", "error"),
    [
        (HALF, SIZE - HALF - 1, SIZE, UploadConflict),
        (HALF - 1, SIZE - HALF + 1, SIZE, UploadConflict),
        (HALF, SIZE - HALF + 1, SIZE + 1, UploadConflict),
        (SIZE, 0, SIZE, UploadConflict),
        (HALF, 2_000_000 - HALF, 2_000_000, TooLarge),
        (HALF, 0, HALF - 1, BadRequest),
    ],
)
async def test_what_does_not_fit_is_refused_and_counts_nothing(
    context: ServerContext, flow: Flow, offset: int, body: int, size: int, error: type[Exception]
) -> None:
    exchange = begin(context, flow, 0, SIZE)
    put(exchange, HALF)
    exchange.abandon("the client disconnected")
    refused = begin(context, flow, offset, body, size=size)
    assert refused.outcome is not None
    assert isinstance(refused.outcome.error, error)
    assert (context.in_flight.requests, context.in_flight.size) == (0, 0)
    assert received(context, flow) == HALF


async def test_a_server_that_keeps_none_says_so(context: ServerContext, flow: Flow) -> None:
    context.uploads = None
    for operation in Operation:
        refused = begin(context, flow, 0, SIZE, operation=operation)
        assert refused.outcome is not None
        assert isinstance(refused.outcome.error, BadRequest)
        assert "does not offer" in refused.outcome.error.message


async def test_an_image_without_an_upload_leaves_nothing(
    context: ServerContext, flow: Flow, workers: FakeWorkers
) -> None:
    assert context.uploads is not None
    exchange = Exchange(context, Operation.INFO, flow, lambda _: None)
    exchange.accept({}, 10)
    assert exchange.slot is not None
    fill(exchange.slot)
    exchange.body_ended()
    workers.jobs[0].close()
    assert len(context.uploads.idle) == 0
    assert context.spool.use.memory == 0


async def test_only_bytes_that_have_arrived_count_against_a_limit(
    context: ServerContext, flow: Flow, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.toml"
    token = add(file, "shop", limits={"bytes_per_second": 1000})
    identities = Identities(file)
    now = 0.0
    identity = Access(identities).login(token.text, "192.0.2.1")
    session = Session(identities, identity, flow.account, clock=lambda: now)
    exchange = begin(context, flow, 0, SIZE, session=session)
    put(exchange, HALF)
    exchange.abandon("the client disconnected")
    refused = begin(context, flow, HALF, SIZE - HALF, session=session)
    assert refused.outcome is not None
    assert isinstance(refused.outcome.error, Busy)  # by the bytes that have arrived
    now += HALF / 1000 + 1
    for offset, error in ((HALF - 1, UploadConflict), (HALF, type(None))):  # a conflict costs nothing
        exchange = begin(context, flow, offset, SIZE - offset, session=session)
        assert isinstance(exchange.outcome and exchange.outcome.error, error)
    exchange.abandon("the client disconnected")
    assert session.usage.in_flight == 0
