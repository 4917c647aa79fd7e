"""The setting ``--watermark``: its form, and the files that it names."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from vipsrv.errors import StartFailed
from vipsrv.server.settings import ServerSettings
from vipsrv.server.watermarks import Watermarks


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("Logo=/x.png",), "'Logo=/x.png' is not NAME=FILE"),
        (("logo",), "'logo' is not NAME=FILE"),
        (("logo=",), "'logo=' is not NAME=FILE"),
        (("a=/x", "a=/y"), "'a' is given twice"),
    ],
)
def test_wrong_settings(given: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ServerSettings(watermark=given)


def test_a_file_that_is_too_large() -> None:
    with pytest.raises(StartFailed, match="watermark: logo: the file /dev/zero cannot be read: it is larger"):
        Watermarks(ServerSettings(watermark=("logo=/dev/zero",)))


def test_files_are_read_once(tmp_path: Path) -> None:
    path = tmp_path / "logo.png"
    path.write_bytes(b"first")
    marks = Watermarks(ServerSettings(watermark=(f"logo={path}", f"other={path}")))
    path.write_bytes(b"something else")
    assert marks.names == ["logo", "other"]
    assert [os.pread(file.descriptor, file.size + 1, 0) for file in marks.files] == [b"first"] * 2
    marks.close()
    assert marks.names == []
