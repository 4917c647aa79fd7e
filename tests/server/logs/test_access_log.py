"""Which requests get a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.logs.lines import full_line, request_line
from vipsrv.errors import BadRequest, Busy, DeadlineExceeded, InternalError, RequestError, WorkerDied
from vipsrv.server.logs.access_log import AccessLog
from vipsrv.server.logs.log_file import LogFile
from vipsrv.server.logs.log_queue import LogQueue, LogTarget
from vipsrv.server.logs.log_rate import MOST_A_SECOND
from vipsrv.server.logs.rendering import json_renderer
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.server.settings import ServerSettings


class Log:
    """An access log whose lines the test reads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        file = LogFile(path)
        self._queue = LogQueue(LogTarget(file.descriptor, json_renderer(), file))

    def of(self, **settings: Any) -> AccessLog:
        return AccessLog(self._queue, ServerSettings(**settings))

    def close(self) -> list[dict[str, Any]]:
        """What was written."""
        self._queue.close()
        return [json.loads(line) for line in self._path.read_text().splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")


def failure(error: RequestError, host: str = "192.0.2.1") -> RequestLine:
    return full_line(error=error, peer=(host, 1))


@pytest.mark.parametrize(
    ("mode", "level", "written"),
    [
        ("all", "debug", ["ping 200", "resize 200", "resize 400", "resize 504", "resize 500", "resize lost"]),
        ("all", "info", ["resize 200", "resize 400", "resize 504", "resize 500", "resize lost"]),
        ("all", "warning", ["resize 504", "resize 500"]),
        ("errors", "debug", ["resize 400", "resize 504", "resize 500", "resize lost"]),
        ("errors", "error", ["resize 500"]),
        ("off", "debug", ["resize 500"]),
    ],
)
def test_mode_and_level(log: Log, mode: str, level: str, written: list[str]) -> None:
    access_log = log.of(access_log=mode, log_level=level)
    access_log.log(request_line())
    access_log.log(full_line())
    for error in (BadRequest("a"), DeadlineExceeded("b"), InternalError("c")):
        access_log.log(failure(error))
    access_log.log(full_line(lost="the client disconnected"))
    lines = log.close()
    assert [f"{line['kind']} {'lost' if 'lost' in line else line['status']}" for line in lines] == written
    assert all(line["time"] > "2026" for line in lines)


@pytest.mark.parametrize(
    ("line", "level"),
    [
        (request_line(), "debug"),
        (full_line(), "info"),
        (failure(BadRequest("a")), "info"),
        (failure(Busy("a")), "info"),
        (failure(WorkerDied("a")), "warning"),
        (failure(DeadlineExceeded("a")), "warning"),
        (failure(InternalError("a")), "error"),
        (request_line(lost="the client disconnected"), "info"),
    ],
)
def test_the_level_is_by_the_status(line: RequestLine, level: str) -> None:
    assert line.level == level


def test_successes_are_never_left_out(log: Log) -> None:
    access_log = log.of()
    for _ in range(MOST_A_SECOND * 20):
        access_log.log(full_line())
    assert len(log.close()) == MOST_A_SECOND * 20


def test_a_sample_of_the_successes_has_every_error(log: Log) -> None:
    access_log = log.of(access_log_sample=10)
    for _ in range(30):
        access_log.log(full_line())
    access_log.log(failure(BadRequest("a")))
    assert [(line["status"], line.get("sample")) for line in log.close()] == [
        (200, 10),
        (200, 10),
        (200, 10),
        (400, None),
    ]


def test_a_flood_of_refusals_is_one_line_and_a_count_for_each_address(log: Log) -> None:
    access_log = log.of()
    for _ in range(698):
        access_log.log(failure(Busy("the queue is full"), "192.0.2.1"))
    access_log.log(failure(Busy("the queue is full"), "192.0.2.2"))
    first, second, count = log.close()
    assert (first["peer"], second["peer"]) == ("192.0.2.1:1", "192.0.2.2:1")
    assert count["event"] == "697 more lines were left out: 429 busy of 192.0.2.1"
    assert (count["level"], count["logger"], count["left_out"]) == ("info", "vipsrv.request", 697)


def test_other_errors_have_some_lines_before_they_are_counted(log: Log) -> None:
    access_log = log.of()
    for _ in range(MOST_A_SECOND + 5):
        access_log.log(failure(BadRequest("a")))
    lines = log.close()
    assert [line["event"] for line in lines[:-1]] == ["request"] * MOST_A_SECOND
    assert lines[-1]["left_out"] == 5


@pytest.mark.parametrize(
    ("mode", "level", "follows"),
    [
        ("all", "info", True),
        ("errors", "debug", True),
        ("all", "warning", False),
        ("off", "debug", False),
    ],
)
def test_successes_are_followed_only_if_they_may_get_a_line(
    log: Log,
    mode: str,
    level: str,
    follows: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert log.of(access_log=mode, log_level=level).follows_successes is follows


def test_settings_can_change(log: Log) -> None:
    access_log = log.of()
    access_log.log(full_line(request_id=1))
    access_log.configure(ServerSettings(access_log="errors"))
    access_log.log(full_line(request_id=2))
    assert [line["id"] for line in log.close()] == [1]


def test_connections_are_numbered() -> None:
    access_log = AccessLog()
    assert [access_log.next_connection() for _ in range(3)] == [1, 2, 3]
    access_log.log(full_line())  # without a queue, nothing happens


def hosts() -> Iterator[str]:
    for number in range(1000):
        yield f"192.0.{number >> 8}.{number & 255}"


def test_a_flood_from_many_addresses_is_bounded(log: Log) -> None:
    access_log = log.of()
    for host in hosts():
        access_log.log(failure(Busy("the queue is full"), host))
    lines = log.close()
    counts = [line for line in lines if "left_out" in line]
    assert len(lines) - len(counts) == 100
    assert [line["event"].partition(": ")[2] for line in counts] == [
        "429 busy of many clients",
        "of many kinds",  # beyond as many as are counted separately
    ]
    assert sum(line.get("left_out", 1) for line in lines) == 1000


def test_the_addresses_of_one_network_count_as_one(log: Log) -> None:
    access_log = log.of()
    for number in range(10):
        access_log.log(failure(Busy("the queue is full"), f"2001:db8::{number}"))
    _, count = log.close()
    assert count["event"] == "9 more lines were left out: 429 busy of 2001:db8::/64"
