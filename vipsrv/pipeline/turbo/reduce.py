"""Reduce pixels with Lanczos, by SIMD instructions."""

import numpy as np

from vipsrv.pipeline.turbo.packages import rust_lib
from vipsrv.pipeline.turbo.pixels import BANDS, Pixels

Box = tuple[float, float, float, float]

# The numbers of cykooz_resizer's enums Algorithm, FilterType and PixelType.
_CONVOLUTION, _LANCZOS3, _U8X3 = 2, 5, 3


def reduce_to(pixels: Pixels, box: Box, width: int, height: int) -> Pixels:
    """Return the part of ``box`` (left, top, width and height) in ``width`` × ``height``.

    The last pixel of a scaled JPEG covers only a part of a pixel of the image if its side is not a multiple
    of the shrink factor. So ``box`` may begin and end within a pixel. If the caller keeps no reference to
    ``pixels``, their memory is freed before the result takes its own.
    """
    if box == (0, 0, width, height) == (0, 0, pixels.width, pixels.height):
        return pixels
    source = rust_lib.Image(pixels.width, pixels.height, _U8X3, pixels.array.tobytes())
    del pixels
    result = rust_lib.Image(width, height, _U8X3, None)
    options = rust_lib.RustResizeOptions()
    options = options.set_resize_alg(_CONVOLUTION, _LANCZOS3, 1).set_crop_box(*box)
    # A new one each time, because it keeps its largest intermediate image.
    rust_lib.RustResizer().resize(source, result, options)
    return Pixels(np.frombuffer(result.buffer(), np.uint8).reshape(height, width, BANDS))
