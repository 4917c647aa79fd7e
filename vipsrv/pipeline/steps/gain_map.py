"""Remove from an XMP packet what names a gain map or another image that the result does not have.

A gain map is an image of its own behind the photo; a result is the photo alone. A viewer that still finds the
gain map's parameters would look for it, and take the photo for brighter than it is. Sources: Adobe, "Gain Map
Specification" 1.0; Google, "Ultra HDR Image Format v1.1" (for the container's directory).
"""

import re

_GAIN_MAPS = (b"http://ns.adobe.com/hdr-gain-map/1.0/", b"http://ns.apple.com/HDRGainMap/1.0/")
_CONTAINER = b"http://ns.google.com/photos/1.0/container/"
_NAMES = (b"GainMap", b"gain-map")
_MAX_PACKET = 1 << 17
"""Bytes: a larger packet that names a gain map is removed as a whole. The segment of a JPEG has 64 KB."""

_MAX_PREFIXES = 8
_MAX_ELEMENTS = 200


def without_gain_map(packet: bytes) -> bytes | None:
    """Return the packet without gain map; ``None`` if it cannot be taken out."""
    if not any(name in packet for name in _NAMES):
        return packet
    if len(packet) > _MAX_PACKET:
        return None
    for namespace in (*_GAIN_MAPS, _CONTAINER):
        # ``item/`` is a namespace of its own, within the directory.
        binding = rb"""xmlns:([\w.-]{1,32})\s{0,8}=\s{0,8}["']%s(?:item/)?["']""" % re.escape(namespace)
        for prefix in sorted(set(re.findall(binding, packet)))[:_MAX_PREFIXES]:
            cleaned = _without_elements(packet, prefix)
            if cleaned is None:
                return None
            quoted = rb"""\s{0,8}=\s{0,8}(?:"[^"<]*"|'[^'<]*')"""
            name = rb"""\s(?:%s:[\w.-]{1,64}|xmlns:%s)""" % (re.escape(prefix), re.escape(prefix))
            packet = re.sub(name + quoted, b"", cleaned)
    return None if any(name in packet for name in _NAMES) else packet


def _without_elements(packet: bytes, prefix: bytes) -> bytes | None:
    """The packet without the elements of this prefix and all within them; ``None`` if they do not end."""
    opening = re.compile(rb"<(%s:[\w.-]{1,64})[\s/>]" % re.escape(prefix))
    for _ in range(_MAX_ELEMENTS):
        found = opening.search(packet)
        if found is None:
            return packet
        end = packet.find(b">", found.start())
        if packet[end - 1 : end] != b"/":
            closing = packet.find(b"</%s>" % found[1], end)
            end = -1 if closing < 0 else packet.find(b">", closing)
        if end < 0:
            return None
        packet = packet[: found.start()] + packet[end + 1 :]
    return None
