"""The first bytes of formats that vipsrv does not read, so that a refusal can say what was sent."""

from vipsrv.pipeline.formats.base import signature

SIGNATURES = (
    signature("Photoshop", rb"8BPS"),
    signature("OpenEXR", rb"\x76\x2f\x31\x01"),
    signature("PostScript", rb"%!PS"),
    signature("HTML", rb"(?i:\s*<(!doctype html|html))"),
    signature("MP4 or QuickTime", rb"....ftyp"),
    signature("ZIP", rb"PK\x03\x04"),
    signature("gzip", rb"\x1f\x8b"),
    signature("QOI", rb"qoif"),
    signature("DDS", rb"DDS "),
    signature("PCX", rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]"),
    # TGA has no magic number: an image type without a palette or with one, bits per pixel, and flags.
    signature("TGA", rb".\0[\x02\x03\x0a\x0b]\0{5}.{8}[\x08\x0f\x10\x18\x20][\0-\x3f]"),
    signature("TGA", rb".\x01[\x01\x09]....[\x0f\x10\x18\x20].{8}[\x08\x10][\0-\x3f]"),
)
"""In the order in which they are tried, after those of all formats that are read."""
