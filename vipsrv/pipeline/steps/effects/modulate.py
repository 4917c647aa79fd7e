"""Step: change brightness and saturation, as the CSS functions ``brightness()`` and ``saturate()`` do.

Both are one multiplication of RGB by a matrix (W3C, "Filter Effects Module Level 1", sections 6.1 and 9.6):
saturation moves a colour away from its luma or towards it, brightness multiplies. A grey stays grey at any
saturation. The same in CIE LCh takes three times as long and looks alike.
"""

import pyvips

from vipsrv.pipeline.plan import DecodePlan, OutputPlan
from vipsrv.pipeline.steps.effects.pixels import join, split

LUMA = (0.2126, 0.7152, 0.0722)
"""The parts of red, green and blue in the luma of Rec. ITU-R BT.709."""


def modulate(image: pyvips.Image, output: OutputPlan, _decode: DecodePlan) -> pyvips.Image:
    """Return the image with other brightness and saturation."""
    factors = output.options.modulate
    if factors is None or factors == (1, 1):
        return image
    colours, alpha = split(image)
    changed = colours.recomb(_matrix(*factors)) + 0.5  # the cast cuts off, it does not round
    return join(changed.cast("uchar").copy(interpretation=image.interpretation), alpha)


def _matrix(brightness: float, saturation: float) -> pyvips.Image:
    rest = brightness * (1 - saturation)
    return pyvips.Image.new_from_array(
        [
            [
                rest * part + (brightness * saturation if row == column else 0)
                for column, part in enumerate(LUMA)
            ]
            for row in range(len(LUMA))
        ]
    )
