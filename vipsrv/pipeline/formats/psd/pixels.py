"""Turn the merged image of a Photoshop file into a libvips image.

Channels are stored one after the other. Raw and packed ones stream from the file; only those compressed by
ZIP, which Photoshop does not write here but others do, are inflated into memory.
"""

import zlib

import numpy as np
import pyvips
from numpy.typing import NDArray

from vipsrv.errors import CorruptImage, UnsupportedFormat
from vipsrv.pipeline.formats.base import BuiltinImage
from vipsrv.pipeline.formats.psd.header import (
    BITMAP_BITS,
    FLOAT_BITS,
    Alpha,
    Compression,
    Mode,
    PsdHeader,
    parse_header,
)
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.errors import reason
from vipsrv.pipeline.vips.fields import PROFILE
from vipsrv.pipeline.vips.packbits_rows import PackedPlanes, read_packed
from vipsrv.pipeline.vips.raw_rows import RowLayout, read_rows, to_colours, to_numbers
from vipsrv.pipeline.vips.stopping import StopCheck

_WHITE = {8: 255, 16: 65_535, FLOAT_BITS: 1.0}
_WIDE = 16  # bits
_HALF = {8: 128, 16: 32_768}
"""The stored number of Lab's a and b that means neutral."""

_BIT_COLOURS = (b"\xff", b"\0")
_INDICES = 256


def open_psd(upload: Upload, *, tolerant: bool, watch: StopCheck | None) -> BuiltinImage:
    """Read a file's header. Raises ``CorruptImage`` and ``UnsupportedFormat``."""
    del watch  # pixels are decoded by libvips
    header = parse_header(upload)
    return BuiltinImage(
        width=header.width,
        height=header.height,
        has_alpha=header.has_alpha,
        build=lambda: _build(upload, header, tolerant=tolerant),
    )


def _build(upload: Upload, header: PsdHeader, *, tolerant: bool) -> pyvips.Image:
    view = upload.view()
    if not header.is_merged and _is_blank(view, header, tolerant=tolerant):
        raise UnsupportedFormat(
            "this psd has no merged image, only layers, which vipsrv does not read: "
            "save it with 'Maximize Compatibility'"
        )
    image = _coloured(_planes(view, header, tolerant=tolerant), header)
    if header.profile is not None and header.mode is not Mode.LAB and header.bits != FLOAT_BITS:
        start, size = header.profile
        image = image.copy()
        image.set_type(pyvips.GValue.blob_type, PROFILE, bytes(view[start : start + size]))
    return image


def _is_blank(view: memoryview, header: PsdHeader, *, tolerant: bool) -> bool:
    """Whether every pixel is white. Some programs say so of images that are not."""
    if header.bits not in _WHITE:
        return False
    try:
        return bool(_planes(view, header, tolerant=tolerant).min() >= _WHITE[header.bits])
    except pyvips.Error as error:
        raise CorruptImage(f"this psd cannot be decoded: {reason(error)}") from error


def _planes(view: memoryview, header: PsdHeader, *, tolerant: bool) -> pyvips.Image:
    """Return the channels as they are stored, a band for each."""
    if header.compression is Compression.RAW:
        return _raw(view[header.offset :], header, tolerant=tolerant)
    if header.compression is Compression.PACKBITS:
        return _packed(view[header.offset :], header, tolerant=tolerant)
    return _raw(_inflated(view[header.offset :], header, tolerant=tolerant), header, tolerant=tolerant)


def _raw(view: memoryview, header: PsdHeader, *, tolerant: bool) -> pyvips.Image:
    plane, sample = header.row * header.height, max(1, header.bits // 8)
    planes = []
    for number in range(header.planes):
        part = view[number * plane : (number + 1) * plane]
        layout = RowLayout(offset=0, stride=header.row, used=header.row, height=header.height, pixel=sample)
        if number and tolerant and len(part) < header.row:
            rows = pyvips.Image.black(header.row // sample, header.height, bands=sample)
        else:
            rows = read_rows(part, layout, "psd", tolerant=tolerant)
        planes.append(rows)
    if header.bits == BITMAP_BITS:
        return planes[0]
    if sample > 1:
        planes = [to_numbers(rows, sample, "big") for rows in planes]
    if header.bits == FLOAT_BITS:
        planes = [rows.copy(format="float") for rows in planes]
    return planes[0].bandjoin(planes[1:]) if len(planes) > 1 else planes[0]


def _packed(view: memoryview, header: PsdHeader, *, tolerant: bool) -> pyvips.Image:
    """The counts of all rows of all channels come first."""
    entry = np.dtype(">u4" if header.is_large else ">u2")
    table = header.height * header.channels * entry.itemsize
    rows = header.height * header.planes
    if len(view) < table:
        raise CorruptImage("this psd ends within the lengths of its rows")
    counts = np.frombuffer(view[: rows * entry.itemsize], entry).astype(np.uint32)
    data = view[table:]
    total = int(counts.sum(dtype=np.int64))
    if total > len(data) and not tolerant:
        raise CorruptImage(f"this psd is truncated: its rows take {total} bytes; the file has {len(data)}")
    is_bitmap = header.bits == BITMAP_BITS
    packed = PackedPlanes(
        width=header.row if is_bitmap else header.width,
        height=header.height,
        planes=header.planes,
        bits=8 if is_bitmap else header.bits,
        counts=counts,
        data=data,
    )
    try:
        return read_packed(packed, tolerant=tolerant)
    except pyvips.Error as error:
        raise CorruptImage(f"the rows of this psd cannot be read: {reason(error)}") from error


def _inflated(view: memoryview, header: PsdHeader, *, tolerant: bool) -> memoryview:
    size = header.planes * header.height * header.row
    try:
        data = zlib.decompressobj().decompress(view, size)
    except zlib.error as error:
        raise CorruptImage(f"the compressed data of this psd cannot be read: {error}") from error
    if len(data) < size:
        if not tolerant:
            raise CorruptImage(f"this psd is truncated: its data have {len(data)} of {size} bytes")
        data = data.ljust(size, b"\0")
    if header.compression is Compression.ZIP_PREDICTED and header.bits != BITMAP_BITS:
        return _undo_prediction(np.frombuffer(data, np.uint8), header).reshape(-1).data
    return memoryview(data)


def _undo_prediction(data: NDArray[np.uint8], header: PsdHeader) -> NDArray[np.uint8]:
    """Each sample is stored as its difference from the one before; floats byte by byte, first the highest
    bytes of a row.
    """
    rows = data.reshape(-1, header.row)
    if header.bits == _WIDE:
        numbers = rows.view(">u2")
        return np.cumsum(numbers, axis=1, dtype=np.uint16).astype(">u2").view(np.uint8)
    summed = np.cumsum(rows, axis=1, dtype=np.uint8)
    if header.bits != FLOAT_BITS:
        return summed
    return np.ascontiguousarray(summed.reshape(-1, 4, header.width).transpose(0, 2, 1)).reshape(rows.shape)


def _coloured(planes: pyvips.Image, header: PsdHeader) -> pyvips.Image:
    """Return an image in a colour space of libvips, with straight alpha."""
    if header.mode is Mode.BITMAP:
        return to_colours(planes, 1, header.width, _BIT_COLOURS).copy(interpretation="b-w")
    if header.mode is Mode.INDEXED:
        return to_colours(planes, 8, header.width, _palette(header)).copy(interpretation="srgb")
    count = header.colours
    colours = planes if planes.bands == count else planes.extract_band(0, n=count)
    alpha = planes[count] if header.has_alpha else None
    if alpha is not None and header.alpha is Alpha.OVER_WHITE:
        colours = _without_white(colours, alpha, header)
    if header.bits == FLOAT_BITS:
        return _from_light(colours, alpha)
    if header.mode is Mode.LAB:
        colours, alpha, space = _from_lab(colours, header), _to_bytes(alpha), "srgb"
    elif count == 4:  # noqa: PLR2004 - inks
        # Ink is stored as what is left of the light.
        colours, alpha = (_to_bytes(one) for one in (colours, alpha))
        assert colours is not None, "there are colours"  # noqa: S101
        colours, space = colours.invert(), "cmyk"
    elif header.bits == _WIDE:
        space = "rgb16" if count > 1 else "grey16"
    else:
        space = "srgb" if count > 1 else "b-w"
    image = colours if alpha is None else colours.bandjoin(alpha)
    return image.copy(interpretation=space)


def _palette(header: PsdHeader) -> list[bytes]:
    """Return the colours as RGB, or RGBA if one is transparent. They are stored as reds, greens, blues."""
    colours = zip(
        *(header.palette[at : at + _INDICES] for at in range(0, 3 * _INDICES, _INDICES)), strict=True
    )
    if header.transparent_index is None:
        return [bytes(colour) for colour in colours]
    return [
        bytes((*colour, 0 if index == header.transparent_index else 255))
        for index, colour in enumerate(colours)
    ]


def _to_bytes(image: pyvips.Image | None) -> pyvips.Image | None:
    """Reduce samples of 16 bits to 8."""
    if image is None or image.format == "uchar":
        return image
    return image.linear(1 / 257, 0.5, uchar=True)


def _without_white(colours: pyvips.Image, alpha: pyvips.Image, header: PsdHeader) -> pyvips.Image:
    """Undo the composition over white: what is stored is ``alpha * colour + (1 - alpha) * white``."""
    white = _WHITE[header.bits]
    matte = [white, *[_HALF[header.bits]] * 2] if header.mode is Mode.LAB else [white] * header.colours
    if header.bits == FLOAT_BITS:
        share = alpha.cast("float")
        factors = (share > 0).ifthenelse(1 / share, 0)
    else:
        levels = np.arange(int(white) + 1, dtype=np.float32)
        table = np.divide(white, levels, out=np.zeros_like(levels), where=levels > 0)
        lut = pyvips.Image.new_from_memory(table.tobytes(), len(table), 1, 1, "float")
        factors = alpha.maplut(lut)
    straight = (colours - matte) * factors + matte
    return straight if header.bits == FLOAT_BITS else (straight + 0.5).cast(colours.format)


def _from_lab(colours: pyvips.Image, header: PsdHeader) -> pyvips.Image:
    """Convert to 8-bit sRGB by a profile: the white of Photoshop's Lab is D50, that of libvips' is D65."""
    step = 128 / _HALF[header.bits]
    lab = colours.linear([100 / _WHITE[header.bits], step, step], [0, -128, -128])
    rgb: pyvips.Image = lab.copy(interpretation="lab").icc_export(output_profile="srgb", pcs="lab", depth=8)
    rgb.remove(PROFILE)
    return rgb


def _from_light(colours: pyvips.Image, alpha: pyvips.Image | None) -> pyvips.Image:
    """Convert floats, which are linear light from 0 to 1, to 8-bit sRGB; what is brighter is cut off."""
    if colours.bands == 1:
        colours = colours.bandjoin([colours, colours])
    image = colours.copy(interpretation="scrgb").colourspace("srgb")
    return image if alpha is None else image.bandjoin(alpha.linear(255, 0.5, uchar=True))
