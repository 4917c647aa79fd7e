"""Targets for the formats that vipsrv reads with its own code, one for each."""

from functools import partial

import pyvips

from fuzz import seeds
from fuzz.target import Target
from vipsrv.errors import CorruptImage, TooLarge, UnsupportedFormat
from vipsrv.pipeline.formats import registry
from vipsrv.pipeline.formats.base import BuiltinReader
from vipsrv.pipeline.upload import Upload

_MOST_PIXELS = 1 << 18
"""Larger images are not decoded: between the header and the pixels the pipeline checks its limits."""


def readers() -> dict[str, BuiltinReader]:
    """Return the readers that are code of vipsrv, by the name of their format."""
    found = {format_.name: format_.reader for format_ in registry.all_formats()}
    return {name: reader for name, reader in found.items() if isinstance(reader, BuiltinReader)}


def _parse(format_: str, reader: BuiltinReader, data: bytes) -> None:
    if not reader.recognises(Upload.from_memory(data), data[: registry.HEAD]):
        raise UnsupportedFormat(f"this does not look like {format_}")
    for tolerant in (True, False):
        found = reader.open(Upload.from_memory(data), tolerant=tolerant, watch=None)
        assert found.width >= 1
        assert found.height >= 1
        if found.width * found.height > _MOST_PIXELS:
            continue
        image = found.build()
        assert (image.width, image.height) == (found.width, found.height)
        assert image.hasalpha() == found.has_alpha
        try:
            image.write_to_memory()
        except pyvips.Error:
            # Only libvips' own decoder, of an embedded image or of a part of the file, may find fault with
            # the pixels.
            assert found.embedded is not None or reader.loader_family is not None


TARGETS = tuple(
    Target(
        name=f"read-{format_}",
        parse=partial(_parse, format_, reader),
        allowed=(CorruptImage, TooLarge, UnsupportedFormat),
        seeds=seeds.IMAGES[format_],
    )
    for format_, reader in readers().items()
)
