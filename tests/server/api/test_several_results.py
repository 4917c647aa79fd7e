"""Several results in one body, read by Python and by unzip."""

import io
import shutil
import subprocess
import zipfile
import zlib
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from hashlib import blake2b
from pathlib import Path

import pytest

from vipsrv.errors import TooLarge
from vipsrv.options import Format, OutputInfo
from vipsrv.server.api.reply_headers import MEDIA_TYPES
from vipsrv.server.api.several_results import EXTENSIONS, Container, file_names, mixed, zip_file
from vipsrv.workers.channel import ResultDigest

RESULTS = (b"first result", b"\r\n--second\r\n" * 9, bytes(range(256)))


def output(size: int, width: int = 320, format_: str = "webp") -> OutputInfo:
    return OutputInfo(width=width, height=240, format=format_, quality=80, size=size)


def digest(result: bytes) -> ResultDigest:
    return ResultDigest(tag=blake2b(result, digest_size=16).digest(), crc=zlib.crc32(result))


OUTPUTS = (
    output(len(RESULTS[0])),
    output(len(RESULTS[1]), 640, "jpeg"),
    output(len(RESULTS[2]), 1280, "tiff"),
)
DIGESTS = tuple(map(digest, RESULTS))


def body(container: Container, results: tuple[bytes, ...] = RESULTS) -> bytes:
    stored = b"".join(results)
    done = b""
    position = 0
    for offset, inserted in container.inserts:
        done += stored[position:offset] + inserted
        position = offset
    return done + stored[position:]


def test_names_are_unique() -> None:
    assert file_names(OUTPUTS) == ["320x240.webp", "640x240.jpg", "1280x240.tif"]
    assert file_names((output(1), output(1), output(1, 8))) == [
        "320x240-1.webp",
        "320x240-2.webp",
        "8x240.webp",
    ]


def test_python_reads_the_parts_of_a_message() -> None:
    container = mixed(OUTPUTS, DIGESTS)
    head = f"Content-Type: {container.media_type}\r\n\r\n".encode()
    message = BytesParser(EmailMessage, policy=HTTP).parsebytes(head + body(container))
    assert message.get_content_type() == "multipart/mixed"
    assert not message.defects
    parts = list(message.iter_parts())
    assert [part.get_payload(decode=True) for part in parts] == list(RESULTS)
    assert [part.get_filename() for part in parts] == file_names(OUTPUTS)
    assert [part.get_content_type() for part in parts] == ["image/webp", "image/jpeg", "image/tiff"]
    assert [part["Content-Length"] for part in parts] == [str(len(result)) for result in RESULTS]
    assert parts[0]["Vipsrv-Result"] == f"webp;width=320;height=240;quality=80;size={len(RESULTS[0])}"


def test_python_and_unzip_read_a_zip_file(tmp_path: Path) -> None:
    container = zip_file(OUTPUTS, DIGESTS)
    assert container.media_type == "application/zip"
    data = body(container)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == file_names(OUTPUTS)
        assert [archive.read(name) for name in archive.namelist()] == list(RESULTS)
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {one.external_attr >> 16 for one in archive.infolist()} == {0o100644}
    path = tmp_path / "results.zip"
    path.write_bytes(data)
    if (unzip := shutil.which("unzip")) is not None:
        subprocess.run([unzip, "-t", path], check=True, capture_output=True, timeout=20)


def test_a_wrong_checksum_is_noticed() -> None:
    wrong = (ResultDigest(tag=DIGESTS[0].tag, crc=DIGESTS[0].crc ^ 1), *DIGESTS[1:])
    with zipfile.ZipFile(io.BytesIO(body(zip_file(OUTPUTS, wrong)))) as archive:
        assert archive.testzip() == "320x240.webp"


def test_a_zip_file_has_at_most_4_gib() -> None:
    half = output(1 << 31)
    with pytest.raises(TooLarge, match="4 GiB; accept multipart/mixed"):
        zip_file((half, half), DIGESTS[:2])
    zip_file((half, output((1 << 31) - 1000)), DIGESTS[:2])
    with pytest.raises(TooLarge):
        zip_file((half, output((1 << 31) - 200)), DIGESTS[:2])


def test_the_same_results_give_the_same_bytes() -> None:
    for make in (mixed, zip_file):
        assert make(OUTPUTS, DIGESTS) == make(OUTPUTS, DIGESTS)
        assert make(OUTPUTS, DIGESTS).etag(DIGESTS) == make(OUTPUTS, DIGESTS).etag(DIGESTS)


def test_other_results_have_another_etag() -> None:
    other = (DIGESTS[1], *DIGESTS[1:])
    etags = {
        make(OUTPUTS, digests).etag(digests) for make in (mixed, zip_file) for digests in (DIGESTS, other)
    }
    assert len(etags) == 4
    assert mixed(OUTPUTS, DIGESTS).media_type != mixed(OUTPUTS, other).media_type
    requested = (output(OUTPUTS[0].size, 321), *OUTPUTS[1:])
    assert mixed(requested, DIGESTS).etag(DIGESTS) not in etags


def test_every_format_of_results_has_an_ending() -> None:
    written = {one.value for one in Format if one is not Format.AUTO}
    assert set(EXTENSIONS) == set(MEDIA_TYPES) == written
