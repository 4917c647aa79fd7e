"""The frames of an animation, opened one after another.

libvips opens an animation as a roll: one image with all frames below each other. It decodes the rows from top
to bottom, so each frame is cut from the roll, computed and dropped before the next one is decoded.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyvips

from vipsrv.pipeline.vips.fields import get_field
from vipsrv.pipeline.vips.operations import PreparedOperation

_crop = PreparedOperation("crop", "input", "left", "top", "width", "height")

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


def open_roll(
    loader: str, source: pyvips.Source, fail_on: str, numbers: Sequence[int], first: int | None = None
) -> Frames:
    """Open the frames that have these rising ``numbers`` in the file of ``source`` with a loader of libvips.

    ``first`` is what the first of them is called, if that is not its number. Raises ``pyvips.Error``.
    """
    start, length = numbers[0], numbers[-1] - numbers[0] + 1
    roll = pyvips.Operation.call(loader, source, access="sequential", fail_on=fail_on, page=start, n=length)
    width, height = roll.width, roll.height // length

    def images(_source: pyvips.Source = source) -> Iterator[pyvips.Image]:
        # The source is kept here: the roll reads from its memory, and pyvips does not keep it.
        for number in numbers:
            yield _crop(roll, 0, (number - start) * height, width, height)

    delays = get_field(roll, "delay", [])
    return Frames(
        first=start if first is None else first,
        count=len(numbers),
        image=roll,
        width=width,
        height=height,
        has_alpha=bool(roll.hasalpha()),
        delays=tuple(delays[number] if number < len(delays) else _DEFAULT_DELAY for number in numbers),
        loop=get_field(roll, "loop", 0),
        images=images,
    )
