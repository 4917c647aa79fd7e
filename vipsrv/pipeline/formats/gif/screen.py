"""Show a GIF on its logical screen, as browsers do.

The decoder of libvips, libnsgif, does three things differently: it takes no notice of some screen sizes (640
x 480, 800 x 600, …, and all above 2048); it paints what no frame covers black if no frame has a transparent
colour; and it clears an opaque frame to the background colour instead of to transparency. The pixels are
right nevertheless, so they are decoded by libnsgif, from a copy of the file up to the wanted frame with two
kinds of frames added:

- a first one of a single transparent pixel in the far corner, which stretches the canvas and makes it
  transparent;
- behind each opaque frame that is to be cleared a transparent one of its size, which is cleared to
  transparency.

Sources: CompuServe, "Graphics Interchange Format, version 89a" (1990), sections 15 to 23 and appendix F; for
the canvas, which the first frame may enlarge, what Chromium and Firefox do.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import randrange

import pyvips

from vipsrv.errors import TooLarge
from vipsrv.pipeline.frames import Frames, open_roll
from vipsrv.pipeline.header import ImageHeader
from vipsrv.pipeline.limits import MAX_PAGES, too_many_pages
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.fields import with_metadata
from vipsrv.pipeline.vips.operations import PreparedOperation

_SCREEN = struct.Struct("<6xHHBBB")
_FRAME = struct.Struct("<cHHHHB")
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_CONTROL = 0xF9
_HAS_COLOURS, _COLOURS = 0x80, 7
_STAYS, _TO_BACKGROUND = 1, 2

_MAX_BLOCKS = 500_000
"""Blocks up to the frame, of 255 bytes as a rule. Looking at that many takes 0.1 s."""

_MAX_SIDE = 65_536
_ONE_CLEAR_PIXEL = bytes.fromhex("0202440100")
"""The data of an image that ends after a pixel of index 0: code size, a block of the codes 4 (clear), 0 and 5
(end)."""

_LOADER = "gifload_source"
_open = {
    fail_on: PreparedOperation(_LOADER, "source", "page", access="sequential", fail_on=fail_on)
    for fail_on in ("error", "none")
}


_MIN_SUSPICIOUS = 1 << 20
"""Bytes of a file whose frames are counted: the 70,000 that a smaller one can have are opened in 10 ms."""

_SAMPLES, _SAMPLE = 64, 1 << 12
"""How many samples are taken of the file, and their bytes: looking at them takes 0.2 ms."""

_END_AND_IMAGE = b"\0,"
"""The end of a frame, or of an extension, and the beginning of the next frame."""


class _Ends(Exception):
    """The file ends before the frame does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """A frame: where it begins (with its extensions) and ends in the file, its place on the screen in pixels,
    and its graphic control.
    """

    start: int
    end: int
    left: int
    top: int
    width: int
    height: int
    disposal: int = 0
    is_transparent: bool = False

    @property
    def is_cleared_to_a_colour(self) -> bool:
        """Whether libnsgif clears it to the colour of the background."""
        return self.disposal == _TO_BACKGROUND and not self.is_transparent

    def covers(self, width: int, height: int) -> bool:
        """Whether the frame covers a screen of this size."""
        return not (self.left or self.top) and self.width >= width and self.height >= height


def as_shown(upload: Upload, image: pyvips.Image, page: int, fail_on: str) -> pyvips.Image | None:
    """Return the frame ``page``, of which libvips made ``image``, on the logical screen; ``None`` if it is so
    already.

    Raises ``TooLarge`` and ``pyvips.Error``.
    """
    copied = _corrected(upload, image, page)
    if copied is None:
        return None
    data, frames = copied
    # It keeps a reference to the data, as pyvips' own call does not.
    shown = _open[fail_on](pyvips.Source.new_from_memory(data), frames[page])
    return with_metadata(shown, image)


def open_frames(upload: Upload, header: ImageHeader, first: int, count: int) -> Frames:
    """Open frames of an animation on the logical screen. Raises ``TooLarge`` and ``pyvips.Error``."""
    last = first + count - 1
    image = _open[header.fail_on](upload.source, 0)
    copied = _corrected(upload, image, last)
    if copied is None:
        return open_roll(_LOADER, upload.source, header.fail_on, range(first, last + 1))
    data, frames = copied
    return open_roll(_LOADER, pyvips.Source.new_from_memory(data), header.fail_on, frames[first:], first)


def _corrected(upload: Upload, image: pyvips.Image, page: int) -> tuple[bytes, list[int]] | None:
    """Return the file that libnsgif shows rightly up to the frame ``page``, and the numbers of its frames in
    it; ``None`` if the upload is such a file. ``image`` is what libvips makes of a frame.
    """
    try:
        width, height, *_ = _SCREEN.unpack(upload.head(_SCREEN.size))
        first = next(_frames(upload, data=False))
        size = max(width, first.left + first.width), max(height, first.top + first.height)
        if max(size) > _MAX_SIDE or not min(size):
            return None
        is_right = (image.width, image.height) == size and (image.hasalpha() or first.covers(*size))
        if is_right and not page:
            return None
        return _copy(upload, size, page, wanted=not is_right, opaque=not image.hasalpha())
    except (_Ends, StopIteration, struct.error):
        return None


def _copy(
    upload: Upload, size: tuple[int, int], page: int, *, wanted: bool, opaque: bool
) -> tuple[bytes, list[int]] | None:
    """The file up to the frame ``page`` with the added frames, and the numbers of all others in it.

    ``None`` if it is not ``wanted`` for another reason and no frame before ``page`` needs it. If the GIF is
    ``opaque``, every frame that does not stay makes transparency appear.
    """
    frames = []
    for frame in _frames(upload, data=True):
        frames.append(frame)
        wanted |= len(frames) <= page and frame.disposal > 1 and (opaque or frame.is_cleared_to_a_colour)
        if len(frames) > page:
            break
    if not wanted or len(frames) <= page:
        return None
    view = upload.view()
    head = bytearray(view[: frames[0].start])
    # A screen of one pixel, which the first frame enlarges.
    struct.pack_into("<HH", head, 6, 1, 1)
    parts: list[bytes | bytearray | memoryview] = [head, _added(size[0] - 1, size[1] - 1, 1, 1, _STAYS)]
    numbers, number = list[int](), 1
    for frame in frames:
        parts.append(view[frame.start : frame.end])
        numbers.append(number)
        number += 1
        if frame.is_cleared_to_a_colour and frame is not frames[-1]:
            place = frame.left, frame.top, frame.width, frame.height
            parts.append(_added(*place, _TO_BACKGROUND))
            number += 1
    parts.append(bytes([_TRAILER]))
    return b"".join(parts), numbers


def _added(left: int, top: int, width: int, height: int, disposal: int) -> bytes:
    """A frame that shows nothing: its colour 0 is transparent."""
    control = bytes([_EXTENSION, _CONTROL, 4, disposal << 2 | 1, 0, 0, 0, 0])
    return control + _FRAME.pack(bytes([_IMAGE]), left, top, width, height, 0) + _ONE_CLEAR_PIXEL


def _frames(upload: Upload, *, data: bool) -> Iterator[_Frame]:
    """Each frame up to the trailer; without ``data`` only the first one, and its ``end`` is that of its
    header.

    Raises ``_Ends``, ``struct.error`` and ``TooLarge``.
    """
    view = upload.view()
    *_, flags, _, _ = _SCREEN.unpack_from(view)
    position = _SCREEN.size + _colours(flags)
    start, disposal, is_transparent = position, 0, False
    blocks = 0
    while position < len(view):
        kind = view[position]
        if kind == _EXTENSION:
            if view[position + 1 : position + 3] == bytes([_CONTROL, 4]) and position + 8 <= len(view):
                disposal, is_transparent = view[position + 3] >> 2 & 7, bool(view[position + 3] & 1)
            position, blocks = _after_blocks(view, position + 2, blocks)
        elif kind == _IMAGE:
            _, left, top, width, height, flags = _FRAME.unpack_from(view, position)
            position += _FRAME.size + _colours(flags)
            if data:
                position, blocks = _after_blocks(view, position + 1, blocks)
            yield _Frame(
                start=start,
                end=position,
                left=left,
                top=top,
                width=width,
                height=height,
                disposal=disposal,
                is_transparent=is_transparent,
            )
            start, disposal, is_transparent = position, 0, False
        else:
            return


def _colours(flags: int) -> int:
    """The bytes of a colour table."""
    return 3 * (2 << (flags & _COLOURS)) if flags & _HAS_COLOURS else 0


def _after_blocks(view: memoryview, position: int, blocks: int) -> tuple[int, int]:
    """The position after the blocks that begin at ``position``, and the number of all blocks."""
    end = len(view)
    while position < end:
        length = view[position]
        position += length + 1
        blocks += 1
        if not length:
            return position, blocks
        if blocks > _MAX_BLOCKS:
            raise TooLarge(f"this gif has more than {_MAX_BLOCKS} blocks of data")
    raise _Ends


def check_frames(upload: Upload) -> int:
    """Raise ``TooLarge`` for far too many frames: libvips looks at all when it opens the file, and a million
    of a pixel each in 23 MB take it up to a second. The metadata take no memory: return 0.

    Frames are counted only if samples of the file look as if there were too many. Their places are random:
    a file could hide its frames from others behind comments.
    """
    if upload.size < _MIN_SUSPICIOUS:
        return 0
    places = (randrange(upload.size - _SAMPLE) for _ in range(_SAMPLES))  # noqa: S311 - keeps no secret
    ends = sum(upload.read(place, _SAMPLE).count(_END_AND_IMAGE) for place in places)
    if ends * upload.size // (_SAMPLES * _SAMPLE) > 10 * MAX_PAGES:
        try:
            frames = sum(1 for _ in islice(_frames(upload, data=True), MAX_PAGES + 1))
        except (_Ends, struct.error):
            return 0
        if frames > MAX_PAGES:
            raise too_many_pages(None)
    return 0
