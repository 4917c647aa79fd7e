"""Images for schemathesis: without them no request would get further than their format."""

import schemathesis
from hypothesis import strategies as st

from tests.support.images import alpha_photo, encode, jpeg, truncated

IMAGES = [
    jpeg(40, 30),
    encode(alpha_photo(30, 40), "PNG"),
    encode(alpha_photo(16, 16), "WEBP"),
    truncated(jpeg(40, 30)),
    b"not an image",
]

for media_type in ("application/octet-stream", "image/*", "application/offset+octet-stream"):
    schemathesis.openapi.media_type(media_type, st.sampled_from(IMAGES))
