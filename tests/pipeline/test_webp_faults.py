"""WebP: the refusal of a broken file says what is wrong with it."""

from tests.pipeline.run import refusal
from tests.support.images import encode, photo
from vipsrv.errors import CorruptImage


def test_a_refusal_says_what_is_wrong() -> None:
    data = encode(photo(200, 150), "WEBP", quality=80)
    without = data[:4] + (12).to_bytes(4, "little") + b"WEBPABCD" + bytes(4)
    for broken, told in ((data[: len(data) // 2], "it is truncated"), (without, "it has no image")):
        error = refusal(broken)
        assert isinstance(error, CorruptImage)
        assert told in error.message
