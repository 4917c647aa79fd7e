"""The limits of an identity: rates by GCRA, requests in flight."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipsrv.errors import Busy, Limit
from vipsrv.server.identity import Identity, IdentityLimits, Usage
from vipsrv.server.identity.usage import Gcra

SLACK = 1e-6
"""Of the rounding of floats, relative."""

RATES = st.floats(0.01, 1e9)
# Seconds between two requests, and units of each.
ARRIVALS = st.lists(
    st.tuples(st.one_of(st.just(0.0), st.floats(0, 5)), st.one_of(st.integers(0, 10), st.floats(0, 1e9))),
    max_size=60,
)


def usage(**limits: float) -> Usage:
    return Usage(Identity("shop", IdentityLimits.from_table(limits)))


def admitted(
    limit: Gcra, arrivals: list[tuple[float, float]], start: float = 1000.0
) -> list[tuple[float, float]]:
    """The arrivals that a limit admits, each with its time."""
    now, taken = start, []
    for pause, units in arrivals:
        now += pause
        if not limit.wait(units, now):
            limit.take(units, now)
            taken.append((now, units))
    return taken


@given(RATES, st.floats(1, 1e9), ARRIVALS)
def test_no_span_of_time_has_more_than_the_rate_times_its_length_plus_a_burst(
    rate: float, burst: float, arrivals: list[tuple[float, float]]
) -> None:
    taken = admitted(Gcra(rate, burst), arrivals)
    for first, (begin, _) in enumerate(taken):
        total, largest = Fraction(0), 0.0
        for end, units in taken[first:]:
            total += Fraction(units)
            largest = max(largest, units)
            most = rate * (end - begin) + max(burst, largest)
            assert total <= most * (1 + SLACK) + rate * SLACK


@given(RATES, st.floats(1, 100), st.lists(st.floats(0, 5), max_size=60))
def test_single_requests_never_exceed_the_rate_times_the_time_plus_the_burst(
    rate: float, burst: float, pauses: list[float]
) -> None:
    taken = admitted(Gcra(rate, burst), [(pause, 1.0) for pause in pauses])
    for first, (begin, _) in enumerate(taken):
        for last in range(first, len(taken)):
            most = rate * (taken[last][0] - begin) + burst
            assert last - first + 1 <= most * (1 + SLACK) + rate * SLACK


@given(RATES, st.floats(1, 1e6), ARRIVALS, st.floats(0, 1e6), st.floats(0, 100), st.floats(0, 1))
def test_later_or_fewer_never_waits_longer(
    rate: float, burst: float, arrivals: list[tuple[float, float]], units: float, later: float, part: float
) -> None:
    limit = Gcra(rate, burst)
    taken = admitted(limit, arrivals)
    now = taken[-1][0] if taken else 1000.0
    wait = limit.wait(units, now)
    assert limit.wait(units, now + later) <= wait
    assert limit.wait(units * part, now) <= wait
    # After the wait it is admitted, but for the rounding of floats.
    assert limit.wait(units, now + wait) <= SLACK * (1 + wait)


@given(RATES, st.floats(1, 1e6), ARRIVALS)
def test_a_refusal_costs_nothing(rate: float, burst: float, arrivals: list[tuple[float, float]]) -> None:
    asked, quiet = Gcra(rate, burst), Gcra(rate, burst)
    taken = admitted(asked, arrivals)
    for now, units in taken:
        assert not quiet.wait(units, now)
        quiet.take(units, now)
    now = taken[-1][0] if taken else 0.0
    assert asked.wait(1, now) == quiet.wait(1, now)


def test_a_burst_after_a_pause_and_the_rate_afterwards() -> None:
    limit = Gcra(rate=10, burst=5)
    now = 100.0
    for _ in range(5):
        assert not limit.wait(1, now)
        limit.take(1, now)
    assert limit.wait(1, now) == pytest.approx(0.1)
    assert limit.wait(3, now) == pytest.approx(0.3)
    assert not limit.wait(1, now + 0.1001)


def test_more_than_a_burst_is_admitted_after_a_pause_and_paid_for_afterwards() -> None:
    limit = Gcra(rate=10, burst=5)
    assert not limit.wait(100, 0.0)
    limit.take(100, 0.0)
    assert limit.wait(1, 0.0) == pytest.approx(10 - 0.5 + 0.1)
    assert limit.wait(100, 0.0) == pytest.approx(10)
    assert not limit.wait(100, 10.0001)


def test_an_identity_without_limits_is_never_busy() -> None:
    unlimited = usage()
    for _ in range(1000):
        unlimited.admit(2**40, 0.0)
    assert unlimited.in_flight == 1000


def test_a_second_of_requests_may_come_at_once_but_always_one() -> None:
    for rate, at_once in ((20, 20), (1, 1), (0.01, 1)):
        limited = usage(requests_per_second=rate)
        for _ in range(at_once):
            limited.admit(0, 50.0)
        with pytest.raises(Busy) as refused:
            limited.admit(0, 50.0)
        assert refused.value.message == f"shop sends more than {rate} requests a second; try again later"
        assert refused.value.limit is Limit.TOKEN_REQUESTS
        assert refused.value.retry_after_ms is not None
        limited.admit(0, 50.0 + refused.value.retry_after_ms / 1000)


def test_the_time_to_try_again_is_that_of_the_rate() -> None:
    limited = usage(requests_per_second=0.1)
    limited.admit(0, 0.0)
    with pytest.raises(Busy) as refused:
        limited.admit(0, 4.0)
    assert refused.value.retry_after_ms == pytest.approx(6000, abs=1)


def test_bytes_are_those_of_uploads() -> None:
    limited = usage(bytes_per_second=1_000_000)
    limited.admit(600_000, 0.0)
    with pytest.raises(Busy, match="shop sends more than 1,000,000 bytes a second") as refused:
        limited.admit(600_000, 0.0)
    assert refused.value.retry_after_ms == pytest.approx(200, abs=1)
    assert refused.value.limit is Limit.TOKEN_BYTES
    limited.admit(400_000, 0.0)
    limited.admit(5_000_000, 1.0)  # more than a burst
    with pytest.raises(Busy):
        limited.admit(1, 5.0)
    limited.admit(1, 5.001)


def test_a_request_that_one_limit_refuses_counts_for_none() -> None:
    limited = usage(requests_per_second=2, bytes_per_second=1000)
    limited.admit(1000, 0.0)
    for _ in range(10):
        with pytest.raises(Busy, match="bytes a second"):
            limited.admit(1000, 0.0)
    limited.admit(0, 0.0)  # the second request of this second
    with pytest.raises(Busy, match="requests a second"):
        limited.admit(0, 0.0)
    assert limited.in_flight == 2


def test_requests_in_flight() -> None:
    limited = usage(in_flight=2)
    limited.admit(1, 0.0)
    limited.admit(1, 0.0)
    with pytest.raises(Busy, match="shop has 2 requests in flight, as many as it may have") as refused:
        limited.admit(1, 0.0)
    assert refused.value.retry_after_ms == 100
    assert refused.value.limit is Limit.TOKEN_IN_FLIGHT
    limited.done()
    limited.admit(1, 0.0)


def test_a_changed_rate_keeps_what_was_used() -> None:
    limited = usage(requests_per_second=10)
    for _ in range(10):
        limited.admit(1, 0.0)
    limited.renew(Identity("shop", IdentityLimits(requests_per_second=20)), 0.0)
    for _ in range(10):  # a burst of 20, of which 10 are used
        limited.admit(1, 0.0)
    with pytest.raises(Busy, match="more than 20 requests"):
        limited.admit(1, 0.0)
    limited.renew(Identity("shop", IdentityLimits(requests_per_second=1)), 0.0)
    with pytest.raises(Busy) as refused:
        limited.admit(1, 0.0)
    assert refused.value.retry_after_ms == pytest.approx(20_000, abs=1)
    limited.renew(Identity("shop"), 0.0)
    limited.admit(1, 0.0)
    assert limited.identity == Identity("shop")
