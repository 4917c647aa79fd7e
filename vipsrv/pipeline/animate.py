"""Make the frames of an animation one by one, and collect those of each result for its encoder.

Every frame goes through the same steps as a still image. libvips' own way, to resize the whole roll of
frames, mixes the last rows of a frame with the first ones of the next.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyvips

from vipsrv.errors import CorruptImage
from vipsrv.options import Keep
from vipsrv.pipeline.frames import Frames
from vipsrv.pipeline.plan import DecodePlan, OutputPlan
from vipsrv.pipeline.vips.errors import reason
from vipsrv.pipeline.vips.fields import SEQUENTIAL, set_orientation, with_metadata
from vipsrv.pipeline.vips.operations import shape
from vipsrv.pipeline.vips.stopping import StopCheck, stop_if_asked, stop_while_computing

Render = Callable[[DecodePlan, Sequence[OutputPlan]], list[tuple[OutputPlan, pyvips.Image]]]
"""Makes the image of each plan from a frame. A plan comes back with what the frame has decided for all."""

_RGBA = (4, "uchar", "srgb")
_ALPHA = 3
"""The number of the band."""

_ALPHA_SHIFT = 24
"""Where alpha is in the four bytes of a pixel as a little-endian number."""

_OPAQUE = 255
_MAX_LOOP = 65_535
"""The most plays of a WebP and of a GIF: 16 bits."""


class _Roll:
    """The frames of one result, below each other in memory; with alpha as soon as one of them needs it."""

    def __init__(self, plan: OutputPlan) -> None:
        self._plan = plan
        self._pixels = bytearray()
        self._first: pyvips.Image | None = None
        self._bands = 0

    def add(self, number: int, frame: pyvips.Image) -> None:
        if self._first is None:
            self._first, self._bands = frame, frame.bands
            self._pixels = bytearray(self._plan.frames * frame.width * frame.height * frame.bands)
        elif frame.bands > self._bands:
            self._add_alpha()
        elif frame.bands < self._bands:
            frame = frame.addalpha()
        pixels = frame.write_to_memory()
        start = number * len(pixels)
        self._pixels[start : start + len(pixels)] = pixels

    def _add_alpha(self) -> None:
        opaque = np.frombuffer(self._pixels, np.uint8).reshape(-1, self._bands)
        self._bands += 1
        pixels = bytearray(len(opaque) * self._bands)
        with_alpha = np.frombuffer(pixels, np.uint8).reshape(-1, self._bands)
        with_alpha[:, :-1], with_alpha[:, -1] = opaque, _OPAQUE
        self._pixels = pixels

    def image(self, frames: Frames, watch: StopCheck | None) -> pyvips.Image:
        first, count = self._first, self._plan.frames
        assert first is not None, "there is at least one frame"  # noqa: S101
        height = first.height * count
        roll = pyvips.Image.new_from_memory(self._pixels, first.width, height, self._bands, first.format)
        roll = roll.copy(interpretation=first.interpretation)
        if self._plan.options.keep is not Keep.NONE:
            roll = with_metadata(roll, first)
        if count > 1:
            roll.set_type(pyvips.GValue.gint_type, "page-height", first.height)
            longest = self._plan.writer.max_delay
            delays = [min(delay, longest) for delay in frames.delays]
            roll.set_type(pyvips.GValue.array_int_type, "delay", delays)
            roll.set_type(pyvips.GValue.gint_type, "loop", min(frames.loop, _MAX_LOOP))
            if watch is not None:
                stop_while_computing(roll, watch)
        return roll


def _of_frame(decode: DecodePlan, image: pyvips.Image) -> DecodePlan:
    """Return the plan for one frame.

    Most frames of an animation with alpha are opaque: it is needed for the part that changes. Without alpha
    the steps take half of the time.
    """
    header, is_opaque = decode.header, False
    if header.region is not None:
        image = image.crop(*header.region)
    if header.is_view:
        image = set_orientation(image, header.info.orientation)
    # A rotation by an angle makes transparent corners if the image has alpha.
    if shape(image)[2:] == _RGBA and not header.angle:
        image, is_opaque = _without_opaque_alpha(image)
    return replace(decode, header=header.of_frame(image, is_opaque=is_opaque))


def _without_opaque_alpha(image: pyvips.Image) -> tuple[pyvips.Image, bool]:
    """Decode an RGBA image. Return it without alpha if all of it is opaque, and whether it is.

    libvips would take three times as long to drop the band.
    """
    width, height, bands, band_format, interpretation = shape(image)
    data = image.write_to_memory()
    together = np.bitwise_and.reduce(np.frombuffer(data, "<u4"))
    is_opaque = int(together) >> _ALPHA_SHIFT == _OPAQUE
    if is_opaque:
        pixels, bands = np.frombuffer(data, np.uint8).reshape(-1, bands), _ALPHA
        data = np.empty((len(pixels), bands), np.uint8)
        for band in range(bands):  # one band at a time: NumPy copies rows of three bytes slowly
            data[:, band] = pixels[:, band]
    decoded = pyvips.Image.new_from_memory(data, width, height, bands, band_format)
    decoded = with_metadata(decoded.copy(interpretation=interpretation), image)
    decoded.remove(SEQUENTIAL)
    return decoded, is_opaque


def render_frames(decode: DecodePlan, plans: Sequence[OutputPlan], render: Render) -> list[pyvips.Image]:
    """Return the image of each plan: its frames below each other, with the fields that tell a saver so.

    Raises ``CorruptImage`` for a frame that cannot be decoded, and the reason to stop.
    """
    frames = decode.header.frames
    assert frames is not None, "called for an animation"  # noqa: S101
    rolls = [_Roll(plan) for plan in plans]
    images = frames.images()
    for number in range(frames.count):
        stop_if_asked(decode.watch)
        try:
            rendered = render(_of_frame(decode, next(images)), plans)
            plans = [plan for plan, _ in rendered]
            for roll, (_, image) in zip(rolls, rendered, strict=True):
                roll.add(number, image)
            del rendered, image
        except pyvips.Error as error:
            stop_if_asked(decode.watch)
            raise CorruptImage(
                f"frame {frames.first + number} of this {decode.header.info.format} cannot be decoded: "
                f"{reason(error)}"
            ) from error
    return [roll.image(frames, decode.watch) for roll in rolls]
