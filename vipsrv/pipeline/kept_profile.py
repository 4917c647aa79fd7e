"""A picture that stays in the RGB of its own ICC profile (``keep``), instead of becoming sRGB."""

import pyvips

from vipsrv.pipeline.srgb import PROFILE

_RGB = {"srgb", "rgb16"}


def has_rgb_profile(image: pyvips.Image) -> bool:
    """Whether the picture is RGB with a profile of its own that is sound.

    Only those keep it, as Display P3 and Adobe RGB do. Grey and CMYK become sRGB whatever is asked: most
    formats hold neither, and a background has its colour in RGB only.
    """
    if image.interpretation not in _RGB or not image.get_typeof(PROFILE):
        return False
    try:
        pixel = _with_profile_of(image, pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb"))
        pixel.icc_import(embedded=True)(0, 0)
    except pyvips.Error:
        return False
    return True


def colour_in(image: pyvips.Image, background: str, *, own_profile: bool) -> list[float]:
    """``#rrggbb`` as the numbers of a picture in sRGB or in the RGB of its ``own_profile``."""
    colour = [float(part) for part in bytes.fromhex(background[1:])]
    if not own_profile:
        return colour
    pixel = (pyvips.Image.black(1, 1, bands=3) + colour).cast("uchar").copy(interpretation="srgb")
    exported: list[float] = _with_profile_of(image, pixel.colourspace("lab")).icc_export(depth=8)(0, 0)
    return exported


def _with_profile_of(image: pyvips.Image, pixel: pyvips.Image) -> pyvips.Image:
    pixel = pixel.copy()
    pixel.set_type(pyvips.GValue.blob_type, PROFILE, image.get(PROFILE))
    return pixel
