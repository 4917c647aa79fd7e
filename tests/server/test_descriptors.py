"""The descriptors that a server needs, held against the limit of open files."""

import logging
import resource
from dataclasses import dataclass

import pytest

from vipsrv.errors import StartFailed
from vipsrv.server.descriptors import (
    EACH_CONNECTION,
    EACH_FILE,
    EACH_FURTHER,
    EACH_LISTENER,
    EACH_WORKER,
    FULLY_COUNTED,
    MOST_USEFUL,
    files_that_fit,
    fit_connections,
    needed,
    raise_limit,
)
from vipsrv.server.settings import ServerSettings

SETTINGS = ServerSettings(workers=4, connections=4096)


def test_connections_workers_and_listeners_add_up() -> None:
    more = ServerSettings(workers=6, connections=4099, listen=("unix:/a", "unix:/b"))
    assert needed(more) - needed(SETTINGS) == 2 * EACH_WORKER + 3 * EACH_FURTHER + EACH_LISTENER


def test_the_first_connections_are_counted_with_a_file_and_a_refused_client() -> None:
    one, all_of_them, more = (
        needed(ServerSettings(workers=4, connections=number))
        for number in (1, FULLY_COUNTED, FULLY_COUNTED + 1)
    )
    assert all_of_them - one == (FULLY_COUNTED - 1) * EACH_CONNECTION
    assert more - all_of_them == EACH_FURTHER


@pytest.mark.parametrize("limit", [None, needed(SETTINGS), MOST_USEFUL])
def test_settings_that_fit_stay_as_they_are(limit: int | None, caplog: pytest.LogCaptureFixture) -> None:
    assert fit_connections(SETTINGS, limit) is SETTINGS
    assert not caplog.text


@pytest.mark.parametrize("missing", [1, EACH_CONNECTION, EACH_CONNECTION + 1, 1000, 3500, 5000])
def test_connections_are_lowered_to_what_fits(missing: int, caplog: pytest.LogCaptureFixture) -> None:
    limit = needed(SETTINGS) - missing
    fitted = fit_connections(SETTINGS, limit)
    assert limit - EACH_CONNECTION < needed(fitted) <= limit
    assert fitted == SETTINGS.model_copy(update={"connections": fitted.connections})
    assert f"--connections is {fitted.connections} instead of 4096: the limit of {limit}" in caplog.text
    assert f" to {needed(SETTINGS)}," in caplog.text


def test_a_limit_that_holds_no_connection_is_refused() -> None:
    least = needed(ServerSettings(workers=4, connections=1))
    assert fit_connections(SETTINGS, least).connections == 1
    with pytest.raises(
        StartFailed, match=f"the limit of {least - 1} open files is too low: .* needs {least},"
    ):
        fit_connections(SETTINGS, least - 1)


def test_files_of_the_spool_leave_all_connections_their_descriptors() -> None:
    limit = needed(SETTINGS)
    assert files_that_fit(SETTINGS, limit) == FULLY_COUNTED
    assert files_that_fit(SETTINGS, limit + 10 * EACH_FILE + 1) == FULLY_COUNTED + 10
    few = ServerSettings(workers=4, connections=3)
    assert files_that_fit(few, needed(few)) == 3
    # Under a limit that is too low for the settings, the files that are counted anyway.
    assert files_that_fit(SETTINGS, 10) == FULLY_COUNTED
    assert files_that_fit(SETTINGS, None) > MOST_USEFUL // EACH_FILE


@dataclass
class FakeLimit:
    """Stands for the kernel's limit of open files. ``allowed`` is the highest soft limit that it accepts."""

    soft: int
    hard: int
    allowed: int

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.soft, self.hard

    def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
        if limits[0] > self.allowed:
            raise ValueError("current limit exceeds maximum limit")
        self.soft, self.hard = limits


@pytest.mark.parametrize(
    ("soft", "hard", "allowed", "raised"),
    [
        (1024, 524_288, 524_288, 524_288),
        (1024, 1024, 1024, 1024),
        (2**30, 2**30, 2**30, MOST_USEFUL),
        (1024, resource.RLIM_INFINITY, 2**40, MOST_USEFUL),
        (256, resource.RLIM_INFINITY, 10_240, 10_240),  # macOS
        (20_000, 30_000, 20_000, 20_000),
    ],
)
def test_the_limit_is_raised_as_far_as_allowed_and_useful(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, allowed: int, raised: int
) -> None:
    limit = FakeLimit(soft, hard, allowed)
    monkeypatch.setattr(resource, "getrlimit", limit.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", limit.setrlimit)
    assert raise_limit() == raised
    assert (limit.soft, limit.hard) == (raised, hard)


def test_a_limit_that_cannot_be_raised_is_only_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limit = FakeLimit(256, resource.RLIM_INFINITY, 0)
    monkeypatch.setattr(resource, "getrlimit", limit.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", limit.setrlimit)
    with caplog.at_level(logging.WARNING):
        assert raise_limit() == 256
    assert "the limit of open files stays as it is" in caplog.text


def test_a_limit_that_cannot_be_read_is_only_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(_: int) -> tuple[int, int]:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(resource, "getrlimit", refused)
    assert raise_limit() is None
    assert "the limit of open files is unknown" in caplog.text
