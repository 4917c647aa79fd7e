"""Views: which part of which page is seen, and how it is turned, before anything is resized.

A request may make several results of one view, which is decoded once. The view of a request without ``crop``,
``trim``, ``flip`` and ``rotate`` is the page itself, and costs nothing. Mirroring and quarter turns become
the orientation of the view, and a part becomes a region of the stored page: so only what is needed is
decoded, and all steps that follow treat the view like an image of its size.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import pyvips

from vipsrv.errors import BadRequest
from vipsrv.options import Flip, ResizeOptions, page_range
from vipsrv.pipeline.formats.base import LibvipsReader
from vipsrv.pipeline.formats.registry import format_named
from vipsrv.pipeline.header import Decoder, ImageHeader
from vipsrv.pipeline.orientation import Region, stored_region, turned
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.fields import set_orientation
from vipsrv.pipeline.vips.operations import Shape

_QUARTER = 90  # degrees


class View(NamedTuple):
    """The options that decide what is seen. ``page`` is the first of ``pages``. ``background`` is the colour
    of the corners that a rotation uncovers, and empty if there are none.
    """

    page: int
    pages: str | None
    crop: tuple[float, float, float, float] | None
    trim: int | None
    flip: Flip | None
    rotate: int
    background: str

    @property
    def is_page(self) -> bool:
        """Whether this is the whole page as it is stored."""
        return self.crop is None and self.trim is None and self.flip is None and not self.rotate

    @property
    def is_part(self) -> bool:
        """Whether not all of the page may be needed at the size of the result, or more than it."""
        return self.crop is not None or self.trim is not None or bool(self.rotate % _QUARTER)


def view_of(options: ResizeOptions) -> View:
    """Return the view of one result."""
    rotate = options.rotate
    background = options.background if rotate % _QUARTER else ""
    page = options.page if options.pages is None else page_range(options.pages)[0]
    return View(page, options.pages, options.crop, options.trim, options.flip, rotate, background)


def open_view(upload: Upload, page: ImageHeader, view: View) -> ImageHeader:
    """Return the header of the view of a ``page``, before it is trimmed; the page itself if that is all.

    Raises ``BadRequest`` for a crop that is not within the page, and for an animation that is to be trimmed.
    """
    if view.is_page:
        return page
    if view.trim is not None and page.frames is not None:
        raise BadRequest("trim: would cut each frame of 'pages' differently; leave one of the two out")
    info = page.info
    region = None
    if view.crop is not None:
        region = stored_region(_region(view.crop, info.upright_size), info.upright_size, info.orientation)
    angle = view.rotate % _QUARTER
    orientation = turned(info.orientation, view.flip, view.rotate - angle)
    return part_of(upload, page, view.page, region, orientation, angle)


def part_of(
    upload: Upload,
    page: ImageHeader,
    number: int,
    region: Region | None,
    orientation: int,
    angle: int,
    held: pyvips.Image | None = None,
) -> ImageHeader:
    """Return the header of a ``region`` of a page, as stored, which is seen with this ``orientation``.

    ``number`` is that of the page. ``held`` is the decoded region in its colours, if it is in memory.
    """
    info = page.info
    kept = 0 if held is None else held.width * held.height * page.pixel_bytes
    width, height = (info.width, info.height) if region is None else region[2:]

    def build() -> pyvips.Image:
        if held is not None:
            return set_orientation(held, orientation)
        image = page.image if region is None else _open_part(upload, page, number, region)
        return set_orientation(image, orientation)

    return ImageHeader(
        replace(info, width=width, height=height, orientation=orientation),
        build,
        decoder=Decoder.CORRECTED if held is not None else page.decoder,
        fail_on=page.fail_on,
        is_bgr=page.is_bgr,
        shrink=page.shrink,
        metadata_memory=page.metadata_memory + kept,
        embedded=page.embedded,
        source=page,
        region=region,
        angle=angle,
        frames=page.frames,
        notes=page.notes,
        finish=page.finish if held is None else None,
        **_known(page, width, height),
    )


def _known(page: ImageHeader, width: int, height: int) -> dict[str, Any]:
    """Return the shape and the fields of a view of a plain file, which libvips has not opened."""
    fields = page.plain_fields
    return {} if fields is None else {"shape": Shape(width, height, *page.shape[2:]), "fields": fields}


def _open_part(upload: Upload, page: ImageHeader, number: int, region: Region) -> pyvips.Image:
    """Return the region of the page. Only its rows, or its tiles, are decoded if the format allows it."""
    image = None
    reader = format_named(page.info.format).reader
    if page.decoder is Decoder.LIBVIPS and isinstance(reader, LibvipsReader) and reader.open_for_part:
        image = reader.open_for_part(upload, page, number)
    return (page.image if image is None else image).crop(*region)


def _region(crop: tuple[float, float, float, float], size: tuple[int, int]) -> Region:
    """Return the region that the option ``crop`` means in an upright page of this ``size``."""
    left, top, width, height = crop
    across, down = size
    if isinstance(left, int):
        if left + width > across or top + height > down:
            raise BadRequest(f"crop: reaches beyond the page, which has {across} x {down} pixels")
        return Region(left, int(top), int(width), int(height))
    left, width = _part(left, width, across)
    top, height = _part(top, height, down)
    return Region(left, top, width, height)


def _part(start: float, length: float, side: int) -> tuple[int, int]:
    """Return where a part in fractions begins and how long it is, in pixels: at least one.

    Both ends are rounded, so that neighbouring parts neither overlap nor leave a gap.
    """
    first = min(_rounded(start * side), side - 1)
    end = min(max(_rounded((start + length) * side), first + 1), side)
    return first, end - first


def _rounded(value: float) -> int:
    return int(value + 0.5)
