"""Animations made by Pillow, and by hand where Pillow does not write a feature, and how their frames look."""

import io
import struct
import zlib
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageSequence

SIZE = (60, 40)
DELAYS = (50, 120, 30, 200)
"""Milliseconds; a GIF holds hundredths of a second."""


def pictures(count: int = 4, size: tuple[int, int] = SIZE, *, alpha: bool = False) -> list[Image.Image]:
    """Frames that differ in every pixel of a moving square, on a ground of one colour or on none."""
    made = []
    for number in range(count):
        image = Image.new("RGBA", size, (20, 90, 160, 0 if alpha else 255))
        left = number * (size[0] - 20) // max(1, count - 1)
        colour = (250 - number * 40 % 200, 30 + number * 50 % 200, 20, 255)
        ImageDraw.Draw(image).rectangle([left, 8, left + 19, size[1] - 9], fill=colour)
        made.append(image)
    return made


def animation(
    kind: str,
    frames: Sequence[Image.Image] | None = None,
    *,
    delays: Sequence[int] = DELAYS,
    loop: int = 0,
    **options: object,
) -> bytes:
    """An animation as Pillow writes it; ``kind`` is GIF, WEBP or PNG."""
    first, *others = pictures() if frames is None else frames
    file = io.BytesIO()
    if kind == "WEBP":
        options = {"lossless": True, **options}
    first.save(
        file,
        kind,
        save_all=True,
        append_images=others,
        duration=list(delays)[: 1 + len(others)],
        loop=loop,
        **options,
    )
    return file.getvalue()


def seen(data: bytes) -> list[Image.Image]:
    """Each frame as Pillow shows it, with alpha."""
    with Image.open(io.BytesIO(data)) as image:
        return [frame.convert("RGBA") for frame in ImageSequence.Iterator(image)]


def timing(data: bytes) -> tuple[list[int], int | None]:
    """The milliseconds of each frame, and how often the animation is repeated, as Pillow reads them."""
    with Image.open(io.BytesIO(data)) as image:
        delays = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            delays.append(int(image.info.get("duration", 0)))
        return delays, image.info.get("loop")


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def control(
    sequence: int,
    box: tuple[int, int, int, int],
    *,
    delay: tuple[int, int] = (1, 10),
    dispose: int = 0,
    blend: int = 0,
) -> bytes:
    """The chunk fcTL of a frame at ``box``: left, top, width and height."""
    left, top, width, height = box
    data = struct.pack(">IIIIIHHBB", sequence, width, height, left, top, *delay, dispose, blend)
    return chunk(b"fcTL", data)


def pixels(image: Image.Image) -> bytes:
    """The compressed rows of an RGBA image, without filters."""
    row = image.width * 4
    raw = image.convert("RGBA").tobytes()
    rows = b"".join(b"\0" + raw[start : start + row] for start in range(0, len(raw), row))
    return zlib.compress(rows)


def apng(
    size: tuple[int, int],
    frames: Sequence[tuple[Image.Image, tuple[int, int], int, int]],
    *,
    stated: int | None = None,
    default: Image.Image | None = None,
) -> bytes:
    """An animated PNG of frames with their left and top, ``dispose_op`` and ``blend_op``; ``default`` is an
    image that is not part of the animation.
    """
    parts = [
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 6, 0, 0, 0)),
        chunk(b"acTL", struct.pack(">II", len(frames) if stated is None else stated, 0)),
    ]
    sequence = 0
    if default is not None:
        parts.append(chunk(b"IDAT", pixels(default)))
    for number, (image, place, dispose, blend) in enumerate(frames):
        parts.append(control(sequence, (*place, *image.size), dispose=dispose, blend=blend))
        sequence += 1
        if number == 0 and default is None:
            parts.append(chunk(b"IDAT", pixels(image)))
        else:
            parts.append(chunk(b"fdAT", struct.pack(">I", sequence) + pixels(image)))
            sequence += 1
    return b"".join([*parts, chunk(b"IEND", b"")])
