"""Pictures compared by what is seen: sizes, differences of pixels and SSIM, never the bytes of a file."""

import io
from array import array
from typing import Final

from PIL import Image, ImageChops, ImageCms, ImageMath, ImageOps, ImageStat

_WHITE: Final = (255, 255, 255, 255)

# The constants of SSIM for 8-bit grey: (0.01 * 255)**2 and (0.03 * 255)**2.
_C1: Final = 6.5025
_C2: Final = 58.5225


def open_exact(data: bytes) -> Image.Image:
    """The picture in `data`, every pixel decoded, in its own mode.

    Raises AssertionError where bytes follow the end of a JPEG, for a reply is one picture and no more, and
    OSError where Pillow finds no picture or not the whole of it.
    """
    image = Image.open(io.BytesIO(data))
    image.load()
    if image.format == "JPEG":
        assert data.endswith(b"\xff\xd9"), f"{len(data)} bytes do not end with the JPEG's end"
    return image


def mean_abs_difference(a: Image.Image, b: Image.Image) -> float:
    """The mean absolute difference over pixels and the bands of RGB, in grey levels from 0 to 255.

    Raises ValueError where the sizes differ.
    """
    _same_size(a, b)
    bands = ImageStat.Stat(ImageChops.difference(a.convert("RGB"), b.convert("RGB"))).mean
    return sum(bands) / len(bands)


def ssim(a: Image.Image, b: Image.Image) -> float:
    """The mean structural similarity of two pictures in grey: 1 for equal ones, about 0 for unrelated ones.

    Z. Wang and others, "Image quality assessment: from error visibility to structural similarity", IEEE
    Trans. Image Processing 13, 2004, over windows of 8 x 8 pixels of equal weight that overlap by half.
    Raises ValueError where the sizes differ.
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


def reference(picture: bytes, width: int, height: int) -> Image.Image:
    """What `picture` should look like, RGB, stretched to `width` x `height` pixels; by Pillow alone.

    Everything is decoded at full size, turned as EXIF says, brought to sRGB by its colour profile, laid on
    white and reduced with Lanczos. CMYK without a profile is converted the simple way, 255 minus ink, which
    colour-managed software does not. Of several frames it is the first.
    Raises OSError where Pillow cannot read the picture.
    """
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(picture)))
    # On white before it is reduced: laying on one colour and reducing premultiplied colour are both linear,
    # so their order does not matter, and what is transparent never bleeds into what is not.
    flat = _on_white(_srgb(_eight_bits(image)))
    return flat.resize((width, height), Image.Resampling.LANCZOS)


def _same_size(a: Image.Image, b: Image.Image) -> None:
    if a.size != b.size:
        raise ValueError(f"pictures of {a.size} and {b.size} pixels cannot be compared")


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
    # libvips' default as well, without compensation of the black point.
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    target = "RGBA" if image.mode == "RGBA" else "RGB"
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), intent, target)
    assert converted is not None, "a copy was asked for"
    return converted


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, _WHITE)
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
