"""The pid file: who has it, what is left over, and what is never touched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vipsrv.errors import StartFailed
from vipsrv.server.pid_file import LastReload, NoServer, PidFile, find_server, read_last_reload, reloads_of

AS_VIPSRV = """
import sys
from pathlib import Path
from vipsrv.server.pid_file import PidFile
file = PidFile.create(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


def holder(path: Path) -> "subprocess.Popen[str]":
    """Another process that has a pid file, until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", AS_VIPSRV, str(path), "vipsrv"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_server_is_found_as_long_as_it_has_the_file(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with pytest.raises(NoServer, match="no server runs"):
        find_server(path)
    with holder(path) as other:
        assert path.read_text() == f"{other.pid}\n"
        assert find_server(path) == other.pid
        other.kill()
    assert path.exists()
    with pytest.raises(NoServer, match="left by one that was killed"):
        find_server(path)


def test_a_leftover_is_taken_over_and_the_file_of_a_live_server_is_not(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{os.getppid()}\n")
    with holder(path) as other:
        with pytest.raises(StartFailed, match=rf"another server runs with {path} \(process {other.pid}\)"):
            PidFile.create(path)
        assert find_server(path) == other.pid
        other.kill()
    own = PidFile.create(path)
    assert path.read_text() == f"{os.getpid()}\n"
    own.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_successor_replaces_the_file_and_the_predecessor_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    first = PidFile.create(path)
    with pytest.raises(StartFailed):
        PidFile.create(path)
    second = PidFile.create(path, take_over=True)
    assert not path.samefile(f"{path}.next")  # that of the first, until the second one serves
    second.publish()
    second.note_reload(LastReload(1.0, taken_over=True, lines=("of the second",)))
    first.note_reload(LastReload(2.0, taken_over=True, lines=("of the first",)))
    first.remove()
    assert path.read_text() == f"{os.getpid()}\n"
    last = read_last_reload(path)
    assert last is not None
    assert last.lines == ("of the second",)
    second.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_takes_over_and_fails_leaves_the_file_of_the_other(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    first = PidFile.create(path)
    PidFile.create(path, take_over=True).remove()
    first.note_reload(LastReload(1.0, taken_over=True, lines=("of the first",)))
    assert path.read_text() == f"{os.getpid()}\n"
    assert read_last_reload(path) is not None
    first.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_pid_file_is_left_as_it_is(tmp_path: Path) -> None:
    path, link = tmp_path / "precious", tmp_path / "link"
    path.write_text("precious")
    link.symlink_to(path)
    with pytest.raises(StartFailed, match="is no pid file"):
        PidFile.create(path)
    with pytest.raises(StartFailed, match="cannot be written: Too many levels of symbolic links"):
        PidFile.create(link)
    with pytest.raises(StartFailed, match="cannot be written: No such file or directory"):
        PidFile.create(tmp_path / "none" / "pid")
    assert path.read_text() == "precious"


def test_the_number_of_a_foreign_process_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with (
        holder(path) as other,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as foreign,
    ):
        path.write_text(f"{foreign.pid}\n")
        with pytest.raises(NoServer, match="names no process of vipsrv here"):
            find_server(path)
        other.kill()
        foreign.kill()


def test_how_the_last_reload_went(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    own = PidFile.create(path)
    assert read_last_reload(path) is None
    for reload in (
        LastReload(1.5, taken_over=False, lines=("a longer line than the next", "ü")),
        LastReload(2.5, taken_over=True, lines=()),
    ):
        own.note_reload(reload)
        assert read_last_reload(path) == reload
    own.note_reload(LastReload(3.5, taken_over=False, lines=("x" * 10_000,) * 1000))
    assert reloads_of(path).stat().st_size < 50_000
    own.remove()


def test_a_line_that_is_being_written_is_no_reload(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    for text in ("", '{"began": 1', '{"began": 1}\n', "[]\n"):
        reloads_of(path).write_text(text)
        assert read_last_reload(path) is None
