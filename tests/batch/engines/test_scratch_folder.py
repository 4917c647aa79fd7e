"""The folder of one process: private, removed at its end, and by the next process if it was killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from vipsrv.batch.engines.scratch_folder import scratch_folder

HOLD = """
import sys
from pathlib import Path
from vipsrv.batch.engines import scratch_folder as module
module._parent = lambda: Path(sys.argv[1])
with module.scratch_folder() as folder:
    (folder / "log").write_text("something")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("vipsrv.batch.engines.scratch_folder._parent", lambda: tmp_path)
    return tmp_path


def test_it_is_private_and_goes_with_its_block(parent: Path) -> None:
    with scratch_folder() as folder:
        assert folder.parent == parent
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "sub").mkdir()
    assert not list(parent.iterdir())


def test_two_at_a_time_leave_each_other_alone(parent: Path) -> None:
    with scratch_folder() as first, scratch_folder() as second:
        assert first != second
        assert first.is_dir()
    assert not list(parent.iterdir())


def test_the_next_process_removes_what_a_killed_one_has_left(parent: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with scratch_folder():
            assert (left / "log").exists()  # its process lives
        process.kill()
    with scratch_folder() as folder:
        assert list(parent.iterdir()) == [folder]
