"""Targets for the formats that vipsrv reads by code of its own, one for each."""

from collections.abc import Collection
from functools import partial

import pyvips

from fuzz import seeds
from fuzz.target import Target
from vipsrv.errors import CorruptImage, TooLarge, UnsupportedFormat
from vipsrv.pipeline import own
from vipsrv.pipeline.upload import Upload

_MOST_PIXELS = 1 << 18
"""Larger images are not decoded: between the header and the pixels the pipeline checks its limits."""


def formats() -> Collection[str]:
    """The names of the formats that vipsrv reads by code of its own."""
    return own.FORMATS


def _parse(format_: str, data: bytes) -> None:
    own.configure()
    reader = own.find_reader(data)
    if reader is None or reader.format != format_:
        raise UnsupportedFormat(f"this does not begin like {format_}")
    for tolerant in (True, False):
        opened = reader.open(Upload.from_memory(data), tolerant=tolerant, watch=None)
        assert opened.width >= 1
        assert opened.height >= 1
        if opened.width * opened.height > _MOST_PIXELS:
            continue
        image = opened.picture()
        assert (image.width, image.height) == (opened.width, opened.height)
        assert image.hasalpha() == opened.has_alpha
        try:
            image.write_to_memory()
        except pyvips.Error:
            # Only libvips' own decoder of an embedded image may find fault with its pixels.
            assert opened.inner is not None


TARGETS = tuple(
    Target(
        name=f"read-{format_}",
        parse=partial(_parse, format_),
        allowed=(CorruptImage, TooLarge, UnsupportedFormat),
        seeds=seeds.IMAGES[format_],
    )
    for format_ in formats()
)
