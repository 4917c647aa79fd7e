"""Small files of the formats that few programs write: PSD, DDS, PCX, SGI, Radiance HDR. Arrays are rows of
pixels of bands, as numpy has an image of Pillow.
"""

import itertools
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Photoshop


def packbits(row: bytes) -> bytes:
    """A row as PackBits: runs of three and more, all else as it is."""
    packed, single = bytearray(), bytearray()

    def flush() -> None:
        for at in range(0, len(single), 128):
            part = single[at : at + 128]
            packed.append(len(part) - 1)
            packed.extend(part)
        single.clear()

    for value, group in itertools.groupby(row):
        length = len(list(group))
        if length < 3:
            single.extend([value] * length)
            continue
        flush()
        for at in range(0, length, 128):
            part_length = min(128, length - at)
            packed.extend((257 - part_length if part_length > 1 else 0, value))
    flush()
    return bytes(packed)


def resource(number: int, data: bytes) -> bytes:
    """An image resource of a Photoshop file."""
    return struct.pack(">4sHHI", b"8BIM", number, 0, len(data)) + data + bytes(len(data) % 2)


def psd(
    planes: Array,
    mode: int,
    bits: int,
    *,
    compression: int = 1,
    large: bool = False,
    layers: int | None = None,
    resources: bytes = b"",
    palette: bytes = b"",
    blocks: bytes = b"",
) -> bytes:
    """A Photoshop file of ``planes`` (channels, rows, and samples, or bytes of 8 bits each).

    ``layers`` is the number of layers that it claims, negative if the first channel beyond the colours is
    transparency; ``blocks`` are more tagged blocks.
    """
    channels, height, width = planes.shape
    width = width if bits > 1 else width * 8
    rows = _psd_rows(planes, bits)
    length = ">Q" if large else ">I"
    info = b"" if layers is None else struct.pack(">h", layers) + bytes(2)
    section = struct.pack(length, len(info)) + info + bytes(4) + blocks
    head = struct.pack(
        ">4sH6xHIIHH", b"8BPS", 2 if large else 1, channels, height, width, 1 if bits == 1 else bits, mode
    )
    head += struct.pack(">I", len(palette)) + palette
    head += struct.pack(">I", len(resources)) + resources
    head += struct.pack(length, len(section)) + section + struct.pack(">H", compression)
    flat = [row for plane in rows for row in plane]
    if compression == 0:
        return head + b"".join(flat)
    if compression == 1:
        packed = [packbits(row) for row in flat]
        return (
            head
            + b"".join(struct.pack(length[0] + ("I" if large else "H"), len(row)) for row in packed)
            + b"".join(packed)
        )
    if compression == 3:
        flat = [_predicted(row, bits) for row in flat]
    return head + zlib.compress(b"".join(flat))


def _psd_rows(planes: Array, bits: int) -> list[list[bytes]]:
    kind = {1: "u1", 8: "u1", 16: ">u2", 32: ">f4"}[bits]
    return [[row.astype(kind).tobytes() for row in plane] for plane in planes]


def _predicted(row: bytes, bits: int) -> bytes:
    if bits == 16:
        numbers = np.frombuffer(row, ">u2").astype(np.uint16)
        return np.diff(numbers, prepend=np.uint16(0)).astype(">u2").tobytes()
    data = np.frombuffer(row, np.uint8)
    if bits == 32:
        data = data.reshape(-1, 4).T.reshape(-1)
    return np.diff(data, prepend=np.uint8(0)).tobytes()


# DirectDraw surfaces


def dds(
    width: int,
    height: int,
    data: bytes,
    *,
    letters: bytes = bytes(4),
    flags: int = 4,
    bits: int = 0,
    masks: Sequence[int] = (0, 0, 0, 0),
    dxgi: int | None = None,
) -> bytes:
    """A DDS of these pixels: compressed as the four ``letters``, of a DXGI format, or by ``masks``."""
    letters = b"DX10" if dxgi is not None else letters
    pixel_format = struct.pack("<II4sI4I", 32, flags, letters, bits, *masks)
    head = struct.pack("<4sIIIIIII44x", b"DDS ", 124, 0x1007, height, width, 0, 0, 0) + pixel_format
    head += struct.pack("<I16x", 0x1000)
    return head + (b"" if dxgi is None else struct.pack("<5I", dxgi, 3, 0, 1, 0)) + data


# PCX


def pcx_runs(data: bytes) -> bytes:
    """Rows encoded as PCX does: a count before each run, and before each value that looks like a count."""
    encoded = bytearray()
    for value, group in itertools.groupby(data):
        length = len(list(group))
        while length:
            part = min(63, length)
            if part > 1 or value >= 0xC0:
                encoded.append(0xC0 | part)
            encoded.append(value)
            length -= part
    return bytes(encoded)


def pcx(
    width: int,
    rows: Iterable[Sequence[bytes]],
    bits: int,
    *,
    encoded: bool = True,
    version: int = 5,
    palette: bytes = bytes(48),
    colours: bytes = b"",
) -> bytes:
    """A PCX of ``rows``, each with the bytes of every plane. ``palette`` is that of the header, ``colours``
    the 256 at the end.
    """
    rows = list(rows)
    stride = len(rows[0][0])
    head = struct.pack("<4B6H", 10, version, int(encoded), bits, 0, 0, width - 1, len(rows) - 1, 72, 72)
    head += palette.ljust(48, b"\0") + struct.pack("<BBHH58x", 0, len(rows[0]), stride, 1)
    lines = [b"".join(planes) for planes in rows]
    data = b"".join(pcx_runs(line) if encoded else line for line in lines)
    return head.ljust(128, b"\0")[:128] + data + (b"\x0c" + colours if colours else b"")


# SGI


def sgi(pixels: Array, *, encoded: bool = True) -> bytes:
    """An SGI of an array of rows, columns and channels, of 8 or 16 bits."""
    height, width, channels = pixels.shape
    sample = pixels.dtype.itemsize
    head = struct.pack(">HBBHHHHII", 474, int(encoded), sample, 3, width, height, channels, 0, 255)
    planes = pixels[::-1].transpose(2, 0, 1).astype(f">u{sample}")
    rows = [row.tobytes() for plane in planes for row in plane]
    if not encoded:
        return head.ljust(512, b"\0") + b"".join(rows)
    packed = [_sgi_runs(row, sample) for row in rows]
    places = list(itertools.accumulate((len(row) for row in packed), initial=512 + 8 * len(rows)))[:-1]
    tables = struct.pack(f">{2 * len(rows)}I", *places, *map(len, packed))
    return head.ljust(512, b"\0") + tables + b"".join(packed)


def _sgi_runs(row: bytes, sample: int) -> bytes:
    pixels = [row[at : at + sample] for at in range(0, len(row), sample)]
    packed = bytearray()

    def count(number: int) -> bytes:
        return number.to_bytes(sample, "big")

    for value, group in itertools.groupby(pixels):
        length = len(list(group))
        while length:
            part = min(126, length)
            packed += count(part) + value if part > 1 else count(0x81) + value
            length -= part
    return bytes(packed + count(0))


# Radiance HDR


def rgbe(pixels: Array) -> Array:
    """Pixels of linear light as RGBE."""
    largest = pixels.max(axis=2)
    exponent = np.ceil(np.log2(np.maximum(largest, 1e-30)) + 1e-9)
    mantissa = np.floor(pixels * (256 / 2**exponent)[..., None])
    whole = np.dstack([mantissa, exponent + 128])
    return np.where(largest[..., None] > 1e-30, whole, 0).astype(np.uint8)


def hdr(
    pixels: Array, *, encoded: str = "channels", size: str = "-Y {height} +X {width}", kind: str = "rgbe"
) -> bytes:
    """A Radiance file of RGBE pixels: encoded by ``channels``, by repeated ``pixels``, or ``plain``."""
    height, width, _ = pixels.shape
    stated = size.format(height=height, width=width)
    head = f"#?RADIANCE\n# a test\nFORMAT=32-bit_rle_{kind}\n\n{stated}\n".encode()
    if encoded == "plain":
        return head + pixels.tobytes()
    return head + b"".join((_by_channel if encoded == "channels" else _by_pixel)(row) for row in pixels)


def _by_channel(row: Array) -> bytes:
    data = bytearray(struct.pack(">BBH", 2, 2, len(row)))
    for channel in row.T:
        for value, group in itertools.groupby(channel.tolist()):
            length = len(list(group))
            while length:
                part = min(127, length)
                data += bytes((128 + part, value)) if part > 1 else bytes((1, value))
                length -= part
    return bytes(data)


def _by_pixel(row: Array) -> bytes:
    data = bytearray()
    for value, group in itertools.groupby(map(bytes, row)):
        more = len(list(group)) - 1
        data += value
        while more:
            data += bytes((1, 1, 1, more & 255))
            more >>= 8
    return bytes(data)
