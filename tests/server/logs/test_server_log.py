"""The log of a process: its file, and what a reload changes."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from tests.server.logs.lines import full_line
from tests.support.running_server import wait_until
from vipsrv.errors import SettingsError
from vipsrv.server.logs.server_log import ServerLog
from vipsrv.server.settings import ServerSettings

_log = logging.getLogger("tests.of.the.log")


def events(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


def settings(path: Path, **others: Any) -> ServerSettings:
    return ServerSettings(log_file=path, **others)


def test_lines_are_appended_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for event in ("one", "two"):
        with ServerLog(settings(path)):
            _log.info(event)
    assert events(path) == ["one", "two"]
    assert path.stat().st_mode & 0o007 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_that_root_creates_belongs_to_the_user_of_the_server(tmp_path: Path) -> None:
    path, before = tmp_path / "log", tmp_path / "before"
    with ServerLog(settings(path, user="65534")):
        pass
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)
    before.touch()
    with ServerLog(settings(before, user="65534")):
        pass
    assert before.stat().st_uid == 0


def test_a_file_that_was_renamed_is_opened_again(tmp_path: Path) -> None:
    path, old = tmp_path / "log", tmp_path / "log.1"
    with ServerLog(settings(path)) as log:
        _log.info("before")
        wait_until(lambda: "before" in path.read_text(), "the line")
        path.rename(old)
        _log.info("between")
        wait_until(lambda: "between" in old.read_text(), "the line")
        log.prepare_reload(settings(path))()
        _log.info("after")
        log.requests.log(full_line())
        wait_until(lambda: _open_files(old) == 0, "the end of the old file")
    assert events(old) == ["before", "between"]
    assert events(path) == ["after", "request"]
    assert _open_files(path) == 0


def test_a_reload_changes_level_form_and_requests(tmp_path: Path) -> None:
    path, other = tmp_path / "log", tmp_path / "other"
    with ServerLog(settings(path)) as log:
        _log.debug("not written")
        changed = settings(other, log_level="debug", log_format="console", access_log="errors")
        log.prepare_reload(changed)()
        _log.debug("written")
        log.requests.log(full_line())
    assert path.read_text() == ""
    assert other.read_text().endswith(" [debug    ] written [tests.of.the.log]\n")


def test_a_file_that_cannot_be_opened_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    path, missing = tmp_path / "log", tmp_path / "missing" / "log"
    with pytest.raises(SettingsError, match=f"^log_file: {missing} cannot be opened: No such file"):
        ServerLog(settings(missing))
    with ServerLog(settings(path)) as log:
        with pytest.raises(SettingsError, match="No such file"):
            log.prepare_reload(settings(missing, log_level="error"))
        _log.info("still here")
    assert events(path) == ["still here"]


def test_a_reload_that_another_part_refuses_leaves_no_file_open(tmp_path: Path) -> None:
    path, other = tmp_path / "log", tmp_path / "other"
    with ServerLog(settings(path)) as log:
        take_over = log.prepare_reload(settings(other))
        assert _open_files(other) == 1
        del take_over
        assert _open_files(other) == 0
        _log.info("still here")
    assert events(path) == ["still here"]


def test_a_pipe_that_nobody_reads_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SettingsError, match="No such device or address"):
        ServerLog(settings(pipe))


def _open_files(path: Path) -> int:
    """How many descriptors of this process refer to a file."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            found += link.readlink() == path
        except FileNotFoundError:  # the descriptor of the folder itself
            continue
    return found
