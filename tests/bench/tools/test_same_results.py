"""Two servers of the same tree give the same results; every kind of difference between two is reported."""

import shutil
import sys
from pathlib import Path

import pytest
import typer

from bench import ROOT
from bench.tools import same_results
from bench.tools.same_results import Answer, Client, compare, files_of, old_python
from tests.bench.tools.fakes import FakeServer, right


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "image.jpg").write_bytes(right(40, 30)[4:])
    (folder / "garbage.png").write_bytes(b"not an image")
    (folder / "empty.gif").write_bytes(b"")
    (folder / "notes.txt").write_bytes(b"left out")
    return folder


def test_the_same_tree_gives_the_same_results(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        same_results.main(ROOT, [images], excluded=["*.txt"], python=sys.executable)
    requests = len(same_results.REQUESTS)
    assert capsys.readouterr().out == f"2 files: {2 * requests} replies the same, 0 different\n"
    assert ended.value.exit_code == 0


def test_the_old_server_runs_the_code_of_its_checkout(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "vipsrv", checkout / "vipsrv", ignore=shutil.ignore_patterns("__pycache__"))
    version = checkout / "vipsrv" / "worker_config.py"
    text = version.read_text()
    assert "_declare(85," in text
    version.write_text(text.replace("_declare(85,", "_declare(40,"))
    with pytest.raises(typer.Exit) as ended:
        same_results.main(checkout, [images], excluded=["*.txt"], only=["fill jpeg", "info"])
    assert ended.value.exit_code == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"{images / 'image.jpg'}: fill jpeg: old 200, ")
    assert printed[1:] == ["2 files: 3 replies the same, 1 different"]


def test_a_difference_in_the_bytes_is_reported(images: Path) -> None:
    other = right(8, 9)
    with FakeServer(right) as old, FakeServer(lambda *_: other, lambda *_: other) as new:
        clients = Client(old.port), Client(new.port)
        ((name, difference),) = compare(images / "image.jpg", clients, ["version 1"])
    assert name == "version 1"
    assert difference.endswith(f"new 200, {len(other) - 4} bytes")


@pytest.mark.parametrize(
    ("old", "new", "differ"),
    [
        (Answer(200, "", "{}", b"a"), Answer(200, "", "{}", b"a"), "no"),
        (Answer(200, "", "{}", b"a"), Answer(200, "", "{}", b"b"), "yes"),
        (Answer(200, "", '{"width": 1}', b"a"), Answer(200, "", '{"width": 2}', b"a"), "yes"),
        (Answer(413, "too_large", "", b""), Answer(413, "too_large", "", b""), "no"),
        (Answer(413, "too_large", "", b""), Answer(400, "bad_request", "", b""), "yes"),
    ],
)
def test_what_counts_as_a_difference(
    old: Answer, new: Answer, differ: str, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = Client(1), Client(2)
    answers = dict(zip(clients, (old, new), strict=True))
    monkeypatch.setitem(same_results.REQUESTS, "info", lambda client, _image: answers[client])
    ((name, difference),) = compare(images / "image.jpg", clients, ["info"])
    assert (name, "yes" if difference else "no") == ("info", differ)


def test_empty_and_excluded_files_are_not_sent(images: Path) -> None:
    assert [path.name for path in files_of([images], ["*.txt", "gar*"])] == ["image.jpg"]


def test_the_old_server_runs_by_its_own_python_unless_told_otherwise(tmp_path: Path) -> None:
    assert old_python(tmp_path, None) == sys.executable
    own = tmp_path / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.touch()
    assert old_python(tmp_path, None) == str(own)
    assert old_python(tmp_path, "python3.13") == "python3.13"


def test_a_folder_without_files_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="no file"):
        same_results.main(ROOT, [tmp_path])
