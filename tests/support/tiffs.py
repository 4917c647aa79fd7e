"""Make TIFFs of any fields and samples: what no library writes, too."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Fields = Mapping[int, tuple[int, Sequence[Any] | bytes]]

SHORT, LONG, FRACTION, FLOAT = 3, 4, 5, 11
_LETTERS = {1: "B", 3: "H", 4: "I", 5: "I", 11: "f", 12: "d"}
_HEAD = 8


def tiff(width: int, height: int, fields: Fields, blocks: Sequence[bytes], order: str = "<") -> bytes:
    """A TIFF of a page with these strips, or tiles if there is a tile width. A field is a type and values."""
    offsets, sizes = (324, 325) if 322 in fields else (273, 279)
    data, positions = b"", []
    for block in blocks:
        positions.append(_HEAD + len(data))
        data += block + bytes(len(block) % 2)
    every: dict[int, tuple[int, Sequence[Any] | bytes]] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        offsets: (LONG, positions),
        sizes: (LONG, [len(block) for block in blocks]),
        **fields,
    }
    start = _HEAD + len(data)
    more_at = start + 2 + 12 * len(every) + 4
    rows, more = b"", b""
    for tag, (kind, values) in sorted(every.items()):
        raw = (
            values
            if isinstance(values, bytes)
            else struct.pack(f"{order}{len(values)}{_LETTERS[kind]}", *values)
        )
        if len(raw) > 4:
            more, raw = more + raw + bytes(len(raw) % 2), struct.pack(f"{order}I", more_at + len(more))
        count = len(values) // 2 if kind == FRACTION else len(values)
        rows += struct.pack(f"{order}HHI", tag, kind, count) + raw.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    return head + data + struct.pack(f"{order}H", len(every)) + rows + bytes(4) + more


def tiff_of(
    samples: Array,
    fields: Fields,
    *,
    order: str = "<",
    tile: int = 0,
    planar: bool = False,
    rows: int = 16,
    bits: int = 0,
) -> bytes:
    """A TIFF of an array of rows × columns × samples, not compressed. With ``bits`` they are packed so."""
    height, width, count = samples.shape
    depth = bits or samples.dtype.itemsize * 8
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    every = {258: (SHORT, [depth] * count), 277: (SHORT, [count]), 339: (SHORT, [kind] * count), **fields}
    planes = [samples[:, :, one : one + 1] for one in range(count)] if planar else [samples]
    if planar:
        every[284] = (SHORT, [2])
    if tile:
        every |= {322: (SHORT, [tile]), 323: (SHORT, [tile])}
        parts = [
            np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))[
                top : top + tile, left : left + tile
            ]
            for plane in planes
            for top in range(0, height, tile)
            for left in range(0, width, tile)
        ]
    else:
        every[278] = (SHORT, [rows])
        parts = [plane[top : top + rows] for plane in planes for top in range(0, height, rows)]
    blocks = [
        packed(part, bits) if bits else part.astype(f"{order}{part.dtype.str[1:]}").tobytes()
        for part in parts
    ]
    return tiff(width, height, every, blocks, order)


def packed(samples: Array, bits: int) -> bytes:
    """Samples of so many bits, the most significant first; each row begins a byte."""
    flat = samples.reshape(samples.shape[0], -1).astype(np.uint32)
    single = (flat[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint32)) & 1
    return np.packbits(single.astype(np.uint8).reshape(samples.shape[0], -1), axis=1).tobytes()
