"""The images that arguments name."""

import os
from pathlib import Path

import pytest

from vipsrv.cli import image_paths
from vipsrv.cli.image_paths import FoundImage, ImagePaths, PathProblem
from vipsrv.client.image_endings import IMAGE_ENDINGS
from vipsrv.pipeline.formats.registry import all_formats


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "a.jpg",
        "B.TIFF",
        "x.txt",
        "sub/c.png",
        "sub/deep/d.gif",
        ".git/e.jpg",
        "[x].jpg",
        "noending",
    ):
        path = tmp_path / "top" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def found(*arguments: str, recursive: bool = False, skipped: str | None = None) -> list[tuple[str, str]]:
    paths = ImagePaths(
        map(Path, arguments), recursive=recursive, skipped=None if skipped is None else Path(skipped)
    )
    listed = list(paths)
    assert [one.path for one in paths] == [one.path for one in listed]
    return [
        (str(one.path), one.folder if isinstance(one, FoundImage) else type(one.error).__name__)
        for one in listed
    ]


def test_a_folder_in_order_and_its_folders() -> None:
    here = [("top/B.TIFF", ""), ("top/[x].jpg", ""), ("top/a.jpg", "")]
    assert found("top") == here
    below = [("top/sub/c.png", "sub/"), ("top/sub/deep/d.gif", "sub/deep/")]
    assert found("top", recursive=True) == here + below
    assert found("top", recursive=True, skipped="top/sub/deep") == here + below[:1]
    # An argument is never skipped.
    assert found("top/sub/deep", recursive=True, skipped="top/sub/deep") == [("top/sub/deep/d.gif", "")]


def test_patterns() -> None:
    assert found("top/*.jpg") == [("top/[x].jpg", ""), ("top/a.jpg", "")]
    assert found("top/*/*.png") == [("top/sub/c.png", "sub/")]
    assert found("**/*.gif") == [("top/sub/deep/d.gif", "top/sub/deep/")]
    assert found("top/su?") == [("top/sub/c.png", "sub/")]
    assert found("top/su?", recursive=True)[1] == ("top/sub/deep/d.gif", "sub/deep/")
    assert found("top/none*") == [("top/none*", "FileNotFoundError")]
    # A file that has the name of a pattern is meant itself.
    assert found("top/[x].jpg") == [("top/[x].jpg", "")]


def test_what_is_missing_is_listed_too() -> None:
    # Reading it will say so.
    assert found("none.jpg", "-", "top/noending") == [("none.jpg", ""), ("-", ""), ("top/noending", "")]


def test_a_folder_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def scandir(path: Path) -> object:
        if path.name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert found("top", recursive=True)[-1] == ("top/sub", "PermissionError")
    assert isinstance(list(ImagePaths([Path("top")], recursive=True))[-1], PathProblem)


def test_large_folders_are_listed_in_parts(monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
    monkeypatch.setattr(image_paths, "SORTED_AT_ONCE", 3)
    for number in range(10):
        (tree / "top" / "sub" / f"{number}.jpg").touch()
    assert len(found("top/sub")) == 11


def test_results_are_counted() -> None:
    paths = ImagePaths(
        [Path("top"), Path("top/a.jpg")], recursive=True, is_result=lambda path: path.name in "a.jpg c.png"
    )
    for _ in range(2):
        assert [one.path.name for one in paths] == ["B.TIFF", "[x].jpg", "d.gif"]
        assert paths.left_out == 3


def test_every_format_has_an_ending_that_is_taken() -> None:
    others = {"svg", "pdf"}  # drawings and documents
    for one in all_formats():
        endings = {"jpeg": "jpg", "tiff": "tif"}
        assert endings.get(one.name, one.name) in IMAGE_ENDINGS or one.name in others, one.name
