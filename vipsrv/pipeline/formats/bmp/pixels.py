"""Turn the rows of a bitmap, or its decoded runs, into an upright RGB image by operations that stream."""

import pyvips

from vipsrv.errors import CorruptImage
from vipsrv.pipeline.formats.base import BuiltinImage
from vipsrv.pipeline.formats.bmp import rle
from vipsrv.pipeline.formats.bmp.header import FILE_HEADER, MAX_HEADER, BmpHeader, Compression, parse_header
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.fields import PROFILE
from vipsrv.pipeline.vips.raw_rows import RowLayout, read_rows, split_by_masks, to_colours, to_numbers
from vipsrv.pipeline.vips.stopping import StopCheck

_RUNS = {Compression.RLE4, Compression.RLE8}
_SHORT = 16
_TRUE_COLOUR = 24
_BYTE_MASKS = (0xFF0000, 0xFF00, 0xFF)
_ALPHA_BYTE = 0xFF000000


def open_bmp(upload: Upload, *, tolerant: bool, watch: StopCheck | None) -> BuiltinImage:
    """Read a file's header. Raises ``CorruptImage``, ``UnsupportedFormat`` and ``TooLarge``."""
    head = upload.head(FILE_HEADER + MAX_HEADER)
    offset = int.from_bytes(head[10:FILE_HEADER], "little")
    header = parse_header(head[FILE_HEADER:], offset - FILE_HEADER if offset else None)
    return BuiltinImage(
        width=header.width,
        height=header.height,
        has_alpha=header.masks[3] != 0,
        build=lambda: open_dib(upload.view()[FILE_HEADER:], header, tolerant=tolerant, watch=watch),
        is_bgr=header.is_bgr,
    )


def open_dib(view: memoryview, header: BmpHeader, *, tolerant: bool, watch: StopCheck | None) -> pyvips.Image:
    """The image whose info header is at the beginning of ``view``: 8 bits per band, RGBA, RGB or, if the
    header says ``is_bgr``, BGR. Raises ``CorruptImage``, ``TooLarge`` and the reason of ``watch`` to stop.
    """
    if header.offset >= len(view):
        raise CorruptImage(
            f"this bmp says that its pixels begin {header.offset - len(view)} bytes after its end"
        )
    if header.compression in _RUNS:
        image = _from_runs(view, header, tolerant=tolerant, watch=watch)
    else:
        image = _from_rows(view, header, tolerant=tolerant)
    if not header.top_down:
        image = image.flip("vertical")
    image = image.copy(interpretation="srgb")
    if header.profile is not None:
        start, size = header.profile
        profile = bytes(view[start : start + size])
        if len(profile) == size:
            image.set_type(pyvips.GValue.blob_type, PROFILE, profile)
    return image


def _from_runs(
    view: memoryview, header: BmpHeader, *, tolerant: bool, watch: StopCheck | None
) -> pyvips.Image:
    indices = rle.decode(
        view[header.offset :],
        header.width,
        header.height,
        half=header.compression is Compression.RLE4,
        tolerant=tolerant,
        watch=watch,
    )
    rows = pyvips.Image.new_from_memory(indices, header.width, header.height, 1, "uchar")
    return to_colours(rows, 8, header.width, header.palette)


def _from_rows(view: memoryview, header: BmpHeader, *, tolerant: bool) -> pyvips.Image:
    layout = RowLayout(
        offset=header.offset,
        stride=header.stride,
        used=(header.width * header.bits + 7) // 8,
        height=header.height,
        pixel=1 if header.is_indexed else header.bits // 8,
    )
    rows = read_rows(view, layout, "bmp", tolerant=tolerant)
    if header.is_indexed:
        return to_colours(rows, header.bits, header.width, header.palette)
    if header.bits == _TRUE_COLOUR:
        return rows if header.is_bgr else _in_order(rows, 3)
    if header.bits == _SHORT:
        return to_numbers(rows, 2, "little").maplut(_by_masks(pyvips.Image.identity(ushort=True), header))
    if header.masks[:3] == _BYTE_MASKS and header.masks[3] in (0, _ALPHA_BYTE):
        return rows.extract_band(0, n=3) if header.is_bgr else _in_order(rows, 4 if header.masks[3] else 3)
    return _by_masks(to_numbers(rows, 4, "little"), header)


def _in_order(image: pyvips.Image, bands: int) -> pyvips.Image:
    """The bands in the order red, green, blue and, if there are four, alpha."""
    first, *others = (image[band] for band in (2, 1, 0, 3)[:bands])
    return first.bandjoin(others)


def _by_masks(numbers: pyvips.Image, header: BmpHeader) -> pyvips.Image:
    return split_by_masks(numbers, header.masks if header.masks[3] else header.masks[:3])
