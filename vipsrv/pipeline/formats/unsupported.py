"""The first bytes of formats that vipsrv does not read, so that a refusal can name the format."""

from vipsrv.pipeline.formats.base import signature

SIGNATURES = (
    signature("OpenEXR", rb"\x76\x2f\x31\x01"),
    signature("PostScript", rb"%!PS"),
    signature("HTML", rb"(?i:\s*<(!doctype html|html))"),
    signature("MP4 or QuickTime", rb"....ftyp"),
    signature("ZIP", rb"PK\x03\x04"),
    signature("gzip", rb"\x1f\x8b"),
)
"""In the order in which they are tried, after those of all formats that are read."""
