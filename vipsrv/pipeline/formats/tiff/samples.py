"""Read the samples of an unusual page as numbers: one band each, in the type of libvips that holds them.

Samples that are not 8, 16 or 32 bits are read as bytes and put together with shifts. All of it streams.
"""

import math

import numpy as np
import pyvips

from vipsrv.errors import UnsupportedFormat
from vipsrv.pipeline.formats.tiff.directory import Tag
from vipsrv.pipeline.formats.tiff.page import Compression, Numbers, Page, Photometric
from vipsrv.pipeline.formats.tiff.rearrange import (
    Fields,
    longs,
    open_rearranged,
    plane_fields,
    shorts,
)

_NATIVE_BITS = {8, 16, 32}
_DOUBLE_BITS = 64
_NO_PREDICTOR, _DIFFERENCES, _FLOAT_DIFFERENCES = 1, 2, 3
_MAX_TILES = 1 << 10
_TILE_STEP = 16
"""Pixels: libtiff reads only tiles whose sides are multiples of it."""


def read_samples(page: Page, fail_on: str) -> pyvips.Image:
    """Return the samples of a page, each as a band. Raises ``pyvips.Error`` and ``UnsupportedFormat``."""
    if not page.is_planar:
        return _read(page, page.samples, {}, fail_on)
    wanted = page.colours + (0 if page.alpha is None else page.alpha - page.colours + 1)
    first, *others = (_read(page, 1, plane_fields(page, plane), fail_on) for plane in range(wanted))
    return first.bandjoin(others)


def _read(page: Page, samples: int, fields: Fields, fail_on: str) -> pyvips.Image:
    if page.compression == Compression.JPEG:
        # The colours tell libjpeg what to make of them. A plane is grey.
        colours = Photometric.BLACK_IS_ZERO if page.is_planar else page.photometric
        return open_rearranged(
            page, {**fields, Tag.PHOTOMETRIC: shorts(colours), Tag.EXTRA_SAMPLES: None}, fail_on
        )
    is_float = page.numbers_are == Numbers.FLOAT
    predictor = page.number(Tag.PREDICTOR, _NO_PREDICTOR)
    if page.bits in _NATIVE_BITS:
        return _open(page, samples, fields, fail_on, bits=page.bits, kind=page.numbers_are)
    if is_float and predictor == _FLOAT_DIFFERENCES:
        return _read_byte_planes(page, samples, fields, fail_on)
    if predictor != _NO_PREDICTOR:
        raise UnsupportedFormat(
            f"this tiff has samples of {page.bits} bits stored as differences, which vipsrv does not read"
        )
    if page.bits == _DOUBLE_BITS:
        return _read_doubles(page, samples, fields, fail_on)
    if page.bits % 8 == 0:
        parts = _read_bytes(page, samples * page.bits // 8, fields, fail_on)
        size = page.bits // 8
        order = range(size) if page.tiff.order == ">" else range(size - 1, -1, -1)
        return _join(
            [_put_together([parts[sample * size + at] for at in order], page) for sample in range(samples)]
        )
    return _read_packed(page, samples, fields, fail_on)


def _open(page: Page, samples: int, fields: Fields, fail_on: str, *, bits: int, kind: int) -> pyvips.Image:
    """Open the page as one of plain samples."""
    colours, count = (Photometric.RGB, 3) if samples >= 3 else (Photometric.BLACK_IS_ZERO, 1)  # noqa: PLR2004
    plain: Fields = {
        **fields,
        Tag.SAMPLES: shorts(samples),
        Tag.BITS: shorts(*[bits] * samples),
        Tag.SAMPLE_FORMAT: shorts(*[kind] * samples),
        Tag.PHOTOMETRIC: shorts(colours),
        Tag.EXTRA_SAMPLES: shorts(*[0] * (samples - count)) if samples > count else None,
        Tag.COLOUR_MAP: None,
        Tag.MIN_SAMPLE: None,
        Tag.MAX_SAMPLE: None,
        Tag.SUBSAMPLING: None,
        Tag.REFERENCE_BLACK_WHITE: None,
        Tag.COEFFICIENTS: None,
        Tag.SUB_DIRECTORIES: None,
    }
    return open_rearranged(page, plain, fail_on)


def _read_bytes(page: Page, size: int, fields: Fields, fail_on: str, **more: int) -> pyvips.Image:
    """Return the bytes of each pixel, of ``size``, each as a band."""
    predictor = more.get("predictor", _NO_PREDICTOR)
    changed: Fields = {**fields, Tag.PREDICTOR: shorts(predictor)}
    return _open(page, size, changed, fail_on, bits=8, kind=Numbers.UNSIGNED)


def _read_doubles(page: Page, samples: int, fields: Fields, fail_on: str) -> pyvips.Image:
    """Read samples of 64 bits as two of 32 bits: libvips takes none from a TIFF."""
    halves = _open(page, samples * 2, fields, fail_on, bits=32, kind=Numbers.UNSIGNED)
    if page.tiff.order == ">":
        halves = _join([halves[at ^ 1] for at in range(samples * 2)])
    if page.numbers_are == Numbers.FLOAT:
        return halves.copy(bands=samples, format="double")
    parts = [(halves[at * 2], halves[at * 2 + 1]) for at in range(samples)]
    is_signed = page.numbers_are == Numbers.SIGNED
    return _join(
        [
            (high.copy(format="int") if is_signed else high).cast("double") * 2.0**32 + low
            for low, high in parts
        ]
    )


def _read_byte_planes(page: Page, samples: int, fields: Fields, fail_on: str) -> pyvips.Image:
    """Floats whose rows were divided into bytes, the most significant first, before the differences."""
    size = page.bits // 8
    block = page.number(Tag.TILE_WIDTH, 0) if page.is_tiled else page.width
    across = -(-page.width // max(1, block))
    if across > _MAX_TILES:
        raise UnsupportedFormat(
            f"this tiff has rows of {across} tiles of differences, which vipsrv does not read"
        )
    changed: Fields = {**fields, Tag.WIDTH: longs(across * block * size)}
    if page.is_tiled:
        changed = {**changed, Tag.TILE_WIDTH: longs(block * size)}
    rows = _read_bytes(page, samples, changed, fail_on, predictor=_DIFFERENCES)
    parts = []
    for at in range(size):
        crops = [rows.crop((tile * size + at) * block, 0, block, rows.height) for tile in range(across)]
        part = crops[0] if across == 1 else pyvips.Image.arrayjoin(crops, across=across)
        parts.append(part.crop(0, 0, page.width, rows.height))
    if page.bits == _DOUBLE_BITS:
        bands = [_join([part[sample] for part in reversed(parts)]) for sample in range(samples)]
        return _join([band.copy(bands=1, format="double") for band in bands])
    return _join([_put_together([part[sample] for part in parts], page) for sample in range(samples)])


def _put_together(parts: list[pyvips.Image], page: Page) -> pyvips.Image:
    """Make one number of its bytes, the most significant first."""
    if page.numbers_are == Numbers.FLOAT:
        return _float24(parts)
    if len(parts) > 4:  # noqa: PLR2004 - bytes of the widest integer of libvips
        image = parts[0].cast("double")
        for part in parts[1:]:
            image = image * 256 + part
        return image
    image = parts[0].cast("uint")
    for part in parts[1:]:
        image = (image << 8) | part.cast("uint")
    return image


def _float24(parts: list[pyvips.Image]) -> pyvips.Image:
    """Sign, seven bits of exponent with 63 for 0, sixteen of the fraction: Adobe's TIFF note 3."""
    codes = np.arange(256)
    exponents = codes & 127
    factors = np.where(codes & 128, -1.0, 1.0) * 2.0 ** (np.maximum(exponents, 1) - 63.0)
    lut = np.dstack([factors, (exponents > 0).astype(float)]).astype(np.float32)
    table = pyvips.Image.new_from_memory(lut.tobytes(), 256, 1, 2, "float")
    top = parts[0].maplut(table)
    return (top[1] + (parts[1] * 256 + parts[2]) / 65536) * top[0]


def _read_packed(page: Page, samples: int, fields: Fields, fail_on: str) -> pyvips.Image:
    """Samples that are not whole bytes: packed, the most significant bit first; each row begins a byte."""
    bits = page.bits
    if page.is_tiled:
        tile = page.number(Tag.TILE_WIDTH, 0)
        row = tile * samples * bits // 8
        if not tile or tile % _TILE_STEP:
            raise UnsupportedFormat(f"this tiff has tiles {tile} pixels wide, which vipsrv does not read")
        if row % _TILE_STEP:
            return _read_bits(page, samples, fields, fail_on)
        width = -(-page.width // tile) * row
        fields = {**fields, Tag.WIDTH: longs(width), Tag.TILE_WIDTH: longs(row)}
    else:
        width = -(-page.width * samples * bits // 8)
        fields = {**fields, Tag.WIDTH: longs(width)}
    rows = _read_bytes(page, 1, fields, fail_on)
    # So many bytes hold so many whole samples.
    group = math.lcm(bits, 8) // 8
    whole = -(-width // group) * group
    if whole > width:
        rows = rows.embed(0, 0, whole, rows.height)
    parts = rows.bandfold(factor=group) if group > 1 else rows
    count = group * 8 // bits
    numbers = _join([_bits(parts, at * bits, bits) for at in range(count)])
    if count > 1:
        numbers = numbers.bandunfold(factor=count)
    numbers = numbers.crop(0, 0, page.width * samples, numbers.height)
    return numbers.bandfold(factor=samples) if samples > 1 else numbers


def _read_bits(page: Page, samples: int, fields: Fields, fail_on: str) -> pyvips.Image:
    """Samples in tiles whose rows of bytes libtiff would refuse: read as black and white pixels."""
    bits = page.bits
    tile = page.number(Tag.TILE_WIDTH, 1) * samples * bits
    changed: Fields = {
        **fields,
        Tag.WIDTH: longs(-(-page.width * samples * bits // tile) * tile),
        Tag.TILE_WIDTH: longs(tile),
        Tag.PREDICTOR: None,
    }
    image = _open(page, 1, changed, fail_on, bits=1, kind=Numbers.UNSIGNED)
    if bits == 1:
        numbers = image & 1
    else:
        parts = image.crop(0, 0, page.width * samples * bits, image.height).bandfold(factor=bits)
        # White is 255. Up to 24 bits are exact in a float.
        weights = pyvips.Image.new_from_array([[2 ** (bits - 1 - at) / 255 for at in range(bits)]])
        exact = parts if bits <= 24 else parts.cast("double")  # noqa: PLR2004
        numbers = _narrowed((exact.recomb(weights) + 0.5), bits)
    numbers = numbers.crop(0, 0, page.width * samples, numbers.height)
    return numbers.bandfold(factor=samples) if samples > 1 else numbers


def _bits(parts: pyvips.Image, first: int, count: int) -> pyvips.Image:
    """Return ``count`` bits from the bit ``first`` on of the bytes in ``parts``."""
    number = None
    for at in range(first // 8, (first + count - 1) // 8 + 1):
        begin, end = max(first, at * 8), min(first + count, at * 8 + 8)
        part = (parts[at] >> (at * 8 + 8 - end)) & ((1 << (end - begin)) - 1)
        shift = first + count - end
        part = part.cast("ushort" if count <= 16 else "uint") << shift if shift else part  # noqa: PLR2004
        number = part if number is None else number | part
    assert number is not None, "a sample has bits"  # noqa: S101
    return _narrowed(number, count)


def _narrowed(numbers: pyvips.Image, bits: int) -> pyvips.Image:
    if bits <= 8:  # noqa: PLR2004 - a byte
        return numbers.cast("uchar")
    return numbers.cast("ushort" if bits <= 16 else "uint")  # noqa: PLR2004


def _join(bands: list[pyvips.Image]) -> pyvips.Image:
    return bands[0].bandjoin(bands[1:]) if len(bands) > 1 else bands[0]
