"""Files that are whole or not there."""

import errno
import os
from pathlib import Path

import pytest

from vipsrv.cli.saving import save, target


def test_a_result_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "result.jpg"
    for data in (b"first", b"second"):
        save(data, path)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_what_was_there(
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


def test_a_link_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "link.jpg"
    link.symlink_to(tmp_path / "result.jpg")
    save(b"data", link)
    assert link.is_symlink()
    assert (tmp_path / "result.jpg").read_bytes() == b"data"


@pytest.mark.parametrize(
    ("source", "kind", "name"),
    [
        ("a.png", "jpeg", "processed_a.jpg"),
        ("a.b.tiff", "webp", "processed_a.b.webp"),
        ("a", "tiff", "processed_a.tif"),
        (".hidden", "jpeg", "processed_.hidden.jpg"),
    ],
)
def test_the_default_name_has_the_format_s_own_ending(
    tmp_path: Path, source: str, kind: str, name: str
) -> None:
    assert target(tmp_path / source, None, kind) == tmp_path / name
    assert target(Path(source), tmp_path, kind) == tmp_path / name
