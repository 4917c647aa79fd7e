"""What is sent of an upload that may be resumed, by the steps alone: no sockets, no clock."""

from collections.abc import Callable, Generator
from itertools import cycle
from typing import Any

import pytest

from vipsrv.address import Address
from vipsrv.client.attempts import Retries
from vipsrv.client.calls import Answer, OneServer, Outcome, Pause, SendRequest, Server, Step, call_steps
from vipsrv.client.core import PendingRequest, Reply
from vipsrv.client.requests import ClientRequest, resize_request
from vipsrv.client.resume import RESUMABLE_FROM, ResumableUploads, check_resumable_from, new_upload_id
from vipsrv.client.retry import Retry
from vipsrv.errors import (
    Busy,
    ClientTimeout,
    ConnectFailed,
    ConnectionLost,
    CorruptImage,
    ProtocolError,
    UploadConflict,
    VipsrvError,
    WorkerDied,
)
from vipsrv.protocol import Kind

SERVER = Address("127.0.0.1", 1)
OTHER = Address("127.0.0.1", 2)
SIZE = 100 * 2**20
SMALL = 2**20
GIVEN = "7d1f0e4a9c3b58264f90a1b2c3d4e5f6"
LOST = ConnectionLost("the connection was lost")
REQUEST = resize_request(None, {"width": 8, "height": 6})

OFFER = {"uploads": {"ttl_s": 60, "max_bytes": 2**40}}
NO_OFFER: dict[str, Any] = {}


class FakeKeeper:
    """Answers the steps of a call as a server does that holds ``received`` bytes; notes what was asked.

    ``events`` say what becomes of each request with an image, one after another: the bytes that arrive of
    its body before it is lost, an error, or ``None`` for success, which is also what follows the last.
    """

    def __init__(self, *events: int | VipsrvError | None, hello: dict[str, Any] = OFFER) -> None:
        self.events = list(events)
        self.hello = hello
        self.received = 0
        self.size: int | None = None
        self.steps: list[str] = []
        self.sent: list[SendRequest] = []
        self.status_errors: list[VipsrvError] = []
        self.before_status: Callable[[], None] = lambda: None
        self.may_resend = False

    def do(self, step: Step) -> Outcome:
        if isinstance(step, Pause):
            self.steps.append("pause")
            return None
        assert isinstance(step, SendRequest)
        request = step.request
        if request.kind is Kind.HELLO:
            self.steps.append("hello")
            assert step.offset is None
            return ended(request, meta=self.hello)
        if request.kind is Kind.UPLOAD_STATUS:
            self.steps.append("status")
            assert step.offset is None
            if self.status_errors:
                return self.status_errors.pop(0)
            self.before_status()
            return ended(request, meta={"received": self.received, "size": self.size})
        return self.take(step)

    def take(self, step: SendRequest) -> Outcome:
        upload, offset = step.request.meta.get("upload"), step.offset
        self.sent.append(step)
        assert offset is not None
        self.steps.append("plain" if upload is None else f"from {offset}")
        if upload is not None:
            assert upload["offset"] == offset
            if offset == 0:
                self.received = 0
            assert offset == self.received
            self.size = upload["size"]
        event = self.events.pop(0) if self.events else None
        if event is None:
            self.received = self.size or 0
            return ended(step.request)
        if isinstance(event, int):
            self.received += event
            # The client cannot know how much arrived: more left its hands.
            left = max(0, (self.size or SIZE) - self.received - 500_000)
            return ended(step.request, error=LOST, unsent=left, may_resend=self.may_resend)
        if isinstance(event, ConnectFailed):
            return event
        self.received = self.size or 0
        return ended(step.request, error=event)


def ended(
    request: ClientRequest,
    *,
    meta: dict[str, Any] | None = None,
    error: VipsrvError | None = None,
    unsent: int = 0,
    may_resend: bool = False,
) -> PendingRequest:
    pending = PendingRequest(request.kind, 1, b"", unsent=unsent, max_body=0, on_done=lambda: None)
    pending.may_resend = may_resend
    if error is not None:
        pending.error = error
    else:
        pending.reply = Reply(meta=meta or {}, body=b"", received=0)
    return pending


def call(
    server: FakeKeeper,
    *,
    size: int = SIZE,
    uploads: ResumableUploads | None = None,
    retry: Retry | None = None,
    servers: OneServer | None = None,
    **options: Any,
) -> Answer:
    """Make a call whose steps the server answers."""
    shared = uploads or ResumableUploads()
    upload = shared.upload(REQUEST, size, **options)
    retries = Retries(retry or Retry(), clock=lambda: 0.0, chance=lambda: 0.5)
    steps = call_steps(REQUEST, servers or OneServer(SERVER), retries, upload=upload)
    try:
        step = next(steps)
        while True:
            step = steps.send(server.do(step))
    except StopIteration as end:
        answer: Answer = end.value
        return answer


def test_the_first_large_image_asks_the_server_once() -> None:
    server, uploads = FakeKeeper(), ResumableUploads()
    call(server, uploads=uploads)
    call(server, uploads=uploads)
    assert server.steps == ["hello", "from 0", "from 0"]
    ids = [step.request.meta["upload"]["id"] for step in server.sent]
    assert len(set(ids)) == 2
    assert server.sent[0].request.meta["width"] == 8


@pytest.mark.parametrize("size", [5, 256 * 1024, RESUMABLE_FROM - 1])
def test_a_small_image_is_sent_as_ever(size: int) -> None:
    server = FakeKeeper()
    answer = call(server, size=size)
    assert server.steps == ["plain"]
    assert server.sent[0].request is REQUEST
    assert (answer.attempts, answer.resumed) == (1, 0)


@pytest.mark.parametrize("hello", [NO_OFFER, {"uploads": None}, {"uploads": {"max_bytes": SIZE - 1}}])
def test_a_server_that_does_not_offer_it_gets_the_image_as_ever(hello: dict[str, Any]) -> None:
    server = FakeKeeper(hello=hello)
    call(server)
    assert server.steps == ["hello", "plain"]


def test_it_goes_on_where_it_was_cut_without_a_pause() -> None:
    server = FakeKeeper(40_000_000, 20_000_000)
    resumed: list[int] = []
    answer = call(server, on_resumed=resumed.append)
    assert server.steps == [
        *("hello", "from 0"),
        *("status", "from 40000000"),
        *("status", "from 60000000"),
    ]
    assert len({step.request.meta["upload"]["id"] for step in server.sent}) == 1
    assert (answer.attempts, answer.resumed, answer.offset) == (3, 60_000_000, 60_000_000)
    assert resumed == [40_000_000, 60_000_000]


def test_thousands_of_cuts_that_bring_it_forward_take_no_token_and_no_pause() -> None:
    server = FakeKeeper(*[20_000] * 5000)
    answer = call(server, retry=Retry(attempts=2, tokens=2.0))
    assert "pause" not in server.steps
    assert answer.attempts == 5001


def test_a_cut_that_brings_nothing_forward_is_a_failure() -> None:
    server = FakeKeeper(1000, 0, 0, 0, 0, 0)
    with pytest.raises(ConnectionLost):
        call(server, retry=Retry(attempts=3))
    assert server.steps.count("pause") == 2


def test_after_an_idle_connection_was_lost_it_is_sent_again_once_without_a_pause() -> None:
    server = FakeKeeper(0)
    server.may_resend = True
    call(server)
    assert server.steps == ["hello", "from 0", "status", "from 0"]
    server = FakeKeeper(*[0] * 9)
    server.may_resend = True
    with pytest.raises(ConnectionLost):
        call(server, retry=Retry(attempts=3))


def test_a_cut_right_after_the_question_is_a_cut_like_others() -> None:
    # The connection was idle since the reply to UPLOAD_STATUS.
    server = FakeKeeper(*[20_000] * 300)
    server.may_resend = True
    call(server)
    assert "pause" not in server.steps


def test_failures_are_counted_anew_after_bytes_were_brought_forward() -> None:
    server = FakeKeeper(0, 0, 1000, 0, 0)
    call(server, retry=Retry(attempts=4))
    assert server.steps.count("pause") == 4


def test_a_complete_upload_whose_reply_was_lost_is_not_sent_again() -> None:
    server = FakeKeeper(SIZE)
    answer = call(server)
    assert server.steps == ["hello", "from 0", "status", f"from {SIZE}"]
    assert answer.resumed == SIZE


def test_what_is_waited_for_between_two_cuts_takes_no_token_in_the_end() -> None:
    server = FakeKeeper(*[20_000] * 300)
    turn = iter(range(10_000))

    def sometimes_busy() -> None:
        if next(turn) % 2:
            server.status_errors.append(Busy("just ending", retry_after_ms=50))

    server.before_status = sometimes_busy
    call(server, retry=Retry(attempts=3, tokens=4.0))
    assert server.steps.count("pause") > 100


class TwoServers(OneServer):
    """Takes the preferred server or else the next one; notes which was preferred."""

    def __init__(self) -> None:
        super().__init__(SERVER)
        self.preferred: list[Server | None] = []
        self.turn = cycle((SERVER, OTHER))

    def choose(
        self,
        until: float | None,  # noqa: ARG002 - of the protocol
        preferred: Server | None = None,
    ) -> Generator[Step, Outcome, Server]:
        yield from ()
        self.preferred.append(preferred)
        return preferred or next(self.turn)


def test_the_next_attempt_prefers_the_server_that_holds_the_image() -> None:
    server, servers = FakeKeeper(40_000_000, 20_000_000), TwoServers()
    call(server, servers=servers)
    assert servers.preferred == [None, SERVER, SERVER]
    assert {step.server for step in server.sent} == {SERVER}


def test_a_server_that_has_refused_a_complete_image_is_asked_again() -> None:
    server, servers = FakeKeeper(Busy("full")), TwoServers()
    call(server, servers=servers)
    assert servers.preferred == [None, SERVER]
    assert server.steps == ["hello", "from 0", "pause", "status", f"from {SIZE}"]


def test_at_another_server_the_image_begins_anew() -> None:
    server, servers = FakeKeeper(ConnectFailed("refused")), TwoServers()
    call(server, servers=servers)
    assert servers.preferred == [None, None]
    assert [step.server for step in server.sent] == [SERVER, OTHER]
    assert server.steps == ["hello", "from 0", "pause", "hello", "from 0"]


def test_an_upload_that_the_server_has_dropped_begins_anew() -> None:
    server = FakeKeeper(40_000_000, 20_000_000)

    def drop() -> None:
        if len(server.sent) == 2:
            server.received, server.size = 0, None

    server.before_status = drop
    answer = call(server)
    assert server.steps[-2:] == ["status", "from 0"]
    assert answer.resumed == 0


def test_a_server_that_drops_it_again_and_again_gets_the_image_without_an_id() -> None:
    server = FakeKeeper(*[1_000_000, 1_000_000] * 20)
    turn = iter(range(1000))

    def drop() -> None:
        if next(turn) % 2:
            server.received, server.size = 0, None

    server.before_status = drop
    with pytest.raises(ConnectionLost):
        call(server)
    assert server.steps.count("plain") == 5


def test_a_worker_that_died_does_not_need_the_image_again() -> None:
    server = FakeKeeper(WorkerDied("died"))
    call(server)
    assert server.steps == ["hello", "from 0", "pause", "status", f"from {SIZE}"]


def test_a_full_queue_is_waited_for_with_the_image_at_the_server() -> None:
    server = FakeKeeper(Busy("full", retry_after_ms=10))
    call(server)
    assert server.steps == ["hello", "from 0", "pause", "status", f"from {SIZE}"]


def test_a_conflict_is_settled_by_asking() -> None:
    server = FakeKeeper(UploadConflict("another connection goes on with it"))
    call(server)
    assert server.steps == ["hello", "from 0", "status", f"from {SIZE}"]


def test_another_client_that_sends_the_same_upload_is_waited_for() -> None:
    conflicts = [UploadConflict("another connection goes on with it")] * 9
    server = FakeKeeper(*conflicts)
    server.before_status = lambda: setattr(server, "received", 0)
    with pytest.raises(Busy, match="another client sends the upload"):
        call(server)
    assert server.steps.count("pause") == 4


def test_an_error_of_the_image_is_raised_at_once() -> None:
    server = FakeKeeper(CorruptImage("no image"))
    with pytest.raises(CorruptImage):
        call(server)
    assert server.steps == ["hello", "from 0"]


def test_a_question_that_fails_is_an_attempt_that_failed() -> None:
    server = FakeKeeper(40_000_000)
    server.status_errors = [ConnectFailed("refused"), ClientTimeout("no answer")]
    call(server)
    assert server.steps == [
        *("hello", "from 0", "status", "pause", "status", "pause"),
        *("status", "from 40000000"),
    ]


def test_an_id_that_is_given_resumes_what_an_earlier_process_sent() -> None:
    server = FakeKeeper()
    server.received, server.size = 62_000_000, SIZE
    resumed: list[int] = []
    answer = call(server, upload_id=GIVEN, on_resumed=resumed.append)
    assert server.steps == ["hello", "status", "from 62000000"]
    assert server.sent[0].request.meta["upload"] == {"id": GIVEN, "size": SIZE, "offset": 62_000_000}
    assert (answer.attempts, answer.resumed, resumed) == (1, 62_000_000, [62_000_000])


def test_an_id_that_is_given_is_used_for_small_images_and_if_others_are_not_resumed() -> None:
    server = FakeKeeper()
    call(server, size=5, upload_id=GIVEN, uploads=ResumableUploads(None))
    assert server.steps == ["hello", "status", "from 0"]


def test_an_id_of_another_image_is_refused() -> None:
    server = FakeKeeper()
    server.received, server.size = 5, 77
    with pytest.raises(UploadConflict, match="77 bytes"):
        call(server, upload_id=GIVEN)


def test_an_id_is_made_only_where_it_is_used() -> None:
    made: list[str] = []

    def make() -> str:
        made.append(GIVEN)
        return GIVEN

    call(FakeKeeper(hello=NO_OFFER), upload_id=make)
    assert not made
    server = FakeKeeper(20_000_000)
    call(server, upload_id=make)
    assert made == [GIVEN]
    assert server.steps == ["hello", "status", "from 0", "status", "from 20000000"]


def test_after_a_cut_smaller_images_are_resumed_too() -> None:
    uploads = ResumableUploads()
    call(FakeKeeper(40_000_000), uploads=uploads)
    server = FakeKeeper(100_000)
    call(server, size=SMALL, uploads=uploads)
    assert server.steps == ["from 0", "status", "from 100000"]
    server = FakeKeeper()
    call(server, size=256 * 1024 - 1, uploads=uploads)
    assert server.steps == ["plain"]


def test_a_small_image_that_was_cut_is_resumed_from_its_second_attempt_on() -> None:
    server = FakeKeeper(100_000, 200_000)
    server.size = None
    answer = call(server, size=SMALL)
    assert server.steps == ["plain", "pause", "hello", "from 0", "status", "from 200000"]
    assert answer.resumed == 200_000


def test_a_refused_connection_is_no_cut() -> None:
    uploads = ResumableUploads()
    call(FakeKeeper(ConnectFailed("refused")), size=SMALL, uploads=uploads)
    server = FakeKeeper()
    call(server, size=SMALL, uploads=uploads)
    assert server.steps == ["plain"]


def test_it_can_be_switched_off() -> None:
    server = FakeKeeper(40_000_000)
    call(server, uploads=ResumableUploads(None))
    assert server.steps == ["plain", "pause", "plain"]


def test_the_size_from_which_on_can_be_set() -> None:
    server = FakeKeeper()
    call(server, size=1000, uploads=ResumableUploads(1000))
    assert server.steps == ["hello", "from 0"]


@pytest.mark.parametrize(
    "meta", [{"received": -1}, {"received": "5"}, {}, {"received": SIZE + 1, "size": SIZE}]
)
def test_a_status_that_makes_no_sense(meta: dict[str, Any]) -> None:
    server = FakeKeeper(1000)
    answer = server.do

    def do(step: Step) -> Outcome:
        if isinstance(step, SendRequest) and step.request.kind is Kind.UPLOAD_STATUS:
            return ended(step.request, meta=meta)
        return answer(step)

    server.do = do  # type: ignore[method-assign]
    with pytest.raises(ProtocolError, match="UPLOAD_STATUS"):
        call(server)


@pytest.mark.parametrize("upload_id", ["", "7d1f", GIVEN.upper(), GIVEN + "0", GIVEN[:-1] + "g", 5])
def test_an_id_that_is_none(upload_id: Any) -> None:
    with pytest.raises(ValueError, match="upload_id"):
        ResumableUploads().upload(REQUEST, 5, upload_id=upload_id)


@pytest.mark.parametrize("size", [-1, 1.5, "8 MiB", True])
def test_a_resumable_from_that_is_no_size(size: Any) -> None:
    with pytest.raises(ValueError, match="resumable_from"):
        check_resumable_from(size)


def test_ids_are_random() -> None:
    assert new_upload_id() != new_upload_id()
