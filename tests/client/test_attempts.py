"""Whether a failed request is sent again, and when: the rules, without clients and servers."""

import itertools

import pytest

from vipsrv.client.attempts import LONGEST_AWAY_PAUSE, Attempts, Retries, with_attempts
from vipsrv.client.retry import Retry, RetryBudget
from vipsrv.errors import (
    BadRequest,
    Busy,
    Cancelled,
    ClientTimeout,
    ConnectFailed,
    ConnectionLost,
    CorruptImage,
    DeadlineExceeded,
    Draining,
    InternalError,
    ProtocolError,
    ReceiveTimeout,
    StartFailed,
    TlsFailed,
    TooLarge,
    Unauthorized,
    UnsupportedFormat,
    UploadConflict,
    VipsrvError,
    WorkerDied,
)

LOST = ConnectionLost("the connection was lost")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def retries(retry: Retry = Retry(), *, chance: float = 1.0, clock: Clock | None = None) -> Retries:  # noqa: B008
    return Retries(retry, clock=clock or Clock(), chance=lambda: chance)


def pauses(error: VipsrvError, shared: Retries, *, most: int = 50) -> list[float]:
    """The pauses of a call whose attempts all end with an error."""
    attempts = Attempts(shared, None)
    found = iter(lambda: attempts.pause_after(error), None)
    return list(itertools.islice(found, most))


@pytest.mark.parametrize(
    "error",
    [LOST, ClientTimeout("x"), ConnectFailed("x"), Busy("x"), ReceiveTimeout("x")],
    ids=lambda error: type(error).__name__,
)
def test_what_may_succeed_later_is_sent_again(error: VipsrvError) -> None:
    assert len(pauses(error, retries(Retry(attempts=3)))) == 2


@pytest.mark.parametrize(
    "error",
    [
        *(TlsFailed("x"), ProtocolError("x"), StartFailed("x"), BadRequest("x"), Unauthorized("x")),
        *(UploadConflict("x"), TooLarge("x"), UnsupportedFormat("x"), CorruptImage("x"), Cancelled("x")),
        *(InternalError("x"), DeadlineExceeded("x")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_would_fail_again_is_not(error: VipsrvError) -> None:
    shared = retries()
    assert pauses(error, shared) == []
    assert shared.budget.tokens == shared.retry.tokens


def test_an_image_that_ended_a_worker_is_sent_once_more() -> None:
    attempts = Attempts(retries(), None)
    assert attempts.pause_after(WorkerDied("x")) is not None
    assert attempts.pause_after(LOST) is not None
    assert attempts.pause_after(WorkerDied("x")) is None


def test_the_pauses_double_up_to_the_longest_one() -> None:
    retry = Retry(attempts=6, first_pause=1, longest_pause=5)
    assert pauses(LOST, retries(retry)) == [1, 2, 4, 5, 5]
    assert pauses(LOST, retries(retry, chance=0.25)) == [0.25, 0.5, 1, 1.25, 1.25]
    assert pauses(LOST, retries(retry, chance=0)) == [0] * 5


def test_the_pause_is_at_least_what_the_server_asks_for() -> None:
    retry = Retry(attempts=3, first_pause=1)
    assert pauses(Busy("x", retry_after_ms=2000), retries(retry)) == [3, 4]
    assert pauses(Busy("x", retry_after_ms=2000), retries(retry, chance=0)) == [2, 2]


def test_a_server_that_asks_for_too_long_a_pause_is_not_waited_for() -> None:
    retry = Retry(patience=10)
    assert pauses(Busy("x", retry_after_ms=10_001), retries(retry)) == []
    assert pauses(Busy("x", retry_after_ms=10_000), retries(retry, chance=0)) == [10] * 4


def test_nothing_is_sent_again_without_retries() -> None:
    attempts = Attempts(retries(Retry.none()), None)
    assert attempts.pause_after(LOST) is None
    assert attempts.pause_after(Draining("x")) is None


def test_a_request_that_no_server_has_seen_is_sent_again_at_once_and_only_once() -> None:
    shared = retries(Retry.none())
    attempts = Attempts(shared, None)
    assert attempts.pause_after(LOST, unseen=True) == 0
    assert attempts.pause_after(LOST, unseen=True) is None
    assert shared.budget.tokens == shared.retry.tokens


# A server that is away


def test_a_server_that_was_never_reached_is_not_waited_for() -> None:
    assert len(pauses(ConnectFailed("x"), retries(Retry(attempts=3)))) == 2


@pytest.mark.parametrize("error", [ConnectFailed("x"), Draining("x")], ids=["gone", "draining"])
def test_a_server_that_was_there_is_waited_for(error: VipsrvError) -> None:
    clock = Clock()
    shared = retries(Retry(attempts=2, patience=15), clock=clock)
    shared.succeeded()
    attempts = Attempts(shared, None)
    waited: list[float] = []
    while (pause := attempts.pause_after(error)) is not None:
        waited.append(pause)
        clock.now += pause
    assert 15 <= sum(waited) <= 15 + LONGEST_AWAY_PAUSE
    assert max(waited) == LONGEST_AWAY_PAUSE
    assert shared.budget.tokens == shared.retry.tokens


def test_the_wait_for_a_server_begins_anew_after_an_attempt_that_reached_it() -> None:
    clock = Clock()
    shared = retries(Retry(patience=10), clock=clock)
    shared.succeeded()
    attempts = Attempts(shared, None)
    for error in (ConnectFailed("x"), LOST, ConnectFailed("x")):
        assert attempts.pause_after(error) is not None
        clock.now += 9


# The deadline of the call


def test_a_pause_that_would_pass_the_deadline_is_not_begun() -> None:
    clock = Clock()
    shared = retries(Retry(first_pause=1), clock=clock)
    attempts = Attempts(shared, clock.now + 2.5)
    assert attempts.pause_after(LOST) == 1
    clock.now += 1
    assert attempts.pause_after(LOST) is None
    assert not attempts.past_deadline()
    clock.now += 1.5
    assert attempts.past_deadline()


def test_not_even_an_unseen_request_is_sent_after_the_deadline() -> None:
    clock = Clock()
    assert Attempts(retries(clock=clock), clock.now).pause_after(LOST, unseen=True) is None


# Other servers, uploads


def test_another_server_is_tried_at_once_and_then_with_pauses() -> None:
    attempts = Attempts(retries(Retry(first_pause=1)), None)
    assert [attempts.pause_after(LOST, elsewhere=True) for _ in range(3)] == [0, 2, 4]


def test_an_attempt_that_brought_bytes_forward_is_no_failure() -> None:
    shared = retries(Retry(attempts=2))
    attempts = Attempts(shared, None)
    assert {attempts.pause_after(LOST, forward=True) for _ in range(5000)} == {0}
    assert shared.budget.tokens == shared.retry.tokens
    assert attempts.pause_after(LOST) is not None
    assert shared.budget.tokens == shared.retry.tokens - 1
    attempts.begin_anew()
    assert shared.budget.tokens == shared.retry.tokens
    assert attempts.pause_after(LOST) is not None
    assert attempts.pause_after(LOST) is None


# The budget


def test_failures_use_up_the_budget_and_successes_refill_it() -> None:
    budget = RetryBudget(Retry(tokens=10, ratio=0.5))
    for _ in range(4):
        budget.failed()
    assert not budget.spent
    budget.failed()
    assert budget.spent
    budget.succeeded()
    assert (budget.tokens, budget.spent) == (5.5, False)
    for _ in range(100):
        budget.succeeded()
    assert budget.tokens == 10
    for _ in range(100):
        budget.failed()
    assert budget.tokens == 0


def test_requests_that_were_lost_together_are_one_failure() -> None:
    budget = RetryBudget(Retry(tokens=10))
    first, second = object(), object()
    for loss in (first, first, first, second, second):
        budget.failed(loss)
    assert budget.tokens == 8


def test_half_of_the_budget_is_not_for_retries() -> None:
    shared = retries(Retry(attempts=1000, tokens=10))
    assert len(pauses(LOST, shared)) == 4
    assert pauses(LOST, shared) == []
    for _ in range(30):
        shared.succeeded()
    assert len(pauses(LOST, shared)) > 0


# The settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("attempts", 0), ("attempts", 1001), ("attempts", 2.0), ("attempts", True)),
        *(("first_pause", -1), ("longest_pause", float("nan")), ("patience", float("inf")), ("tokens", -0.1)),
        *(("ratio", -1), ("ratio", 3e9)),
    ],
)
def test_impossible_settings_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: must be a .*number from"):
        Retry(**{name: value})  # type: ignore[arg-type]


# The text of the error


def test_the_error_says_how_many_attempts_were_made() -> None:
    assert with_attempts(LOST, 1) is LOST
    told = with_attempts(LOST, 3)
    assert (type(told), str(told), told.attempts) == (
        *(ConnectionLost, "the connection was lost (after 3 attempts)", 3),
    )
    assert str(LOST) == "the connection was lost"


def test_a_refusal_keeps_its_fields() -> None:
    told = with_attempts(Busy("full", retry_after_ms=70), 2)
    assert isinstance(told, Busy)
    assert (told.message, told.retry_after_ms, str(told)) == ("full (after 2 attempts)", 70, told.message)


def test_the_error_before_is_told_where_that_says_more() -> None:
    told = with_attempts(ClientTimeout("it took too long"), 2, Busy("full"))
    assert str(told) == "it took too long (after 2 attempts; the one before the last: full)"
