"""The frames of an animation, opened one after another.

libvips opens an animation as a roll: one image with all frames below each other. It decodes the rows from top
to bottom, so each frame is cut from the roll, computed and dropped before the next one is decoded.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyvips

from vipsrv.pipeline.vips.fields import get_field

_DEFAULT_DELAY = 100
"""Milliseconds that a frame is shown whose delay the file does not state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """``count`` frames of an animation from ``first`` on, which counts from 0.

    ``image`` has the bands, the colour space and the metadata of each frame; its size and pixels are not
    those of a frame. ``width`` and ``height`` are those of the canvas in pixels. ``delays`` are milliseconds,
    one for each frame; ``loop`` is how often the animation is played, 0 for ever. ``images`` decodes the
    frames as a viewer sees them; each is used up before the next one is asked for. It raises
    ``pyvips.Error`` and ``CorruptImage``.
    """

    first: int
    count: int
    image: pyvips.Image
    width: int
    height: int
    has_alpha: bool
    delays: tuple[int, ...]
    loop: int
    images: Callable[[], Iterator[pyvips.Image]]

    @property
    def last(self) -> int:
        """The number of the last frame."""
        return self.first + self.count - 1


def open_roll(loader: str, source: pyvips.Source, fail_on: str, first: int, count: int) -> Frames:
    """Open frames with a loader of libvips. Raises ``pyvips.Error``."""
    roll = pyvips.Operation.call(loader, source, access="sequential", fail_on=fail_on, page=first, n=count)
    width, height = roll.width, roll.height // count

    def images() -> Iterator[pyvips.Image]:
        for number in range(count):
            yield roll.crop(0, number * height, width, height)

    delays = get_field(roll, "delay", [])[first : first + count]
    return Frames(
        first=first,
        count=count,
        image=roll,
        width=width,
        height=height,
        has_alpha=bool(roll.hasalpha()),
        delays=(*delays, *[_DEFAULT_DELAY] * (count - len(delays))),
        loop=get_field(roll, "loop", 0),
        images=images,
    )
