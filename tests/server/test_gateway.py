"""The gateway's own clock."""

import pytest

from vipsrv.server.gateway import check_timeouts


class Watched:
    """Stands for a connection: counts how often its deadlines are checked."""

    watch_at = 0.0

    def __init__(self, error: Exception | None = None) -> None:
        self.checks = 0
        self._error = error

    def watch(self, now: float) -> None:
        assert now > 0
        self.checks += 1
        if self._error is not None:
            raise self._error

    def drain(self) -> None: ...
    def give_way(self) -> bool:
        return False

    def stop(self) -> None: ...
    def abort(self) -> None: ...


def test_a_bug_in_one_connection_does_not_stop_the_clocks_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, broken, last = Watched(), Watched(ZeroDivisionError("a bug")), Watched()
    check_timeouts([first, broken, last], 1.0)
    assert (first.checks, broken.checks, last.checks) == (1, 1, 1)
    assert "a bug" in caplog.text
