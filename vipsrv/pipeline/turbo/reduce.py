"""Reduce pixels with Lanczos, by SIMD instructions."""

from typing import Any

import numpy as np

from vipsrv.pipeline.turbo.packages import rust_lib
from vipsrv.pipeline.turbo.pixels import BANDS, Pixels

# The numbers of cykooz_resizer's enums Algorithm, FilterType and PixelType.
_CONVOLUTION, _LANCZOS3, _U8X3 = 2, 5, 3

_resizer: Any = rust_lib and rust_lib.RustResizer()


def reduce_to(pixels: Pixels, box: tuple[float, float], width: int, height: int) -> Pixels:
    """Return the part of ``box`` (width and height, from the left and top edge) in ``width`` × ``height``.

    The last pixel of a scaled JPEG covers only a part of a pixel of the image if its side is not a multiple
    of the shrink factor. So ``box`` may end within a pixel.
    """
    if (pixels.width, pixels.height) == (width, height) == box:
        return pixels
    source = rust_lib.Image(pixels.width, pixels.height, _U8X3, pixels.array.tobytes())
    result = rust_lib.Image(width, height, _U8X3, None)
    options = rust_lib.RustResizeOptions()
    options = options.set_resize_alg(_CONVOLUTION, _LANCZOS3, 1).set_crop_box(0.0, 0.0, *box)
    _resizer.resize(source, result, options)
    return Pixels(np.frombuffer(result.buffer(), np.uint8).reshape(height, width, BANDS))
