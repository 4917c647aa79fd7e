"""The names of formats by their first bytes, so that a refusal can say what was sent."""

import re

HEAD = 512
"""Bytes of a file that ``recognise`` wants to see at most."""


_SIGNATURES = [
    (name, re.compile(pattern, re.DOTALL))
    for name, pattern in [
        ("JPEG", rb"\xff\xd8\xff"),
        ("PNG", rb"\x89PNG\r\n\x1a\n"),
        ("GIF", rb"GIF8[79]a"),
        ("WebP", rb"RIFF....WEBP"),
        ("TIFF", rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]"),
        # After the word ftyp, the file's own brand, its version and the brands that it is compatible with.
        ("AVIF image sequence", rb"....ftypavis"),
        ("AVIF", rb"....ftyp(.{4}){0,16}?avif"),
        ("HEIC", rb"....ftyp(.{4}){0,16}?(hei[cxms]|hev[cxms]|mif1|msf1)"),
        ("BMP", rb"BM"),
        ("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
        ("JPEG XL", rb"\0\0\0\x0cJXL |\xff\x0a"),
        ("OS/2 bitmap array", rb"BA....\0\0\0\0.{4}(BM|IC|PT|CI|CP)"),
        ("XV thumbnail", rb"P7 332"),
        ("PNM", rb"P[1-7][\s#]"),
        ("PFM", rb"P[fF]\s"),
        ("ICO", rb"\0\0[\x01\x02]\0[^\0]\0"),
        ("Photoshop", rb"8BPS"),
        ("OpenEXR", rb"\x76\x2f\x31\x01"),
        ("Radiance HDR", rb"#\?R"),
        ("PDF", rb"%PDF-"),
        ("PostScript", rb"%!PS"),
        ("SVG", rb"(\xef\xbb\xbf)?\s*(<\?xml.*|<!--.*|<!DOCTYPE svg.*)?<svg[\s>]"),
        ("HTML", rb"(?i:\s*<(!doctype html|html))"),
        ("MP4 or QuickTime", rb"....ftyp"),
        ("ZIP", rb"PK\x03\x04"),
        ("gzip", rb"\x1f\x8b"),
        ("QOI", rb"qoif"),
        ("DDS", rb"DDS "),
        ("PCX", rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]"),
        # It has no signature: an image type without a palette or with one, bits a pixel, and flags.
        ("TGA", rb".\0[\x02\x03\x0a\x0b]\0{5}.{8}[\x08\x0f\x10\x18\x20][\0-\x3f]"),
        ("TGA", rb".\x01[\x01\x09]....[\x0f\x10\x18\x20].{8}[\x08\x10][\0-\x3f]"),
    ]
]


FORMAT_NAMES = {"JPEG 2000": "jp2", "JPEG XL": "jxl", "Radiance HDR": "hdr"}
"""What those are called among our formats whose name there is not simply this one in small letters."""


def recognise(head: bytes) -> str | None:
    """The name of the format that a file begins like, ``None`` where it begins like none of them."""
    return next((name for name, pattern in _SIGNATURES if pattern.match(head)), None)
