"""What is refused by its header alone, before a pixel is decoded."""

from vipsrv.errors import TooLarge
from vipsrv.options import Format, ImageInfo
from vipsrv.worker_config import WorkerConfig

_MOST_SIDE = {Format.JPEG: 65_500, Format.WEBP: 16_383, Format.AVIF: 16_384, Format.GIF: 65_535}
"""Pixels on a side that a format's writer takes: libjpeg's ``JPEG_MAX_DIMENSION``, the 14 bits of WebP, the
16 bits of GIF, and what libvips 8.18 allows for AVIF. PNG and TIFF take more than ``max_output_pixels``."""


def check_limits(source: ImageInfo, width: int, height: int, format_: Format, config: WorkerConfig) -> None:
    """Raises ``TooLarge``, which says the limit, what is allowed and what it would have taken.

    One page of the picture is counted, for one is decoded.
    """
    if source.width * source.height > config.max_pixels:
        raise TooLarge(_over("the image", source.width, source.height, "max-pixels", config.max_pixels))
    if width * height > config.max_output_pixels:
        raise TooLarge(_over("the result", width, height, "max-output-pixels", config.max_output_pixels))
    most = _MOST_SIDE.get(format_)
    if most is not None and max(width, height) > most:
        raise TooLarge(
            f"the result would be {width} x {height}; a {format_} has at most {most} pixels on a side"
        )


def _over(what: str, width: int, height: int, limit: str, allowed: int) -> str:
    return f"{what} has {width * height} pixels ({width} x {height}); {limit} allows {allowed}"
