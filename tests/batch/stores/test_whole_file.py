"""Files that are seen as a whole or not at all."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from vipsrv.batch.stores import whole_file
from vipsrv.batch.stores.whole_file import is_temporary, write_whole

NAMELESS = whole_file._NAMELESS


@pytest.fixture(params=["nameless", "named"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "named":
        monkeypatch.setattr(whole_file, "_NAMELESS", 0)
    kind: str = request.param
    return kind


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("lasting", [False, True])
def test_a_file_is_made_and_replaced(tmp_path: Path, *, lasting: bool) -> None:
    path = tmp_path / "a.jpg"
    for data in (b"first", b"second " * 100_000, b""):
        write_whole(str(path), data, lasting=lasting)
        assert path.read_bytes() == data
        assert os.listdir(tmp_path) == ["a.jpg"]  # noqa: PTH208 - names
    path.unlink()
    previous = os.umask(0o027)
    try:
        write_whole(str(path), b"1", lasting=lasting)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.usefixtures("way")
def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "a").symlink_to(tmp_path / "other")
    write_whole(str(tmp_path / "a"), b"new", lasting=False)
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "other").read_bytes() == b"other"


@pytest.mark.usefixtures("way")
def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(str(tmp_path / "folder"), b"1", lasting=False)
    with pytest.raises(FileNotFoundError):
        write_whole(str(tmp_path / "nothing/a"), b"1", lasting=False)
    with pytest.raises(OSError, match="too long"):
        write_whole(str(tmp_path / ("n" * 256)), b"1", lasting=False)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            write_whole(str(tmp_path / "a"), b"1", lasting=False)
    assert os.listdir(tmp_path) == ["folder"]  # noqa: PTH208 - names


def test_a_file_system_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open
    tried: list[str | Path] = []

    def refuses(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if NAMELESS and flags & NAMELESS == NAMELESS:
            tried.append(path)
            raise OSError(95, "Operation not supported")
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", refuses)
    write_whole(str(tmp_path / "a"), b"1", lasting=True)
    assert (tmp_path / "a").read_bytes() == b"1"
    assert tried == ([str(tmp_path)] if NAMELESS else [])


WRITES_UNTIL_KILLED = """
import sys
from pathlib import Path
from vipsrv.batch.stores.whole_file import write_whole
number = 0
while True:
    write_whole(str(Path(sys.argv[1], f"{number % 50}.jpg")), b"x" * 300_000, lasting=False)
    number += 1
    print(flush=True)
"""


def test_a_killed_process_leaves_whole_files(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITES_UNTIL_KILLED, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(70):  # some are replaced
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    files = [path for path in tmp_path.iterdir() if not is_temporary(path.name)]
    assert len(files) == 50
    assert {path.stat().st_size for path in files} == {300_000}
