"""Compare images by what is seen: size, difference of pixels, SSIM; never by the bytes of a file."""

import io
from array import array
from typing import Final

from PIL import Image, ImageChops, ImageCms, ImageMath, ImageOps, ImageStat

_WHITE: Final = (255, 255, 255, 255)

# The constants of SSIM for 8-bit grey: (0.01 * 255)**2 and (0.03 * 255)**2.
_C1: Final = 6.5025
_C2: Final = 58.5225


def open_exact(data: bytes) -> Image.Image:
    """The image in `data`, fully decoded, in its own mode.

    Raises AssertionError if bytes follow the end of a JPEG, because a reply is exactly one image, and OSError
    if Pillow cannot read the image or it is truncated.
    """
    image = Image.open(io.BytesIO(data))
    image.load()
    if image.format == "JPEG":
        assert data.endswith(b"\xff\xd9"), f"{len(data)} bytes do not end with the end of the JPEG"
    return image


def mean_abs_difference(a: Image.Image, b: Image.Image) -> float:
    """The mean absolute difference over pixels and the bands of RGB, in grey levels from 0 to 255.

    Raises ValueError if the sizes differ.
    """
    _same_size(a, b)
    bands = ImageStat.Stat(ImageChops.difference(a.convert("RGB"), b.convert("RGB"))).mean
    return sum(bands) / len(bands)


def ssim(a: Image.Image, b: Image.Image) -> float:
    """The mean structural similarity of two images in grey: 1 if they are equal, about 0 if unrelated.

    Z. Wang and others, "Image quality assessment: from error visibility to structural similarity", IEEE
    Trans. Image Processing 13, 2004, over windows of 8 x 8 pixels of equal weight that overlap by half.
    Raises ValueError if the sizes differ.
    """
    _same_size(a, b)
    x, y = (image.convert("RGB").convert("L").convert("F") for image in (a, b))
    planes = (x, y, _product(x, x), _product(y, y), _product(x, y))
    width, height = a.size
    total, windows = 0.0, 0
    for left in (0, 4):
        for top in (0, 4):
            if left >= width or top >= height:
                continue
            means = [array("f", plane.reduce(8, (left, top, width, height)).tobytes()) for plane in planes]
            for mean_x, mean_y, mean_xx, mean_yy, mean_xy in zip(*means, strict=True):
                both, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
                likeness = (2 * both + _C1) * (2 * (mean_xy - both) + _C2)
                total += likeness / ((squares + _C1) * (mean_xx + mean_yy - squares + _C2))
                windows += 1
    return total / windows


def reference(image_bytes: bytes, width: int, height: int) -> Image.Image:
    """What an image should look like in RGB, stretched to `width` x `height` pixels; made by Pillow alone.

    The image (the first of several frames) is decoded at full size, rotated by its EXIF orientation,
    converted to sRGB by its colour profile, flattened onto white and reduced with Lanczos. CMYK without a
    profile is converted the simple way, 255 minus ink, which colour-managed software does not do. Raises
    OSError if Pillow cannot read the image.
    """
    opened = Image.open(io.BytesIO(image_bytes))
    image = ImageOps.exif_transpose(opened)
    # Flatten before reducing: flattening onto one colour and reducing premultiplied colours are both linear,
    # so their order does not matter, and the colours of transparent pixels never bleed into others.
    flat = _on_white(_by_gamma(_srgb(_eight_bits(image)), _gamma(opened)))
    return flat.resize((width, height), Image.Resampling.LANCZOS)


def _same_size(a: Image.Image, b: Image.Image) -> None:
    if a.size != b.size:
        raise ValueError(f"images of {a.size} and {b.size} pixels cannot be compared")


def _product(a: Image.Image, b: Image.Image) -> Image.Image:
    product: Image.Image = ImageMath.lambda_eval(lambda names: names["a"] * names["b"], a=a, b=b)
    return product


def _eight_bits(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I"):
        return image
    # 65535 is 257 * 255.
    scaled: Image.Image = ImageMath.lambda_eval(
        lambda names: (names["wide"] + 128) / 257, wide=image.convert("I")
    )
    return scaled.convert("L")


def _srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    # The default of libvips as well, without black point compensation.
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    target = "RGBA" if image.mode == "RGBA" else "RGB"
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), intent, target)
    assert converted is not None, "a copy was asked for"
    return converted


def _gamma(image: Image.Image) -> float | None:
    """The gamma of a PNG, which Pillow does not apply; `None` if another chunk counts, or it is nonsense."""
    gamma = image.info.get("gamma", 0)
    is_overruled = image.format != "PNG" or "srgb" in image.info or "icc_profile" in image.info
    return None if is_overruled or not 0.2 < gamma < 5 or abs(gamma * 2.2 - 1) < 0.05 else gamma


def _by_gamma(image: Image.Image, gamma: float | None) -> Image.Image:
    if gamma is None:
        return image
    light = [(code / 255) ** (1 / gamma) for code in range(256)]
    curve = [
        round(255 * (12.92 * one if one <= 0.0031308 else 1.055 * one ** (1 / 2.4) - 0.055)) for one in light
    ]
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.point([*curve * 3, *range(256)] if image.mode == "RGBA" else curve * 3)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, _WHITE)
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
