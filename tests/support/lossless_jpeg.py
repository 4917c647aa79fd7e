"""Write lossless JPEGs (SOF3), which no library at hand does. Source: ITU-T T.81 (1992), annexes B, F and
H."""

import struct

import numpy as np
from numpy.typing import NDArray

_LENGTHS = bytes([0, 0, 0, 0, 17, *[0] * 11])
"""Of the Huffman codes: all 17 categories of differences have codes of five bits."""

_CATEGORIES = bytes(range(17))


def lossless_jpeg(
    samples: NDArray[np.integer], precision: int = 8, *, marker: int = 0xC3, end: bytes = b"\xff\xd9"
) -> bytes:
    """Encode rows of pixels of one to four bands with the predictor 1 (the sample on the left)."""
    height, width, bands = samples.shape
    values = samples.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << (precision - 1)
    differences = ((values - predicted + 32768) % 65536 - 32768).reshape(-1).tolist()
    bits = []
    for difference in differences:
        category = 16 if difference == -32768 else abs(difference).bit_length()
        bits.append(format(category, "05b"))
        if 0 < category < 16:
            low = difference if difference > 0 else difference + (1 << category) - 1
            bits.append(format(low, f"0{category}b"))
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    data = int(text, 2).to_bytes(len(text) // 8).replace(b"\xff", b"\xff\0")
    components = b"".join(bytes([number + 1, 0x11, 0]) for number in range(bands))
    return b"".join(
        [
            b"\xff\xd8",
            _segment(0xC4, b"\0" + _LENGTHS + _CATEGORIES),
            _segment(marker, struct.pack(">BHHB", precision, height, width, bands) + components),
            _segment(0xDA, bytes([bands, *[one for band in range(bands) for one in (band + 1, 0)], 1, 0, 0])),
            data,
            end,
        ]
    )


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
