"""A target for the frames of animated PNGs, whose chunks vipsrv finds and whose canvas it composes itself."""

from collections.abc import Iterator
from functools import cache

import pyvips
from PIL import Image

from fuzz.target import Target
from tests.support.animations import apng
from vipsrv import pipeline
from vipsrv.errors import CorruptImage, TooLarge, UnsupportedFormat
from vipsrv.pipeline.formats.png.apng import count_frames, open_frames
from vipsrv.pipeline.probe import read_header
from vipsrv.pipeline.upload import Upload

_SIDES = (7, 5)
_MOST_FRAMES = 8
_MOST_PIXELS = 1 << 18
"""Larger images are not decoded: between the header and the pixels the pipeline checks its limits."""


_start = cache(pipeline.start)
"""Find out once what libvips reads."""


def _parse(data: bytes) -> None:
    _start()
    upload = Upload.from_memory(data)
    header = read_header(upload)
    if header.info.format != "png" or header.info.width * header.info.height > _MOST_PIXELS:
        raise UnsupportedFormat("this is no small png")
    frames = open_frames(upload, header, 0, min(_MOST_FRAMES, count_frames(upload)))
    assert len(frames.delays) == frames.count
    try:
        for image in frames.images():
            assert (image.width, image.height) == (header.info.width, header.info.height)
            image.write_to_memory()
    except pyvips.Error:
        pass  # libvips' own decoder finds fault with the pixels of a frame


def _animations() -> Iterator[bytes]:
    photo = Image.linear_gradient("L").resize(_SIDES).convert("RGBA")
    part = photo.crop((0, 0, 3, 2))
    part.putalpha(90)
    for dispose in range(3):
        for blend in range(2):
            yield apng(_SIDES, [(photo, (0, 0), dispose, 0), (part, (4, 3), 0, blend), (part, (0, 1), 0, 1)])
    yield apng(_SIDES, [(part, (1, 1), 1, 1)] * 3, default=photo)


TARGETS = (
    Target(
        name="png-frames",
        parse=_parse,
        allowed=(CorruptImage, TooLarge, UnsupportedFormat),
        seeds=_animations,
    ),
)
