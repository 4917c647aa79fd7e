"""The value that holds a client's timeouts."""

import pytest

from vipsrv.client import Timeout


def test_its_repr_makes_it_again() -> None:
    timeout = Timeout(connect=1.5, reply=None)
    assert repr(timeout) == "Timeout(connect=1.5, send=60.0, reply=None)"
    assert eval(repr(timeout)) == timeout  # noqa: S307 - a text of ours


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
@pytest.mark.parametrize("step", ["connect", "send", "reply"])
def test_senseless_seconds(step: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"{step}: must be more than 0 seconds, or None"):
        Timeout(**{step: seconds})
