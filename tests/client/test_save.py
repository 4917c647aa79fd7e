"""Results that are saved: a file is complete, or it is what it was before."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from vipsrv.client import ResizedImage
from vipsrv.client.save import save


def test_a_result_saves_itself_and_returns_the_path(tmp_path: Path) -> None:
    result = ResizedImage(data=b"data", width=8, height=6, format="png", quality=85, ratio=1.0)
    for path in (tmp_path / "a.png", str(tmp_path / "b.png")):
        saved = result.save(path)
        assert saved == Path(path)
        assert saved.read_bytes() == b"data"


def test_a_result_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "result.jpg"
    for data in (b"first", b"second"):
        save(data, path)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444])
def test_a_replaced_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "result.jpg"
    path.write_bytes(b"first")
    path.chmod(mode)
    save(b"second", path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_bytes() == b"second"


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    path = tmp_path / "result.jpg"
    path.write_bytes(b"first")

    def failing(*_: object) -> None:
        raise fault

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(type(fault)) as caught:
        save(b"second", path)
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(path)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_error_is_raised_if_cleaning_up_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "unlink", failing)
    with pytest.raises(OSError, match="No space left") as caught:
        save(b"data", tmp_path / "result.jpg")
    assert caught.value.filename == str(tmp_path / "result.jpg")


def test_a_link_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "link.jpg"
    link.symlink_to(tmp_path / "result.jpg")
    save(b"data", link)
    assert link.is_symlink()
    assert (tmp_path / "result.jpg").read_bytes() == b"data"


def link_to(target: Path, name: Path) -> None:
    name.symlink_to(target)


def dangling_link(target: Path, name: Path) -> None:
    name.symlink_to(target.with_name("none"))


def hard_link(target: Path, name: Path) -> None:
    os.link(target, name)


def pipe(target: Path, name: Path) -> None:
    del target
    os.mkfifo(name)


@pytest.mark.parametrize("place", [link_to, dangling_link, hard_link, pipe])
def test_what_has_the_name_is_replaced_where_links_are_not_followed(
    tmp_path: Path, place: Callable[[Path, Path], None]
) -> None:
    target, name = tmp_path / "target", tmp_path / "result.jpg"
    target.write_bytes(b"untouched")
    place(target, name)
    result = ResizedImage(data=b"data", width=8, height=6, format="png", quality=85, ratio=1.0)
    assert result.save(name, follow_symlinks=False) == name
    assert stat.S_ISREG(name.lstat().st_mode)
    assert name.read_bytes() == b"data"
    assert target.read_bytes() == b"untouched"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["result.jpg", "target"]


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "result.jpg"
    folder.mkdir()
    with pytest.raises(OSError, match=r"[Dd]irectory") as caught:
        save(b"data", folder, follow_symlinks=False)
    assert caught.value.filename == str(folder)
    assert list(tmp_path.iterdir()) == [folder]
