"""``Timeout``, the seconds that a client waits for each step."""

import threading

import pytest

from tests.client.conftest import MakeClient, Serve
from tests.client.fake_server import every
from vipsrv.client import Timeout
from vipsrv.client.timeouts import MAX_SECONDS


def test_its_repr_can_be_evaluated() -> None:
    timeout = Timeout(connect=1.5, reply=None)
    assert repr(timeout) == "Timeout(connect=1.5, send=60.0, reply=None, ping='auto', call=None)"
    assert eval(repr(timeout)) == timeout  # noqa: S307 - a text of ours


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), 1e12, MAX_SECONDS + 1])
@pytest.mark.parametrize("step", ["connect", "send", "reply", "ping"])
def test_invalid_seconds(step: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"{step}: must be more than 0 and at most 2147483 seconds, or None"):
        Timeout(**{step: seconds})


def test_by_default_a_server_is_asked_for_as_long_as_others_are_there() -> None:
    timeout = Timeout(connect=3.0)
    decided = [timeout.decided(several=several, sends_again=True) for several in (True, False)]
    assert decided == [Timeout(connect=3.0, ping=1.5), Timeout(connect=3.0, ping=5.0)]
    assert timeout.decided(several=True, sends_again=False) == Timeout(connect=3.0, ping=None)


@pytest.mark.parametrize("ping", [0.3, None])
def test_a_given_ping_stays(ping: float | None) -> None:
    timeout = Timeout(ping=ping)
    assert timeout.decided(several=True, sends_again=False) == timeout


def test_the_longest_timeout_can_be_used(make_client: MakeClient, serve: Serve) -> None:
    longest = Timeout(connect=MAX_SECONDS, send=MAX_SECONDS, reply=MAX_SECONDS)
    server = serve(every)
    assert make_client(port=server.port, timeout=longest).call("resize", b"image", width=8, height=6)
    assert threading.TIMEOUT_MAX > MAX_SECONDS
