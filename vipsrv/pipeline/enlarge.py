"""Step: more pixels than the picture has.

``thumbnail`` and ``resize`` of libvips 8.18 enlarge with ``affine`` as well, but place the pixels half a
pixel of the result too far left and up and blur a side that stays as it is: 1.8 grey levels of mean
difference to Pillow's bicubic for 640 × 480 to 800 × 600, 0.04 here, in the same time.
"""

import pyvips

from vipsrv.pipeline.calls import shape


def enlarge(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    """The picture in ``width`` × ``height`` pixels, none fewer than it has, bicubic; as it is where that is
    its size. Raises ``pyvips.Error``.
    """
    own_width, own_height, *_ = shape(image)
    if (own_width, own_height) == (width, height):
        return image
    across, down = width / own_width, height / own_height
    return image.affine(
        [across, 0, 0, down],
        interpolate=pyvips.Interpolate.new("bicubic"),
        # The middle of a pixel is half a pixel from its corner in both pictures.
        odx=(across - 1) / 2,
        ody=(down - 1) / 2,
        oarea=[0, 0, width, height],
        extend="copy",
        premultiplied=True,
    )
