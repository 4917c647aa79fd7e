"""PNG: the refusal of a broken file says what is wrong with it."""

import struct
import zlib

import pytest

from tests.pipeline.run import refusal
from tests.support.bombs import png_chunk
from tests.support.images import encode, photo
from vipsrv.errors import CorruptImage

MAGIC = b"\x89PNG\r\n\x1a\n"


def png(
    *, head: bytes = b"", size: tuple[int, int] = (30, 20), kind: bytes = b"\x08\2\0\0\0", **parts: bytes
) -> bytes:
    pixels = parts.get("pixels", zlib.compress(bytes(91 * 20)))
    head = head or struct.pack(">II", *size) + kind
    chunks = [png_chunk(b"IHDR", head), parts.get("before", b""), png_chunk(b"IDAT", pixels)]
    return MAGIC + b"".join(chunks) + png_chunk(b"IEND", b"")


def with_wrong_checksum(name: bytes) -> bytes:
    data = bytearray(png())
    at = data.index(name)
    data[at - 4 + 8 + int.from_bytes(data[at - 4 : at])] ^= 255
    return bytes(data)


WHOLE = encode(photo(300, 200), "PNG")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (WHOLE[: len(WHOLE) // 2], "ends within its chunk IDAT"),
        (WHOLE[:20], "ends within its chunk IHDR"),
        (with_wrong_checksum(b"IHDR"), "the checksum of its chunk IHDR is wrong"),
        (png(size=(0, 20)), "its size of 0 x 20 is impossible"),
        (png(size=(1 << 30, 20)), "is impossible"),
        (png(kind=b"\x03\2\0\0\0"), "no colour type 2 with 3 bits"),
        (png(kind=b"\x08\2\0\0\5"), "interlacing"),
        (png(head=b"1234"), "IHDR has 4 bytes"),
        (MAGIC + png()[33:], "its first chunk is IDAT"),
        (
            MAGIC + png_chunk(b"IHDR", struct.pack(">II", 30, 20) + b"\x08\2\0\0\0") + png()[-12:],
            "no chunk IDAT",
        ),
        (png(kind=b"\x08\3\0\0\0"), "no chunk PLTE"),
        (png(before=png_chunk(b"ABCD", b"1")), "unknown chunk ABCD"),
        (png(pixels=b"these are no pixels"), "cannot be inflated"),
        (png(pixels=zlib.compress(bytes(91 * 10))), "its pixels end early: 910 of 1820 bytes"),
    ],
)
def test_a_refusal_says_what_is_wrong(data: bytes, told: str) -> None:
    error = refusal(data)
    assert isinstance(error, CorruptImage)
    assert told in error.message
