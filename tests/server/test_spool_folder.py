"""The default of the spool folder."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from vipsrv.server import spool_folder


def test_the_folder_on_disk_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_folder, "_ON_DISK", tmp_path)
    assert spool_folder.default_spool_folder() == tmp_path
    assert not spool_folder.is_fallback(tmp_path)
    assert not spool_folder.is_fallback(tmp_path / "chosen")


def test_without_it_temporary_files_are_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_folder, "_ON_DISK", tmp_path / "none")
    found = spool_folder.default_spool_folder()
    assert found == Path(tempfile.gettempdir())
    assert spool_folder.is_fallback(found)


def test_the_size_of_a_file_system_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_folder, "filesystem_kind", lambda _: "ext4")
    assert spool_folder.size_in_memory(tmp_path) is None
    monkeypatch.setattr(spool_folder, "filesystem_kind", lambda _: "tmpfs")
    assert (spool_folder.size_in_memory(tmp_path) or 0) > 0
    assert spool_folder.size_in_memory(tmp_path / "none") is None
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=0))
    assert (spool_folder.size_in_memory(tmp_path) or 0) >= 1 << 60
