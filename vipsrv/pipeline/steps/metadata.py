"""Step: remove metadata that are not true for the result.

The orientation has been applied by then: libvips removed its tag, and writes 1 into the EXIF that is kept.
But an XMP packet may contain the orientation as well, and a viewer that reads it there would rotate the
upright result again. In RDF a property is an attribute or an element, and its prefix is whatever the packet
binds to the namespace: ``tiff:Orientation="6"`` or ``<tiff:Orientation>6</tiff:Orientation>``. A packet is
assumed to be UTF-8, as it nearly always is; one in UTF-16 stays unchanged. Sources: Adobe, "XMP
Specification", part 1 (ISO 16684-1:2012) section 7 for the forms; CIPA DC-010 (2012), "Exif metadata for
XMP", for the property.
"""

import re

import pyvips

from vipsrv.options import Format, Keep
from vipsrv.pipeline.plan import DecodePlan, OutputPlan
from vipsrv.pipeline.steps.gain_map import without_gain_map
from vipsrv.pipeline.vips.fields import EXIF_THUMBNAIL, PROFILE, XMP

MAX_XMP = 1 << 20
"""Bytes: a larger packet is not searched, which would take over 20 ms, but removed. A JPEG can hold one of
64 KB."""

_MAX_PREFIXES = 8
_BINDING = re.compile(rb"""xmlns:([\w.-]{1,32})\s{0,8}=\s{0,8}["']http://ns\.adobe\.com/tiff/1\.0/["']""")


def clean_metadata(image: pyvips.Image, output: OutputPlan, _decode: DecodePlan) -> pyvips.Image:
    """Remove the EXIF thumbnail, a profile that does not fit the pixels, and what XMP says of the orientation
    and of a gain map; and the resolution, unless metadata are kept.
    """
    if output.options.keep is Keep.NONE:
        # A TIFF must have a resolution.
        return image.copy(xres=1, yres=1) if output.writer.format is Format.TIFF else image
    image = image.copy()
    for name in (EXIF_THUMBNAIL,) if output.keep_profile else (EXIF_THUMBNAIL, PROFILE):
        if image.get_typeof(name):
            image.remove(name)
    if output.options.keep is Keep.ALL and image.get_typeof(XMP):
        packet = without_orientation(image.get(XMP))
        packet = None if packet is None else without_gain_map(packet)
        if packet is None:
            image.remove(XMP)
        else:
            image.set_type(pyvips.GValue.blob_type, XMP, packet)
    return image


def without_orientation(packet: bytes) -> bytes | None:
    """Return the XMP packet with every orientation set to 1; ``None`` if it is too large to be searched."""
    if len(packet) > MAX_XMP:
        return None
    for prefix in sorted(set(_BINDING.findall(packet)))[:_MAX_PREFIXES]:
        value = rb"""(%s:Orientation\s{0,8}(?:=\s{0,8}["']|>)\s{0,8})[0-9]{1,8}""" % re.escape(prefix)
        packet = re.sub(value, rb"\g<1>1", packet)
    return packet
