"""Penalties for failed logins, by the rules of sshd."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipsrv.server.accounts import UNIX_SOCKET, account_key
from vipsrv.server.identity import Penalties

HOST = "192.0.2.1"


def fail(penalties: Penalties, times: int, now: float, host: str = HOST) -> list[bool]:
    return [penalties.failed(host, now) for _ in range(times)]


def test_three_failures_cost_nothing_and_the_fourth_refuses_the_address_for_20_seconds() -> None:
    penalties = Penalties()
    assert fail(penalties, 3, 100.0) == [False] * 3
    assert penalties.until(HOST, 100.0) == 0
    assert fail(penalties, 1, 100.0) == [True]
    assert penalties.until(HOST, 100.0) == 120.0
    assert penalties.until(HOST, 119.9) == 120.0
    assert penalties.until(HOST, 120.0) == 0


def test_a_failure_while_refused_prolongs_the_penalty_and_is_not_news() -> None:
    penalties = Penalties()
    fail(penalties, 4, 0.0)
    assert fail(penalties, 2, 10.0) == [False, False]
    assert penalties.until(HOST, 10.0) == 30.0
    # It stays enforced to its end, even where less than the minimum is left.
    assert penalties.until(HOST, 29.0) == 30.0


def test_after_a_penalty_an_address_begins_anew() -> None:
    penalties = Penalties()
    fail(penalties, 4, 0.0)
    assert fail(penalties, 3, 20.0) == [False] * 3
    assert penalties.until(HOST, 20.0) == 0
    assert fail(penalties, 1, 20.0) == [True]


def test_failures_far_apart_never_add_up() -> None:
    penalties = Penalties()
    for number in range(100):
        assert not penalties.failed(HOST, number * 6.0)
        assert penalties.until(HOST, number * 6.0) == 0


def test_a_penalty_has_a_maximum() -> None:
    penalties = Penalties()
    fail(penalties, 10_000, 50.0)
    assert penalties.until(HOST, 50.0) == 650.0


def test_one_address_does_not_pay_for_another() -> None:
    penalties = Penalties()
    fail(penalties, 10, 0.0)
    assert penalties.until("192.0.2.2", 0.0) == 0


def test_an_ipv6_network_is_one_address() -> None:
    penalties = Penalties()
    for number in range(4):
        penalties.failed(account_key((f"2001:db8::{number}", 1, 0, 0)), 0.0)
    assert penalties.until(account_key(("2001:db8::ffff", 1, 0, 0)), 0.0) == 20.0
    assert penalties.until(account_key(("2001:db8:0:1::", 1, 0, 0)), 0.0) == 0


def test_unix_sockets_have_no_penalty() -> None:
    penalties = Penalties()
    fail(penalties, 100, 0.0, UNIX_SOCKET)
    assert penalties.until(UNIX_SOCKET, 0.0) == 0
    assert len(penalties) == 0


def test_a_full_table_drops_the_penalties_that_end_soonest() -> None:
    penalties = Penalties(addresses=16)
    for number in range(16):
        fail(penalties, 4 + number, 0.0, f"192.0.2.{number}")
    assert len(penalties) == 16
    for number in (98, 99):
        fail(penalties, 6, 0.0, f"192.0.2.{number}")
    assert len(penalties) == 16
    refused = [number for number in range(100) if penalties.until(f"192.0.2.{number}", 0.0)]
    assert refused == [*range(2, 16), 98, 99]


def test_a_full_table_first_drops_penalties_that_are_over() -> None:
    penalties = Penalties(addresses=4)
    for number in range(4):
        fail(penalties, 4 if number else 5, 0.0, f"192.0.2.{number}")
    fail(penalties, 1, 22.0, "192.0.2.99")
    assert len(penalties) == 2
    assert penalties.until("192.0.2.0", 22.0) == 25.0


def test_a_flood_of_longer_and_longer_penalties_stays_within_the_table() -> None:
    penalties = Penalties(addresses=1000)
    for number in range(3000):
        fail(penalties, 2 + number // 1000, 0.0, f"10.0.{number // 250}.{number % 250}")
        assert len(penalties) <= 1000


def test_a_flood_from_ipv6_leaves_the_penalties_of_ipv4() -> None:
    penalties = Penalties(addresses=8)
    fail(penalties, 4, 0.0)
    for number in range(1000):
        fail(penalties, 5, 0.0, account_key((f"2001:db8:0:{number:x}::1", 1, 0, 0)))
    assert penalties.until(HOST, 0.0) == 20.0
    assert len(penalties) <= 9


@given(
    st.lists(st.tuples(st.floats(0, 40), st.integers(0, 20)), max_size=200),
    st.integers(1, 10),
)
def test_the_table_and_every_penalty_are_bounded(failures: list[tuple[float, int]], addresses: int) -> None:
    penalties = Penalties(addresses=addresses, most=60.0)
    now = 0.0
    for pause, number in failures:
        now += pause
        key = f"10.0.0.{number}"
        before = penalties.until(key, now)
        news = penalties.failed(key, now)
        until = penalties.until(key, now)
        assert len(penalties) <= addresses
        assert until == 0 or now < until <= now + 60.0
        assert until >= before  # a failure never shortens it
        assert news == (before == 0 and until > 0)


@pytest.mark.parametrize("key", [HOST, "2001:db8::/64"])
def test_without_failures_nobody_is_refused(key: str) -> None:
    assert Penalties().until(key, 1e9) == 0
