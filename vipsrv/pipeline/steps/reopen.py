"""Step: open the image again, if its format has a way that takes less time to decode to the size needed.

A WebP is reduced by its decoder; the pixels of a PNG are inflated at once instead of row by row; what the
numbers of some TIFFs mean is found out from all of them. This is the first step, so that the limits were
checked and all others work with the image that comes out.
"""

import pyvips

from vipsrv.pipeline.header import Decoder
from vipsrv.pipeline.plan import DecodePlan


def reopen(image: pyvips.Image, decode: DecodePlan) -> pyvips.Image:
    """Return the image, no smaller than the plan's size. Raises ``pyvips.Error`` and ``CorruptImage``."""
    reader, header = decode.libvips_reader, decode.header
    if header.finish is not None:
        return header.finish(image)
    if reader is None or reader.reopen is None or header.decoder is not Decoder.LIBVIPS:
        return image
    width, height = decode.stored_size
    target = min(width, header.info.width), min(height, header.info.height)
    reopened = reader.reopen(decode.upload, header, decode.page, target)
    return image if reopened is None else reopened
