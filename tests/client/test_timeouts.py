"""``Timeout``, the seconds that a client waits for each step."""

import threading

import pytest

from tests.client.conftest import MakeClient, Serve
from tests.client.fake_server import every
from vipsrv.client import Timeout
from vipsrv.client.timeouts import MAX_SECONDS


def test_its_repr_can_be_evaluated() -> None:
    timeout = Timeout(connect=1.5, reply=None)
    assert repr(timeout) == "Timeout(connect=1.5, send=60.0, reply=None, ping=1.5, call=None)"
    assert eval(repr(timeout)) == timeout  # noqa: S307 - a text of ours


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), 1e12, MAX_SECONDS + 1])
@pytest.mark.parametrize("step", ["connect", "send", "reply", "ping"])
def test_invalid_seconds(step: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"{step}: must be more than 0 and at most 2147483 seconds, or None"):
        Timeout(**{step: seconds})


def test_the_longest_timeout_can_be_used(make_client: MakeClient, serve: Serve) -> None:
    longest = Timeout(connect=MAX_SECONDS, send=MAX_SECONDS, reply=MAX_SECONDS)
    server = serve(every)
    assert make_client(port=server.port, timeout=longest).call("resize", b"image", width=8, height=6)
    assert threading.TIMEOUT_MAX > MAX_SECONDS
