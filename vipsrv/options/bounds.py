"""The least and the largest values of the options, and what follows from them."""

DEFAULT_QUALITY = 85
"""JPEG quality of the original server, and therefore of every version 1 reply."""

HIGHEST_QUALITY = 100
"""The highest value of ``quality``."""

MAX_DIMENSION = 2**32 - 1
"""Pixels: the most that a version 1 header can carry. The server's ``--max-output-pixels`` is lower."""

MOST_BYTES_PER_PIXEL = 16
"""More than the pixels of any result take. Uncompressed RGBA of 16 bits takes 8. The worst JPEG takes 10: for
each pixel in three colours a code of at most 16 bits and 10 more (ITU-T T.81, F.1.2.2)."""

MOST_BYTES_BESIDE_PIXELS = 2**20
"""More than the headers and the padding of a result take, without metadata that is kept."""

MOST_BYTES_BESIDE_FRAME = 1024
"""The same for a frame of an animation: each of a GIF may have a palette of 768 bytes."""

MAX_EFFORT = 9
"""The slowest of the efforts from 0 that an encoder may make to write a smaller file."""

MAX_REQUEST_ID = 128
"""Characters of a ``request_id``."""

INT64_MAX = 2**63 - 1

INTEGER_BOUNDS: dict[str, tuple[int, int]] = {
    "width": (1, MAX_DIMENSION),
    "height": (1, MAX_DIMENSION),
    "quality": (1, HIGHEST_QUALITY),
    "effort": (0, MAX_EFFORT),
    "max_bytes": (1, INT64_MAX),
    "rounded": (1, MAX_DIMENSION),
    "page": (0, 2**31 - 1),
    "trim": (0, 255),
    "rotate": (0, 359),
}
"""The least and the largest value of each option that is a whole number."""

NUMBER_BOUNDS: dict[str, tuple[float, float]] = {
    "crop": (0, MAX_DIMENSION),
    "focus": (0, 1),
    "pad": (0, MAX_DIMENSION),
    "modulate": (0, 10),
    "blur": (0.3, 250),
    "sharpen": (0.3, 10),
    "watermark_scale": (0.01, 1),
    "watermark_opacity": (0, 1),
    "min_ssim": (0, 1),
}
"""The same for each option that is a number with a fraction, and for each element of a list of numbers."""

LIST_LENGTHS: dict[str, int] = {
    "crop": 4,
    "focus": 2,
    "pad": 4,
    "modulate": 2,
}
"""How many numbers each option has that is a list of numbers."""

DEADLINE_MS_BOUNDS = (1, 2**31 - 1)
"""The least and the largest ``deadline_ms`` of a request."""
