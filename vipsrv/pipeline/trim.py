"""Find the part of a page that ``trim`` keeps: the smallest rectangle outside of which all is of one colour.

That colour is the one of the pixel in the top left corner of the upright page (or of its ``crop``). A pixel
belongs to the border if none of its bands, alpha included, differs from it by more than the threshold.
Colours are weighted by alpha, so that transparent pixels are alike whatever colour they hide.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyvips

from vipsrv.errors import CorruptImage
from vipsrv.pipeline.cost import admit_trim, held_by_trim
from vipsrv.pipeline.header import ImageHeader
from vipsrv.pipeline.limits import check_source
from vipsrv.pipeline.orientation import Region, stored_region
from vipsrv.pipeline.probe import open_page, read_header
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.view import View, open_view, part_of
from vipsrv.pipeline.vips.errors import reason
from vipsrv.pipeline.vips.stopping import StopCheck, stop_if_asked, stop_while_computing
from vipsrv.worker_config import WorkerConfig

_WIDE = {"ushort": 257}
"""What a step of 8 bits is in other formats of a band."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The terms of a job that are checked before anything is decoded; ``resize`` says what they mean.

    ``trims`` is how many views of the job are trimmed: each is decoded once for it.
    """

    config: WorkerConfig
    seconds: float | None
    heavy_ok: bool
    watch: StopCheck | None
    trims: int


def trimmed(upload: Upload, header: ImageHeader, view: View, terms: Terms, others: int) -> ImageHeader:
    """Decode the view with this ``header`` to find its borders, and return the header of it without them.

    ``others`` is how many bytes the headers of other views hold. The ``header`` cannot be used any more.
    Raises what ``resize`` raises.
    """
    assert view.trim is not None, "the caller has looked"  # noqa: S101
    info = header.info
    check_source(header.source.info, terms.config)
    admit_trim(
        upload,
        header,
        view.page,
        others,
        terms.trims,
        config=terms.config,
        seconds=terms.seconds,
        heavy_ok=terms.heavy_ok,
    )
    held, held_bytes = None, held_by_trim(header, others)
    try:
        if held_bytes:
            held = _watched(_image(header), terms).copy_memory()
            kept = kept_region(held, held, header, view.trim)
        else:
            kept = kept_region(
                _watched(_image(header), terms),
                _image(_again(upload, header, view, terms)),
                header,
                view.trim,
            )
    except pyvips.Error as error:
        stop_if_asked(terms.watch)
        raise CorruptImage(f"this {info.format} cannot be decoded: {reason(error)}") from error
    page = header.source if held_bytes else _again(upload, header, view, terms).source
    region = header.region
    if kept is not None:
        if held is not None:
            held = held.crop(*kept)
        left, top = (0, 0) if region is None else region[:2]
        region = Region(left + kept.left, top + kept.top, kept.width, kept.height)
    return part_of(
        upload, page, view.page, region, info.orientation, header.angle, held=held, held_bytes=held_bytes
    )


def _image(header: ImageHeader) -> pyvips.Image:
    return header.image if header.finish is None else header.finish(header.image)


def _again(upload: Upload, header: ImageHeader, view: View, terms: Terms) -> ImageHeader:
    """Open the view again, because an image can be read only once."""
    first = read_header(upload, tolerant=header.fail_on == "none", watch=terms.watch)
    return open_view(upload, open_page(upload, first, view.page), view)


def _watched(image: pyvips.Image, terms: Terms) -> pyvips.Image:
    if terms.watch is None:
        return image
    image = image.copy()
    stop_while_computing(image, terms.watch)
    return image


def kept_region(
    image: pyvips.Image, same: pyvips.Image, header: ImageHeader, threshold: int
) -> Region | None:
    """Return the region of ``image`` that is kept, as stored; ``None`` if all of it is, or is of one colour.

    ``same`` is the same image again, for the colour of its corner. ``header`` is that of the view whose
    pixels they have. Raises ``pyvips.Error``.
    """
    info = header.info
    corner = stored_region(Region(0, 0, 1, 1), info.upright_size, info.orientation)
    pixel = _compared(same.crop(*corner)).copy_memory()
    colour: Sequence[float] = pixel.getpoint(0, 0)
    image = _compared(image)
    left, top, width, height = image.find_trim(
        threshold=threshold * _WIDE.get(image.format, 1), background=colour, line_art=True
    )
    if not (width and height) or (width, height) == (info.width, info.height):
        return None
    return Region(left, top, width, height)


def _compared(image: pyvips.Image) -> pyvips.Image:
    """Return the image with the bands that are compared: of 8 or 16 bits, colours weighted by alpha."""
    if image.format not in {"uchar", *_WIDE}:
        image = image.colourspace("srgb")
    if image.hasalpha():
        alpha = image.extract_band(image.bands - 1)
        image = image.premultiply().cast(image.format)
        image = image.extract_band(0, n=image.bands - 1).bandjoin(alpha)
    # libvips would flatten the image if it knew of the alpha.
    return image.copy(interpretation="multiband")
