"""The least mean rate of a message."""

from vipsrv.server.connections.pace import GRACE_SECONDS, Pace
from vipsrv.server.settings import ServerSettings


def test_each_piece_gives_as_many_seconds_as_the_rate_allows() -> None:
    pace = Pace("message", 10, now=100)
    end = 100 + GRACE_SECONDS
    assert not pace.is_too_slow(end, 0)
    assert not pace.is_too_slow(end + 10, 100)
    assert pace.is_too_slow(end + 10.1, 100)
    assert not pace.is_too_slow(end + 10.1, 101)


def test_the_time_in_which_the_client_could_not_go_on_is_not_counted() -> None:
    pace = Pace("message", 10, now=0)
    assert not pace.is_too_slow(GRACE_SECONDS, 0)
    assert not pace.is_too_slow(5 * GRACE_SECONDS, 0, waits_for_us=True)
    assert not pace.is_too_slow(5 * GRACE_SECONDS, 0)
    assert pace.is_too_slow(5 * GRACE_SECONDS + 0.1, 0)


def test_a_rate_of_zero_allows_any() -> None:
    assert not Pace("message", 0, now=0).is_too_slow(1e9, 1)


def test_the_setting_tells_the_grace() -> None:
    description = ServerSettings.model_fields["min_rate"].description or ""
    assert f"after the first {GRACE_SECONDS / 60:g} minutes" in description
