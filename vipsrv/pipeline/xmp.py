"""The orientation in an XMP packet: a viewer that reads it there would turn an upright result again.

In RDF a property is an attribute or an element, and its prefix whatever the packet binds to the namespace:
``tiff:Orientation="6"`` or ``<tiff:Orientation>6</tiff:Orientation>``. A packet is taken to be UTF-8, as it
nearly always is; one of UTF-16 stays as it is. Sources: Adobe, "XMP Specification", part 1 (ISO 16684-1:2012)
section 7 for the forms; CIPA DC-010 (2012), "Exif metadata for XMP", for the property.
"""

import re

MOST_XMP = 1 << 20
"""Bytes: a packet above that is not searched, which takes 20 ms at worst. A JPEG holds one of 64 KB."""

_MOST_PREFIXES = 8
_BINDING = re.compile(rb"""xmlns:([\w.-]{1,32})\s{0,8}=\s{0,8}["']http://ns\.adobe\.com/tiff/1\.0/["']""")


def upright(packet: bytes) -> bytes | None:
    """The packet with every orientation as 1; ``None`` for one that is too large to look through."""
    if len(packet) > MOST_XMP:
        return None
    for prefix in sorted(set(_BINDING.findall(packet)))[:_MOST_PREFIXES]:
        value = rb"""(%s:Orientation\s{0,8}(?:=\s{0,8}["']|>)\s{0,8})[0-9]{1,8}""" % re.escape(prefix)
        packet = re.sub(value, rb"\g<1>1", packet)
    return packet
