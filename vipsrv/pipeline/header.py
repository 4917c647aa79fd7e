"""The first look at a picture: its format and what its header says. Nothing is decoded."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pyvips

from vipsrv.errors import CorruptImage, RequestError, UnsupportedFormat
from vipsrv.options import ImageInfo
from vipsrv.pipeline import layout, libvips, own, tiff
from vipsrv.pipeline.calls import Call, Shape, shape
from vipsrv.pipeline.opening import check_opening
from vipsrv.pipeline.signatures import FORMAT_NAMES, HEAD, recognise
from vipsrv.pipeline.stopping import Watch
from vipsrv.pipeline.upload import Upload

_MOST_ORIENTATION = 8  # EXIF 2.3, tag 0x0112

ShrinkFor = Callable[[int, int], int]
"""A JPEG's width and height as stored → at one over how much (1, 2, 4, 8) it will probably be decoded."""

open_jpeg = {
    fail_on: Call("jpegload_source", "source", "shrink", access="sequential", fail_on=fail_on)
    for fail_on in ("error", "none")
}
"""By ``fail_on``: a source and at one over how much it is decoded → the image."""


class Header:
    """What was read, and ``image``: the picture that is decoded when it is read.

    ``is_own`` says that vipsrv makes the picture itself, so that libvips' operations that open a file
    (``thumbnail_source`` and the like) would fail or give another: the image is all there is. ``fail_on``
    is for libvips' loaders; ``is_bgr`` says that the image's bands wait for the step ``put_in_order``.
    ``shrink``: the image is a JPEG's, to be decoded at one over that, so that it is smaller than ``info``
    says; the bands and all else are the same. ``metadata``: the bytes of memory that libvips takes for those.
    ``inner`` is the header of the picture of another format that this one is but the wrapping of, an icon's.
    """

    def __init__(
        self,
        info: ImageInfo,
        picture: Callable[[], pyvips.Image],
        *,
        is_own: bool,
        fail_on: str,
        is_bgr: bool = False,
        shrink: int = 1,
        metadata: int = 0,
        inner: "Header | None" = None,
    ) -> None:
        self.info = info
        self.is_own = is_own
        self.fail_on = fail_on
        self.is_bgr = is_bgr
        self.shrink = shrink
        self.metadata = metadata
        self.inner = inner
        self._picture = picture
        self._image: pyvips.Image | None = None
        self._shape: Shape | None = None

    @property
    def image(self) -> pyvips.Image:
        """The same each time; built by the first, which comes after the limits were checked, for a few kinds
        of picture are decoded then. Raises ``CorruptImage`` and ``TooLarge``.
        """
        if self._image is None:
            self._image = self._picture()
        return self._image

    @property
    def shape(self) -> Shape:
        """The facts of ``image``, read once: asking libvips again takes longer than most of what is told by
        them. Raises what ``image`` does.
        """
        if self._shape is None:
            self._shape = shape(self.image)
        return self._shape


def read_info(upload: Upload) -> ImageInfo:
    """What the header says. Raises ``UnsupportedFormat``, ``CorruptImage`` and ``TooLarge``."""
    libvips.forget_errors()
    return read_header(upload).info


def read_header(
    upload: Upload,
    *,
    tolerant: bool = False,
    shrink_for: ShrinkFor | None = None,
    watch: Watch | None = None,
) -> Header:
    """Recognise the format and open the header; ``tolerant`` of pictures that are truncated or corrupt.

    With ``shrink_for`` a JPEG is opened as it will be decoded, which saves opening it again (0.1 ms).
    ``watch`` is asked while our own code decodes.

    Raises ``UnsupportedFormat``, ``CorruptImage`` and ``TooLarge``.
    """
    metadata = check_opening(upload)
    head = upload.head(HEAD)
    fail_on = "none" if tolerant else "error"
    own_reader = own.find_reader(head)
    if own_reader is not None:
        opened = own_reader.open(upload, tolerant=tolerant, watch=watch)
        info = ImageInfo(
            format=own_reader.format,
            width=opened.width,
            height=opened.height,
            pages=1,
            has_alpha=opened.has_alpha,
            orientation=1,
            size=upload.size,
        )
        inner = None
        if opened.inner is not None:
            as_png = replace(info, format="png")
            inner = header_of(as_png, opened.inner, fail_on, metadata=opened.memory)
        return Header(
            info,
            opened.picture,
            is_own=True,
            fail_on=fail_on,
            is_bgr=opened.is_bgr,
            metadata=opened.memory,
            inner=inner,
        )
    reader = libvips.find_reader(upload.source, head)
    if reader is None:
        raise _refusal(head)
    if reader.format == "tiff":
        tiff.check(upload)
    try:
        reduced = _open_reduced(upload, fail_on, shrink_for) if reader.format == "jpeg" else None
        image, width, height, shrink = reduced or _open_whole(upload, reader.loader, fail_on)
    except pyvips.Error as error:
        raise CorruptImage(
            f"the header of this {reader.format} cannot be read: {libvips.reason(error)}"
        ) from error
    info = ImageInfo(
        format=reader.format,
        width=width,
        height=height,
        pages=_field(image, "n-pages", 1),
        has_alpha=bool(image.hasalpha()),
        orientation=orientation_of(image),
        size=upload.size,
    )
    return header_of(info, image, fail_on, shrink=shrink, metadata=metadata)


def _open_whole(upload: Upload, loader: str, fail_on: str) -> tuple[pyvips.Image, int, int, int]:
    """The image, its width and height, and that it is not reduced."""
    image = _opener(loader, fail_on)(upload.source)
    width, height, *_ = shape(image)
    return image, width, height, 1


def _open_reduced(
    upload: Upload, fail_on: str, shrink_for: ShrinkFor | None
) -> tuple[pyvips.Image, int, int, int] | None:
    """A JPEG's image, the width and height of the whole, and its shrink; ``None`` where it is not reduced.

    libvips does not tell the size of the whole then. What the frame header says is believed where it is the
    size of the image times the shrink but for what libvips cuts off, so that no other size gets past the
    limits than libvips has found.
    """
    size = layout.jpeg_size(upload) if shrink_for is not None else None
    if shrink_for is None or size is None:
        return None
    shrink = shrink_for(*size)
    if shrink == 1:
        return None
    image = open_jpeg[fail_on](upload.source, shrink)
    width, height, *_ = shape(image)
    if (width, height) != (size[0] // shrink, size[1] // shrink):
        return None
    return image, *size, shrink


def header_of(
    info: ImageInfo, image: pyvips.Image, fail_on: str, *, shrink: int = 1, metadata: int
) -> Header:
    """The header of what one of libvips' loaders opened."""
    if info.format == "tiff" and image.format == "char":
        return Header(info, lambda: tiff.unsigned(image), is_own=True, fail_on=fail_on, metadata=metadata)
    return Header(info, lambda: image, is_own=False, fail_on=fail_on, shrink=shrink, metadata=metadata)


@cache
def _opener(loader: str, fail_on: str) -> Call:
    return Call(loader, "source", access="sequential", fail_on=fail_on)


def _refusal(head: bytes) -> RequestError:
    name = recognise(head)
    formats = [*(one.format for one in libvips.readers()), *(one.format for one in own.readers())]
    if name is not None and FORMAT_NAMES.get(name, name.lower()) in formats:
        return CorruptImage(f"this begins like {name}, but its header cannot be read")
    what = f"this looks like {name}, which is not read here" if name else "this is no image of a known format"
    return UnsupportedFormat(f"{what}; send one of: {', '.join(formats)}")


def orientation_of(image: pyvips.Image) -> int:
    """The EXIF orientation, 1 where it is missing or none."""
    orientation: int = _field(image, "orientation", 1)
    return orientation if 1 <= orientation <= _MOST_ORIENTATION else 1


def _field(image: pyvips.Image, name: str, default: Any) -> Any:
    return image.get(name) if image.get_typeof(name) else default
