"""Decode rows that are packed by PackBits, as in Photoshop files, with libvips' TIFF loader.

PackBits is also one of the compressions of TIFF. The packed rows get the directory of a TIFF whose strips are
one row each, so that libtiff decodes them in C while libvips computes: 3 ns a byte, where a loop in Python
takes 15 to 100, and the pixels are never in memory as a whole. The directory is written here and so is valid;
what is hostile are the packed bytes, which libtiff bounds by the length of each row.

Source: Adobe, "TIFF Revision 6.0" (1992), sections 2 (directory) and 9 (PackBits).
"""

import struct
from dataclasses import dataclass

import numpy as np
import pyvips
from numpy.typing import NDArray

from vipsrv.pipeline.vips.operations import PreparedOperation

LOADER_FAMILY = "VipsForeignLoadTiff"
"""The classes of libvips that must not be blocked."""

_HEAD = 8
"""Bytes before the packed rows: byte order, version and the place of the directory."""

_SHORT, _LONG = 3, 4
_PACKBITS, _BLACK_IS_0, _SEPARATE, _FLOAT = 32773, 1, 2, 3
_FLOAT_BITS = 32


_loaders = {
    tolerant: PreparedOperation(
        "tiffload_source",
        "source",
        access="sequential",
        fail_on="none" if tolerant else "error",
        # The limits are for the directories of strangers.
        unlimited=True,
    )
    for tolerant in (False, True)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedPlanes:
    """``planes`` of ``width`` × ``height`` samples of ``bits`` each (8, 16, or 32 for floats; big-endian).

    ``counts`` are the packed bytes of each row: those of the first plane, then those of the next. The rows
    follow each other in ``data``, which may end early: what is missing is an error when it is read.
    """

    width: int
    height: int
    planes: int
    bits: int
    counts: NDArray[np.uint32]
    data: memoryview


def read_packed(packed: PackedPlanes, *, tolerant: bool) -> pyvips.Image:
    """Return the image, a band for each plane: ``uchar``, ``ushort`` or ``float``.

    If ``tolerant``, rows that are damaged or missing are blank. Raises ``pyvips.Error``.
    """
    # The image keeps a reference to the memory of its source, which libvips does not own.
    image: pyvips.Image = _loaders[tolerant](pyvips.Source.new_from_memory(_tiff(packed)))
    return image


def _tiff(packed: PackedPlanes) -> bytearray:
    planes = packed.planes
    counts = packed.counts.astype(np.int64)
    ends = np.minimum(np.cumsum(counts), len(packed.data))
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    size = int(ends[-1])
    size += size % 2  # the directory begins at an even byte
    rows = len(counts)
    after = _HEAD + size
    bits = struct.pack(f">{planes}H", *[packed.bits] * planes)
    kinds = struct.pack(f">{planes}H", *[_FLOAT if packed.bits == _FLOAT_BITS else 1] * planes)
    extra = bytes(2 * (planes - 1))  # unspecified samples
    at_counts = after + 4 * rows
    at_bits = after + 8 * rows
    at_kinds = at_bits + len(bits)
    at_extra = at_kinds + len(kinds)
    entries = [
        (256, _LONG, 1, packed.width),
        (257, _LONG, 1, packed.height),
        _shorts(258, bits, at_bits),
        (259, _SHORT, 1, _PACKBITS << 16),
        (262, _SHORT, 1, _BLACK_IS_0 << 16),
        _longs(273, rows, after, _HEAD),
        (277, _SHORT, 1, planes << 16),
        (278, _LONG, 1, 1),
        _longs(279, rows, at_counts, size),
        (284, _SHORT, 1, _SEPARATE << 16),
        *([_shorts(338, extra, at_extra)] if planes > 1 else []),
        _shorts(339, kinds, at_kinds),
    ]
    tiff = bytearray(struct.pack(">2sHI", b"MM", 42, at_extra + len(extra)))
    tiff += packed.data[: int(ends[-1])]
    tiff += bytes(after - len(tiff))
    tiff += (starts + _HEAD).astype(">u4").tobytes()
    tiff += (ends - starts).astype(">u4").tobytes()
    tiff += bits + kinds + extra
    tiff += struct.pack(">H", len(entries))
    for entry in entries:
        tiff += struct.pack(">HHII", *entry)
    tiff += bytes(4)
    return tiff


def _shorts(tag: int, values: bytes, offset: int) -> tuple[int, int, int, int]:
    """An entry for numbers of 16 bits, which contains them if they take no more than four bytes."""
    inline = len(values) <= 4  # noqa: PLR2004 - the bytes of an entry's value
    return tag, _SHORT, len(values) // 2, int.from_bytes(values.ljust(4, b"\0")) if inline else offset


def _longs(tag: int, count: int, offset: int, only: int) -> tuple[int, int, int, int]:
    """An entry for numbers of 32 bits at ``offset``, or for the ``only`` one."""
    return tag, _LONG, count, only if count == 1 else offset
