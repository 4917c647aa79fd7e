"""The header fields of tus."""

import hashlib
from base64 import b64encode

import pytest

from vipsrv.errors import BadRequest, UnsupportedFormat
from vipsrv.server.http.refusals import PreconditionFailed
from vipsrv.server.tus.headers import (
    ALGORITHMS,
    MAX_METADATA,
    check_content_type,
    check_version,
    expires_header,
    is_upload_bytes,
    read_checksum,
    read_metadata,
    read_size,
    supported_headers,
)


@pytest.mark.parametrize("fields", [{}, {"tus-resumable": "0.2.2"}, {"tus-resumable": "1.0"}])
def test_other_versions_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises(PreconditionFailed, match=r"1\.0\.0"):
        check_version(fields)


def test_this_version_is_spoken() -> None:
    check_version({"tus-resumable": "1.0.0"})


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        ("application/offset+octet-stream", True),
        ("Application/Offset+Octet-Stream ; charset=utf-8", True),
        ("application/octet-stream", False),
        ("", False),
    ],
)
def test_the_type_of_a_body(value: str, *, accepted: bool) -> None:
    fields = {"content-type": value} if value else {}
    assert is_upload_bytes(fields) is accepted
    if accepted:
        check_content_type(fields)
    else:
        with pytest.raises(UnsupportedFormat, match="application/offset"):
            check_content_type(fields)


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("007", 7), ("999999999999999999", 10**18 - 1)])
def test_sizes(text: str, size: int) -> None:
    assert read_size({"upload-length": text}, "Upload-Length") == size


@pytest.mark.parametrize("text", ["", "-5", "+5", "5.0", " 5", "1e3", "٣", "0x10", "1" * 19, "5, 5"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BadRequest, match=r"^Upload-Offset: must be"):
        read_size({"upload-offset": text}, "Upload-Offset")


def test_a_missing_size() -> None:
    with pytest.raises(BadRequest, match=r"^Upload-Length: is missing"):
        read_size({}, "Upload-Length")


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        (None, None),
        ("", None),
        ("filename cGhvdG8uanBn", "filename cGhvdG8uanBn"),
        ("filename cGhvdG8uanBn,private", "filename cGhvdG8uanBn,private"),
        ("a YQ==, b Yg== ,empty ", "a YQ==,b Yg==,empty"),
        ("foo aGVsbG8=, hah INVALID, empty", "foo aGVsbG8=,empty"),
        ("hah INVALID", None),
    ],
)
def test_metadata(text: str | None, stated: str | None) -> None:
    assert read_metadata({} if text is None else {"upload-metadata": text}) == stated


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a YQ==,a Yg==", "given twice"),
        ("a YQ==,,b", "empty"),
        ("naïve YQ==", "must not have"),
        ("a " + "A" * MAX_METADATA, "are allowed"),
    ],
)
def test_metadata_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read_metadata({"upload-metadata": text})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_checksum(algorithm: str) -> None:
    digest = hashlib.new(algorithm, b"hello").digest()
    checksum = read_checksum({"upload-checksum": f"{algorithm} {b64encode(digest).decode()}"})
    assert checksum is not None
    found = checksum.new_hash()
    found.update(b"hello")
    assert found.digest() == checksum.digest == digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sha512 AAAA", "sha1, sha256, md5 are"),
        ("SHA1 " + b64encode(bytes(20)).decode(), "not supported"),
        ("sha1", "has 0 bytes; sha1 has 20"),
        ("sha1 AAAA", "has 3 bytes"),
        ("sha1 !!!!", "not base64"),
        ("sha1 " + b64encode(bytes(20)).decode().rstrip("="), "not base64"),
    ],
)
def test_a_checksum_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read_checksum({"upload-checksum": text})


def test_no_checksum() -> None:
    assert read_checksum({}) is None


def test_what_the_server_can_do() -> None:
    assert dict(supported_headers(1000)) == {
        "Tus-Resumable": "1.0.0",
        "Tus-Version": "1.0.0",
        "Tus-Extension": "creation,creation-with-upload,expiration,termination,checksum",
        "Tus-Max-Size": "1000",
        "Tus-Checksum-Algorithm": "sha1,sha256,md5",
    }


def test_the_time_at_which_an_upload_expires() -> None:
    assert expires_header(784111777.9) == ("Upload-Expires", "Sun, 06 Nov 1994 08:49:37 GMT")
