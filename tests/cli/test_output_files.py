"""Where results are saved, and what is refused."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

from vipsrv.cli.output_files import (
    OutputFile,
    check_output_file,
    ending_of,
    output_file,
    output_files,
    write_all,
)
from vipsrv.client import ResizedImage
from vipsrv.options import Format, ResizeOptions


def test_a_read_only_folder_is_refused_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, other = tmp_path / "source.jpg", tmp_path / "other"
    source.write_bytes(b"source")
    other.mkdir()
    link = tmp_path / "link.jpg"
    link.symlink_to(other / "result.jpg")
    # Simulated, because a superuser may write to a read-only folder.
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != other)
    check_output_file(source, tmp_path / "result.jpg")
    for output in (other, other / "result.jpg", link):
        with pytest.raises(PermissionError, match="is not writable") as caught:
            check_output_file(source, output)
        assert caught.value.filename == str(other)
    pipe = other / "pipe"
    os.mkfifo(pipe)
    check_output_file(source, pipe)  # is written itself, and nothing is made beside it


@pytest.mark.parametrize(
    ("source", "kind", "name"),
    [
        ("a.png", Format.JPEG, "processed_a.jpg"),
        ("a.b.tiff", Format.WEBP, "processed_a.b.webp"),
        ("a", Format.TIFF, "processed_a.tif"),
        (".hidden", Format.JPEG, "processed_.hidden.jpg"),
    ],
)
def test_the_default_name_has_the_ending_of_the_format(
    tmp_path: Path, source: str, kind: Format, name: str
) -> None:
    ending = ending_of(kind, "exe")
    assert output_file(tmp_path / source, None, ending) == OutputFile(tmp_path / name, given=False)
    assert output_file(Path(source), tmp_path, ending) == OutputFile(tmp_path / name, given=False)
    other = tmp_path / "other.png"
    assert output_file(tmp_path / source, other, ending) == OutputFile(other, given=True)


@pytest.mark.parametrize("format_", [one for one in Format if one is not Format.AUTO])
def test_the_ending_is_never_a_word_of_the_server(format_: Format) -> None:
    ending = ending_of(format_, "exe")
    assert ending == ending_of(Format.AUTO, format_.value)
    assert ending_of(Format.AUTO, "exe") == ".bin"
    assert ending_of(Format.AUTO, "auto") == ".bin"


@pytest.mark.parametrize("in_folder", [False, True])
def test_a_link_at_a_name_that_was_made_is_replaced(tmp_path: Path, *, in_folder: bool) -> None:
    source, victim = tmp_path / "a.png", tmp_path / "victim"
    source.write_bytes(b"source")
    victim.write_bytes(b"untouched")
    link = tmp_path / "processed_a.jpg"
    link.symlink_to(victim)
    file = output_file(source, tmp_path if in_folder else None, ".jpg")
    file.check(source)
    assert file.save(result(8, 6, "jpeg")) == link
    assert victim.read_bytes() == b"untouched"
    assert not link.is_symlink()
    assert link.read_bytes() == b"data"


def test_a_link_whose_name_was_given_is_followed(tmp_path: Path) -> None:
    source, target, link = tmp_path / "a.png", tmp_path / "target", tmp_path / "link.jpg"
    source.write_bytes(b"source")
    link.symlink_to(target)
    file = output_file(source, link, ".jpg")
    file.check(source)
    file.save(result(8, 6, "jpeg"))
    assert link.is_symlink()
    assert target.read_bytes() == b"data"


def test_a_source_that_has_the_name_of_its_result_is_not_replaced(tmp_path: Path) -> None:
    source, link = tmp_path / "processed_a.jpg", tmp_path / "a.jpg"
    source.write_bytes(b"source")
    link.symlink_to(source)
    with pytest.raises(ValueError, match="never overwritten"):
        output_file(link, None, ".jpg").check(link)


def result(width: int, height: int, kind: str) -> ResizedImage:
    return ResizedImage(data=b"data", width=width, height=height, format=kind, quality=85, ratio=1.0)


def test_several_results_have_their_size_in_the_name(tmp_path: Path) -> None:
    results = [
        result(*size)
        for size in (
            (320, 240, "webp"),
            (8, 6, "jpeg"),
            (320, 240, "webp"),
            (320, 240, "jpeg"),
            (320, 240, "webp"),
        )
    ]
    names = [
        "processed_a.b_320x240.webp",
        "processed_a.b_8x6.jpg",
        "processed_a.b_320x240_2.webp",
        "processed_a.b_320x240.jpg",
        "processed_a.b_320x240_3.webp",
    ]
    folder = tmp_path / "folder"
    folder.mkdir()
    asked = [ResizeOptions(width=1, height=1, format=Format(one.format)) for one in results]
    for output, there in ((None, tmp_path), (folder, folder)):
        files = output_files(tmp_path / "a.b.png", output, asked, results)
        assert files == [OutputFile(there / name, given=False) for name in names]


def test_none_of_several_results_overwrites_the_source(tmp_path: Path) -> None:
    source = tmp_path / "a.jpg"
    source.write_bytes(b"source")
    os.link(source, tmp_path / "processed_a_8x6.jpg")
    asked = [ResizeOptions(width=1, height=1)] * 2
    first, second = output_files(source, None, asked, [result(4, 3, "jpeg"), result(8, 6, "jpeg")])
    first.check(source)
    with pytest.raises(ValueError, match="never overwritten"):
        second.check(source)


class Narrow(io.RawIOBase):
    """A stream that accepts a few bytes at a time until it is full; then it raises or returns ``full``."""

    def __init__(self, room: int, full: BaseException | None) -> None:
        self.taken = bytearray()
        self._room = room
        self._full = full

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        part = bytes(data[: min(7, self._room - len(self.taken))])
        if data and not part:
            if self._full is not None:
                raise self._full
            return None
        self.taken += part
        return len(part)


def test_partial_writes_are_continued() -> None:
    stream = Narrow(100, None)
    write_all(bytes(range(100)), stream)
    assert stream.taken == bytes(range(100))


@pytest.mark.parametrize("full", [None, OSError(errno.ENOSPC, "No space left on device")])
def test_an_incomplete_write_is_an_error(full: BaseException | None) -> None:
    with pytest.raises(OSError, match=r"Resource temporarily unavailable|No space left"):
        write_all(bytes(100), Narrow(99, full))
