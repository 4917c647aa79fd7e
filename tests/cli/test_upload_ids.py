"""The ids of uploads by content: the same again for the same user, and not to be guessed."""

import errno
import io
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vipsrv.cli.upload import UploadImage
from vipsrv.cli.upload_ids import content_id, state_folder, user_secret

HEX = set("0123456789abcdef")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))


def image(folder: Path, content: bytes, name: str = "image.tif") -> UploadImage:
    path = folder / name
    path.write_bytes(content)
    return UploadImage.of_file(path)


def secret_file() -> Path:
    return state_folder() / "upload-secret"


def test_the_same_content_has_the_same_id(tmp_path: Path) -> None:
    first = content_id(image(tmp_path, b"content" * 300_000))
    assert len(first) == 32
    assert set(first) <= HEX
    assert content_id(image(tmp_path, b"content" * 300_000, "another name")) == first
    assert content_id(image(tmp_path, b"content" * 299_999 + b"CONTENT")) != first
    assert content_id(image(tmp_path, b"content" * 300_001)) != first


def test_a_copy_of_standard_input_is_left_where_it_was(tmp_path: Path) -> None:
    copy = io.BytesIO(b"content")
    upload = UploadImage(copy, 7, "-", Path("stdin"), 0)
    assert content_id(upload) == content_id(image(tmp_path, b"content"))
    assert copy.tell() == 0


def test_another_user_has_other_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = content_id(image(tmp_path, b"content"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    assert content_id(image(tmp_path, b"content")) != first


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_the_secret_is_for_its_user_alone() -> None:
    assert user_secret() == user_secret()
    assert secret_file().stat().st_mode & 0o777 == 0o600
    assert secret_file().parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in state_folder().iterdir()] == ["upload-secret"]


def test_commands_that_make_the_secret_at_once_have_the_same() -> None:
    together = threading.Barrier(8)

    def make() -> bytes | None:
        together.wait(30)
        return user_secret()

    with ThreadPoolExecutor(8) as threads:
        made = {call.result() for call in [threads.submit(make) for _ in range(8)]}
    assert made == {user_secret()}
    assert made != {None}
    assert [file.name for file in state_folder().iterdir()] == ["upload-secret"]


def test_a_file_system_without_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    secret = user_secret()
    assert secret is not None
    assert user_secret() == secret
    assert [file.name for file in state_folder().iterdir()] == ["upload-secret"]


@pytest.mark.parametrize("spoil", ["short", "long", "readable by others"])
def test_a_secret_that_cannot_be_trusted_is_not_used(tmp_path: Path, spoil: str) -> None:
    secret = user_secret()
    assert secret is not None
    if spoil == "readable by others":
        secret_file().chmod(0o644)
    else:
        secret_file().write_bytes(secret[:5] if spoil == "short" else secret * 2)
    assert user_secret() is None
    one = image(tmp_path, b"content")
    assert content_id(one) != content_id(one)


def test_without_a_place_for_it_ids_are_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    one = image(tmp_path, b"content")
    assert content_id(one) != content_id(one)


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_STATE_HOME": "/var/state"}, "/var/state/vipsrv"),
        ("linux", {"XDG_STATE_HOME": "relative"}, "/home/me/.local/state/vipsrv"),
        ("linux", {}, "/home/me/.local/state/vipsrv"),
        ("darwin", {}, "/home/me/Library/Application Support/vipsrv"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/vipsrv"),
        ("win32", {}, "/home/me/AppData/Local/vipsrv"),
    ],
)
def test_where_each_system_keeps_it(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert os.fspath(state_folder()) == expected
