"""A call of a client with one server: its first attempt may be made before its steps."""

from collections.abc import Callable
from functools import partial

import pytest

from vipsrv.address import Address
from vipsrv.client.attempts import Retries
from vipsrv.client.calls import Answer, OneServer, Pause, SendRequest, Step, answer_at_once, call_steps
from vipsrv.client.core import PendingRequest, Reply
from vipsrv.client.requests import INFO
from vipsrv.client.resume import RESUMABLE_AFTER_A_CUT, RESUMABLE_FROM, ResumableUploads
from vipsrv.client.retry import Retry
from vipsrv.errors import Busy, ConnectFailed, ConnectionLost, CorruptImage, Draining, VipsrvError, WorkerDied
from vipsrv.protocol import CLOSING

SERVER = Address("127.0.0.1", 1)


def ended(*, error: VipsrvError | None = None, unseen: bool = False, closing: bool = False) -> PendingRequest:
    """Return a request that has ended."""
    pending = PendingRequest(INFO.kind, 1, b"", unsent=0, max_body=0, on_done=lambda: None)
    pending.error, pending.may_resend = error, unseen
    if error is None:
        pending.reply = Reply(meta={CLOSING: True} if closing else {}, body=b"", received=28)
    return pending


def shared(*, tokens_lost: int = 3) -> Retries:
    """Return the retries of a client of which some calls have failed before."""
    retries = Retries(Retry(attempts=3), chance=lambda: 1.0)
    for _ in range(tokens_lost):
        retries.budget.failed()
    return retries


def state(retries: Retries) -> tuple[bool, float]:
    return retries.reached, retries.budget.tokens


def then(proceed: Callable[[], Step]) -> Step | Answer | str:
    """Return the next step, or how the call ends."""
    try:
        return proceed()
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    except VipsrvError as error:
        return f"{type(error).__name__}: {error}"


def test_an_upload_begins_plainly_unless_it_may_be_resumed() -> None:
    uploads = ResumableUploads()
    large, small = (uploads.upload(INFO, size) for size in (RESUMABLE_FROM, RESUMABLE_FROM - 1))
    given = uploads.upload(INFO, 1, upload_id="0" * 32)
    assert large is not None
    assert small is not None
    assert given is not None
    assert [one.begins_plainly(SERVER) for one in (large, small, given)] == [False, True, False]
    uploads.at(SERVER).cut = True
    assert not small.begins_plainly(SERVER)


@pytest.mark.parametrize("closing", [False, True])
def test_the_answer_at_once_is_that_of_the_steps(*, closing: bool) -> None:
    pending, by_steps, at_once = ended(closing=closing), shared(), shared()
    steps = call_steps(INFO, OneServer(SERVER), by_steps)
    assert next(steps) == SendRequest(SERVER, INFO, 0, None)
    assert then(partial(steps.send, pending)) == answer_at_once(pending, at_once) == Answer(pending, 1)
    assert state(by_steps) == state(at_once) == (True, 97 + 0.1)


@pytest.mark.parametrize("size", [RESUMABLE_AFTER_A_CUT - 1, RESUMABLE_FROM - 1])
@pytest.mark.parametrize(
    "first",
    [
        ended(error=Busy("full", retry_after_ms=100)),
        ended(error=CorruptImage("no image")),
        ended(error=WorkerDied("it died")),
        ended(error=Draining("stops")),
        ended(error=ConnectionLost("lost")),
        ended(error=ConnectionLost("closed while idle"), unseen=True),
        ConnectFailed("refused"),
    ],
    ids=lambda first: type(first.error if isinstance(first, PendingRequest) else first).__name__,
)
def test_a_first_attempt_that_failed_is_followed_by_the_same_steps(
    first: PendingRequest | VipsrvError, size: int
) -> None:
    by_steps, at_once, success = shared(), shared(), ended()
    upload, other_upload = (ResumableUploads().upload(INFO, size) for _ in range(2))
    assert upload is None or upload.begins_plainly(SERVER)
    steps = call_steps(INFO, OneServer(SERVER), by_steps, upload=upload)
    assert next(steps) == SendRequest(SERVER, INFO, 0, None)
    assert answer_at_once(first, at_once) is None
    others = call_steps(INFO, OneServer(SERVER), at_once, upload=other_upload, first=first)
    step = then(partial(steps.send, first))
    assert then(lambda: next(others)) == step
    while isinstance(step, SendRequest | Pause):  # after a cut one of them asks what the server keeps
        outcome = success if isinstance(step, SendRequest) else None
        step = then(partial(steps.send, outcome))
        assert then(partial(others.send, outcome)) == step
    assert state(by_steps) == state(at_once)
    if isinstance(step, Answer):
        assert step.attempts == 2
