"""Animated PNG: the frames, each laid on the canvas of those before it.

libvips reads only the default image. Here each frame becomes a PNG of its own in memory, which libvips
decodes, and the canvas is composed of them. A default image without a frame control chunk is not part of the
animation.

Source: PNG (Third Edition), W3C, sections 4.9, 11.3.6 (acTL, fcTL, fdAT) and 13.11 (blending).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import deflate
import numpy as np
import numpy.typing as npt
import pyvips

from vipsrv.errors import CorruptImage, TooLarge
from vipsrv.pipeline.frames import Frames
from vipsrv.pipeline.header import ImageHeader
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.fields import SEQUENTIAL, with_metadata

_MAGIC_LENGTH = 8
_CHUNK_HEAD = struct.Struct(">I4s")
_CHECK = 4
"""Bytes of a checksum."""

_CHUNK_FRAME = _CHUNK_HEAD.size + _CHECK

_HEADER = struct.Struct(">II5s")
_ANIMATION = struct.Struct(">II")
_CONTROL = struct.Struct(">IIIIIHHBB")
_SEQUENCE = 4
"""Bytes of the number at the beginning of a chunk fdAT."""

_MAX_CHUNKS_BEFORE = 10_000
"""Chunks before the pixels."""

_MAX_CHUNKS = 200_000
"""Chunks in all, which take 0.1 s. An encoder makes one for each 8 KB or more."""

_MIN_FRAME = 2 * _CHUNK_FRAME + _CONTROL.size + _SEQUENCE
"""Bytes of a frame without its pixels. A file that is too small for its number of frames is no animation."""

_KEPT, _CLEARED, _RESTORED = range(3)
"""What becomes of the area of a frame when the next one is drawn (``dispose_op``)."""

_OVER = 1
"""``blend_op``: the frame is laid over the canvas; with 0 it replaces it."""

_BLEND_PIXELS = 1 << 16
"""Pixels that are blended at a time, which bounds the memory for their fractions."""

Pixels = npt.NDArray[Any]
"""Rows of pixels with alpha, of 8 or 16 bits."""


@dataclass(slots=True, kw_only=True)
class _Frame:
    """A frame: its area on the canvas in pixels, how it is drawn, and the compressed bytes of its pixels."""

    left: int
    top: int
    width: int
    height: int
    delay: int
    dispose: int
    blend: int
    data: list[memoryview] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Animation:
    """The header of the file, the palette and transparent colours, the frames, and how often they play."""

    header: bytes
    colours: bytes
    frames: list[_Frame]
    loop: int


def count_frames(upload: Upload) -> int:
    """Return how many frames the header announces; 1 for a PNG that is not animated."""
    control = _animation_control(upload)
    return 1 if control is None else control[0]


def _animation_control(upload: Upload) -> tuple[int, int] | None:
    """Return the number of frames and of plays."""
    position = _MAGIC_LENGTH
    for _ in range(_MAX_CHUNKS_BEFORE):
        head = upload.read(position, _CHUNK_HEAD.size)
        if len(head) < _CHUNK_HEAD.size:
            return None
        length, name = _CHUNK_HEAD.unpack(head)
        if name == b"acTL":
            data = upload.read(position + _CHUNK_HEAD.size, _ANIMATION.size)
            if length != _ANIMATION.size or len(data) < length:
                return None
            frames, plays = _ANIMATION.unpack(data)
            return (frames, plays) if 0 < frames <= 1 + upload.size // _MIN_FRAME else None
        if name in {b"IDAT", b"IEND"}:
            return None
        position += _CHUNK_FRAME + length
    return None


def open_frames(upload: Upload, header: ImageHeader, first: int, count: int) -> Frames:
    """Open frames of an animated PNG. Raises ``CorruptImage`` and ``TooLarge``."""
    size = header.info.width, header.info.height
    animation = _parse(upload, size, first + count)
    return Frames(
        first=first,
        count=count,
        image=header.image,
        width=size[0],
        height=size[1],
        has_alpha=True,
        delays=tuple(frame.delay for frame in animation.frames[first : first + count]),
        loop=animation.loop,
        images=lambda: _compose(animation, header, size, first),
    )


def _parse(upload: Upload, size: tuple[int, int], wanted: int) -> _Animation:
    """Find the first frames, as many as are ``wanted``. Raises ``CorruptImage`` and ``TooLarge``."""
    control = _animation_control(upload)
    if control is None:
        raise CorruptImage("this png has no frames")
    sequence = 0
    frames: list[_Frame] = []
    for chunk in _chunks(upload.view()):
        if chunk.name == b"fcTL" and len(frames) == wanted:
            break
        if chunk.name in {b"fcTL", b"fdAT"}:
            _check(chunk, sequence)
            sequence += 1
        match chunk.name:
            case b"fcTL":
                frames.append(_read_control(chunk.data, len(frames), size))
            case b"IDAT" if frames:
                frames[0].data.append(chunk.data)
            case b"fdAT" if frames:
                frames[-1].data.append(chunk.data[_SEQUENCE:])
    there = sum(bool(frame.data) for frame in frames)
    if there < wanted:
        raise CorruptImage(f"this png has {there} frames with pixels; its header states {control[0]}")
    header = upload.read(_MAGIC_LENGTH + _CHUNK_HEAD.size, _HEADER.size)
    return _Animation(header=header, colours=_colours(upload.view()), frames=frames, loop=control[1])


def _colours(data: memoryview) -> bytes:
    """Return the chunks of the palette and of the transparent colours, which every frame gets.

    Each comes once, before the pixels. Others behind the pixels could be as many as the file is long.
    """
    found: dict[bytes, bytes] = {}
    for chunk in _chunks(data):
        if chunk.name == b"IDAT":
            break
        if chunk.name in {b"PLTE", b"tRNS"}:
            found.setdefault(chunk.name, _chunk(chunk.name, chunk.data))
    return b"".join(found.values())


class _Chunk(NamedTuple):
    """A chunk: its name, its data, and its checksum."""

    name: bytes
    data: memoryview
    checksum: bytes


def _chunks(data: memoryview) -> Iterator[_Chunk]:
    """Yield the chunks of a PNG as far as they are complete. Raises ``TooLarge``."""
    position = _MAGIC_LENGTH
    for _ in range(_MAX_CHUNKS):
        if position + _CHUNK_HEAD.size > len(data):
            return
        length, name = _CHUNK_HEAD.unpack_from(data, position)
        begin = position + _CHUNK_HEAD.size
        position = begin + length + _CHECK
        if name == b"IEND" or position > len(data):
            return
        yield _Chunk(name, data[begin : begin + length], bytes(data[begin + length : position]))
    raise TooLarge(f"this png has more than {_MAX_CHUNKS} chunks")


def _check(chunk: _Chunk, sequence: int) -> None:
    """Raise ``CorruptImage`` unless this is the chunk of a frame with this number."""
    if int.from_bytes(chunk.data[:_SEQUENCE]) != sequence:
        raise CorruptImage(f"the frames of this png are out of sequence at number {sequence}")
    if deflate.crc32(chunk.data, deflate.crc32(chunk.name)) != int.from_bytes(chunk.checksum):
        raise CorruptImage(f"the frames of this png have a wrong checksum at number {sequence}")


def _read_control(data: memoryview, number: int, size: tuple[int, int]) -> _Frame:
    if len(data) != _CONTROL.size:
        raise CorruptImage(f"frame {number} of this png has a control chunk of {len(data)} bytes")
    _sequence, width, height, left, top, part, whole, dispose, blend = _CONTROL.unpack(data)
    if not (width and height and left + width <= size[0] and top + height <= size[1]):
        raise CorruptImage(f"frame {number} of this png lies outside of its canvas")
    if dispose > _RESTORED or blend > _OVER:
        raise CorruptImage(f"frame {number} of this png is drawn in an unknown way")
    return _Frame(
        left=left,
        top=top,
        width=width,
        height=height,
        delay=round(1000 * part / (whole or 100)),
        # There is nothing to restore before the first frame.
        dispose=_CLEARED if dispose == _RESTORED and number == 0 else dispose,
        blend=blend,
    )


def _compose(
    animation: _Animation, header: ImageHeader, size: tuple[int, int], first: int
) -> Iterator[pyvips.Image]:
    canvas: Pixels | None = None
    for number, frame in enumerate(animation.frames):
        pixels, interpretation = _decode(animation, frame, header.fail_on)
        if canvas is None:
            canvas = np.zeros((size[1], size[0], pixels.shape[2]), pixels.dtype)
        area = canvas[frame.top : frame.top + frame.height, frame.left : frame.left + frame.width]
        before = area.copy() if frame.dispose == _RESTORED else None
        _draw(area, pixels, over=frame.blend == _OVER)
        if number >= first:
            kind = "uchar" if canvas.dtype == np.uint8 else "ushort"
            image = pyvips.Image.new_from_memory(canvas.data, *size, canvas.shape[2], kind)
            image = with_metadata(image.copy(interpretation=interpretation), header.image)
            image.remove(SEQUENTIAL)
            yield image
        if before is not None:
            area[:] = before
        elif frame.dispose == _CLEARED:
            area[:] = 0


def _decode(animation: _Animation, frame: _Frame, fail_on: str) -> tuple[Pixels, str]:
    """Return the pixels of a frame with alpha, and their colour space. Raises ``pyvips.Error``."""
    header = _HEADER.pack(frame.width, frame.height, animation.header[8:])
    parts = [b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", header), animation.colours]
    parts += _chunk(b"IDAT", b"".join(frame.data)), _chunk(b"IEND", b"")
    # libvips reads from this memory below, and holds no reference to it.
    source = pyvips.Source.new_from_memory(b"".join(parts))
    image = pyvips.Operation.call("pngload_source", source, access="sequential", fail_on=fail_on)
    interpretation: str = image.interpretation
    if not image.hasalpha():
        image = image.addalpha()
    kind = np.uint8 if image.format == "uchar" else np.uint16
    image = image.cast("uchar" if kind is np.uint8 else "ushort")
    pixels: Pixels = np.frombuffer(image.write_to_memory(), kind)
    return pixels.reshape(frame.height, frame.width, image.bands), interpretation


def _chunk(name: bytes, data: bytes | memoryview) -> bytes:
    checksum = deflate.crc32(data, deflate.crc32(name))
    return b"".join([_CHUNK_HEAD.pack(len(data), name), data, checksum.to_bytes(4)])


def _draw(area: Pixels, pixels: Pixels, *, over: bool) -> None:
    """Draw a frame on its area of the canvas."""
    most = np.iinfo(pixels.dtype).max
    if not over or (pixels[..., -1] == most).all():
        area[:] = pixels
        return
    rows = max(1, _BLEND_PIXELS // pixels.shape[1])
    for top in range(0, pixels.shape[0], rows):
        below, above = area[top : top + rows], pixels[top : top + rows]
        # Nothing shows through an opaque pixel, and above an empty canvas.
        is_copied = (above[..., -1] == most) | (below[..., -1] == 0)
        np.copyto(below, above, where=is_copied[..., None])
        is_mixed = ~is_copied & (above[..., -1] > 0)
        if is_mixed.any():
            below[is_mixed] = _blend(below[is_mixed], above[is_mixed], most)


def _blend(below: Pixels, above: Pixels, most: int) -> Pixels:
    """Lay pixels over others, all of them straight, not premultiplied."""
    alpha, covered = above[:, -1:] / most, below[:, -1:] / most * (1 - above[:, -1:] / most)
    mixed = np.empty(above.shape)
    mixed[:, -1:] = (alpha + covered) * most
    mixed[:, :-1] = (above[:, :-1] * alpha + below[:, :-1] * covered) / (alpha + covered)
    blended: Pixels = np.rint(mixed).astype(above.dtype)
    return blended
