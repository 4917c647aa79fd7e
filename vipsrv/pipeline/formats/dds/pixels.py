"""Turn the first surface of a DDS file into an upright RGB, RGBA or grey image."""

import pyvips

from vipsrv.errors import CorruptImage, UnsupportedFormat
from vipsrv.pipeline.formats.base import BuiltinImage
from vipsrv.pipeline.formats.dds.blocks import count_blocks, decompress, has_transparent_pixels
from vipsrv.pipeline.formats.dds.header import MAX_HEADER, Blocks, DdsHeader, Masks, Palette, parse_header
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.raw_rows import RowLayout, read_rows, split_by_masks, to_colours, to_numbers
from vipsrv.pipeline.vips.stopping import StopCheck

_BGR_MASKS, _RGB_MASKS = (0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000)
_TRUE_COLOUR = 24
_GREY_BANDS = 2


def open_dds(upload: Upload, *, tolerant: bool, watch: StopCheck | None) -> BuiltinImage:
    """Read a file's header. Raises ``CorruptImage``, ``UnsupportedFormat`` and ``TooLarge``."""
    header = parse_header(upload.head(MAX_HEADER))
    has_alpha = _has_alpha(upload, header)
    return BuiltinImage(
        width=header.width,
        height=header.height,
        has_alpha=has_alpha,
        build=lambda: _build(upload.view(), header, has_alpha=has_alpha, tolerant=tolerant, watch=watch),
    )


def _has_alpha(upload: Upload, header: DdsHeader) -> bool:
    if header.layout is Blocks.BC1:
        # Only the blocks tell; 1 ms a megabyte.
        size = count_blocks(header.width) * count_blocks(header.height) * Blocks.BC1.size
        return has_transparent_pixels(upload.view()[header.offset : header.offset + size])
    if isinstance(header.layout, Masks):
        return header.layout.alpha != 0
    return header.layout in {Blocks.BC2, Blocks.BC3} or isinstance(header.layout, Palette)


def _build(
    view: memoryview, header: DdsHeader, *, has_alpha: bool, tolerant: bool, watch: StopCheck | None
) -> pyvips.Image:
    if isinstance(header.layout, Blocks):
        size = header.width, header.height
        pixels = decompress(view[header.offset :], header.layout, size, tolerant=tolerant, watch=watch)
        image = pyvips.Image.new_from_memory(
            pixels.reshape(-1).data, header.width, header.height, pixels.shape[2], "uchar"
        )
        if not has_alpha and image.bands > 3:  # noqa: PLR2004 - RGB
            image = image.extract_band(0, n=3)
    elif isinstance(header.layout, Palette):
        image = _indexed(view, header, header.layout, tolerant=tolerant)
    else:
        image = _by_masks(view, header, header.layout, tolerant=tolerant)
    image = image.copy(interpretation="b-w" if image.bands <= _GREY_BANDS else "srgb")
    if header.is_premultiplied and has_alpha:
        image = image.unpremultiply().cast("uchar")
    return image


def _rows(view: memoryview, header: DdsHeader, offset: int, pixel: int, *, tolerant: bool) -> pyvips.Image:
    stride = header.width * pixel
    layout = RowLayout(offset=offset, stride=stride, used=stride, height=header.height, pixel=pixel)
    return read_rows(view, layout, "dds", tolerant=tolerant)


def _indexed(view: memoryview, header: DdsHeader, palette: Palette, *, tolerant: bool) -> pyvips.Image:
    end = header.offset + palette.size
    table = bytes(view[header.offset : end])
    if len(table) < palette.size:
        raise CorruptImage("this dds ends within its palette")
    colours = [table[at : at + 4] for at in range(0, palette.size, 4)]
    return to_colours(_rows(view, header, end, 1, tolerant=tolerant), 8, header.width, colours)


def _by_masks(view: memoryview, header: DdsHeader, masks: Masks, *, tolerant: bool) -> pyvips.Image:
    rows = _rows(view, header, header.offset, masks.bits // 8, tolerant=tolerant)
    image = _split(rows, masks)
    if not masks.colours:
        # Alpha alone covers black.
        return pyvips.Image.black(header.width, header.height, bands=3).bandjoin(image)
    return image


def _split(rows: pyvips.Image, masks: Masks) -> pyvips.Image:
    all_masks = (*masks.colours, masks.alpha) if masks.alpha else masks.colours
    if all(mask in {0xFF << shift for shift in range(0, masks.bits, 8)} for mask in all_masks):
        # Whole bytes.
        order = [(mask.bit_length() - 1) // 8 for mask in all_masks]
        if order == list(range(rows.bands)):
            return rows
        first, *others = (rows[band] for band in order)
        return first.bandjoin(others) if others else first
    if masks.bits == _TRUE_COLOUR:
        raise UnsupportedFormat("this dds has 24 bits a pixel and no byte for each colour, which is not read")
    numbers = rows if rows.bands == 1 else to_numbers(rows, rows.bands, "little")
    return split_by_masks(numbers, all_masks)
