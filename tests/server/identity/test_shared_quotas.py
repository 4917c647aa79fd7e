"""Limits of identities that several gateways hold together."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from vipsrv.errors import Busy
from vipsrv.server.identity import shared_quotas
from vipsrv.server.identity.identity import Identity, IdentityLimits
from vipsrv.server.identity.shared_quotas import SharedQuotas, create_table
from vipsrv.server.identity.usage import Usage

NOW = 1000.0


@pytest.fixture
def table() -> Iterator[int]:
    descriptor = create_table(2)
    yield descriptor
    os.close(descriptor)


def shop(**limits: object) -> Identity:
    return Identity("shop", IdentityLimits.from_table(limits))


def usages(table: int, identity: Identity) -> list[Usage]:
    """The usage of an identity at each of two gateways."""
    return [
        Usage(identity, SharedQuotas(table, 2, gateway).record(identity.name), NOW) for gateway in range(2)
    ]


def admitted(usages: list[Usage], seconds: float, a_second: int) -> int:
    """How many of the requests are admitted that are sent to the gateways in turns."""
    count = 0
    for number in range(int(seconds * a_second)):
        usage = usages[number % len(usages)]
        try:
            usage.admit(1, NOW + number / a_second)
        except Busy:
            continue
        usage.done()
        count += 1
    return count


@pytest.mark.parametrize("used", [slice(0, 1), slice(0, 2)])
def test_a_rate_is_that_of_all_gateways_together_and_of_one_alone(table: int, used: slice) -> None:
    both = usages(table, shop(requests_per_second=10))
    assert admitted(both[used], seconds=5, a_second=1000) == 10 + 49  # the burst, and the rate for 4.999 s


def test_bytes_that_one_gateway_has_admitted_count_at_the_other(table: int) -> None:
    first, second = usages(table, shop(bytes_per_second=1000))
    first.admit(1000, NOW)
    with pytest.raises(Busy, match="more than 1,000 bytes a second"):
        second.admit(1, NOW)
    second.admit(500, NOW + 0.5)


def test_requests_in_flight_count_at_all_gateways(table: int) -> None:
    first, second = usages(table, shop(in_flight=2))
    first.admit(1, NOW)
    second.admit(1, NOW)
    for usage in (first, second):
        with pytest.raises(Busy, match="has 2 requests in flight"):
            usage.admit(1, NOW)
    second.done()
    first.admit(1, NOW)


def test_what_a_gateway_had_in_flight_ends_with_it(table: int) -> None:
    first, second = usages(table, shop(in_flight=2))
    first.admit(1, NOW)
    second.admit(1, NOW)
    SharedQuotas(table, 2, 0).clear_in_flight()
    second.admit(1, NOW)
    with pytest.raises(Busy):
        second.admit(1, NOW)


def test_a_changed_rate_is_converted_once(table: int) -> None:
    slow, fast = shop(requests_per_second=0.1), shop(requests_per_second=10)
    first, second = usages(table, slow)
    first.admit(1, NOW)  # the next one may come after 10 seconds
    for usage in (first, second):
        usage.renew(fast, NOW)
    # One request is owed, which takes 0.1 s at the new rate, of a burst of ten.
    for _ in range(9):
        second.admit(1, NOW)
    with pytest.raises(Busy):
        second.admit(1, NOW)


def test_identities_do_not_share_a_record(table: int) -> None:
    quotas = SharedQuotas(table, 2, 0)
    for number in range(1000):
        record = quotas.record(f"name-{number}")
        assert record is not None
        record.requests[0] = float(number)
    again = SharedQuotas(table, 2, 1)
    for number in range(1000):
        record = again.record(f"name-{number}")
        assert record is not None
        assert record.requests[0] == number


def test_a_full_table_is_told_once(
    table: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keys = iter([1, 1 + shared_quotas.MOST_IDENTITIES, 1 + 2 * shared_quotas.MOST_IDENTITIES])
    monkeypatch.setattr(shared_quotas, "_PROBES", 1)
    monkeypatch.setattr(shared_quotas, "_key", lambda _: next(keys))
    quotas = SharedQuotas(table, 2, 0)
    assert quotas.record("one") is not None
    assert quotas.record("two") is None
    assert quotas.record("three") is None
    assert caplog.text.count("the limits of further identities hold for each gateway by itself") == 1


def test_another_process_sees_what_was_taken(table: int) -> None:
    usage = usages(table, shop(requests_per_second=10))[0]
    for _ in range(10):
        usage.admit(1, NOW)
    code = (
        "import sys; from tests.server.identity import test_shared_quotas as t;"
        "print(t.admitted(t.usages(int(sys.argv[1]), t.shop(requests_per_second=10))[1:], 1, 100))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(table)],
        pass_fds=[table],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "9"  # from 0.1 s on one each 0.1 s
