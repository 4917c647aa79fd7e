"""How results of a format are written: what they can hold, the arguments of the saver, and the cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pyvips

from vipsrv.options import MAX_EFFORT, Chroma, Format, Keep, ResizeOptions

ANY_METADATA = frozenset(Keep)

_BASE_PER_PIXEL = 40
"""Bytes per pixel: the maximum of an encoder's ``base``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeCost:
    """The cost of an encoder at its peak: ``pixel`` bytes per pixel, ``alpha`` more with an alpha channel,
    and ``base`` bytes for large results, less for small ones. ``seconds`` of CPU are per million pixels,
    about a third of the measured value, because flat images take less.
    """

    pixel: float
    seconds: float
    alpha: float = 0
    base: int = 0

    def memory(self, area: int, *, alpha: bool) -> float:
        """Return the bytes for a result of ``area`` pixels."""
        pixel = self.pixel + (self.alpha if alpha else 0)
        return pixel * area + min(self.base, _BASE_PER_PIXEL * area)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderEffort:
    """What an encoder makes of each ``effort``, from 0 to 9 (``MAX_EFFORT``).

    ``argument`` of the saver takes the value of ``values``. ``times`` is the CPU time of each effort in
    proportion to that of the writer's own options, for which its ``EncodeCost`` holds. ``lossless_times`` is
    the same for the lossless results of a lossy format, in proportion to those of ``lossless_default``: the
    effort of a request that names none, ``None`` for that of the writer's own options. ``memory`` is how many
    bytes per pixel each effort takes beyond the ``EncodeCost``, ``None`` for none.
    """

    argument: str
    values: tuple[int, ...]
    times: tuple[float, ...]
    lossless_default: int | None = None
    lossless_times: tuple[float, ...] | None = None
    memory: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for one in (self.values, self.times, self.lossless_times, self.memory):
            if one is not None and len(one) != MAX_EFFORT + 1:
                raise ValueError(f"{self.argument}: {len(one)} values for {MAX_EFFORT + 1} efforts")


def _any_chroma() -> Mapping[Chroma, Mapping[str, Any]]:
    """A format without a chroma of its own: whatever is asked, it stores colours as they are."""
    return {chroma: {} for chroma in Chroma}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressiveWriting:
    """How a saver writes a file whose first bytes show the whole image coarsely.

    ``argument`` of the saver turns it on. It takes ``times`` the CPU time, and ``pixel`` more bytes of memory
    per pixel.
    """

    argument: str
    times: float
    pixel: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PaletteWriting:
    """How the writer of a lossless format writes results with a palette, which have a quality: ``options``
    and ``effort`` of the saver besides those of the writer, and the ``cost``.
    """

    options: Mapping[str, Any]
    effort: EncoderEffort
    cost: EncodeCost


class SavePlain(Protocol):
    """A function that writes a result without metadata, with the writer's own effort."""

    def __call__(self, image: pyvips.Image, quality: int, chroma: Chroma, /) -> bytes:
        """Return the file. Raises ``pyvips.Error`` and ``InternalError``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """How results of a format are written. ``lossy``: there is a quality; ``lossless``: every pixel can be
    preserved; ``keeps``: the metadata that a request may keep (``all`` is as much as the format holds);
    ``max_side``: the most pixels on a side, ``None`` if that is above every limit of the server.

    ``untrusted_family``: the classes of a saver that some libvips does not trust, ``None`` if all do.
    ``animation``: the arguments of the saver for several frames, ``None`` if the format holds one image;
    ``max_delay``: the most milliseconds that it holds for one of them.
    ``checks_profile``: the saver fails for some of the profiles with which libvips can convert.
    ``lossless_cost`` is the cost of lossless results, ``None`` if it is the same. ``effort`` is how the saver
    takes the option ``effort``, ``None`` if it has none; ``optimizes``: it has only two efforts, which the
    option ``optimize`` names as well. ``chroma`` has the saver's arguments for each way to store the colours
    of a lossy result. ``progressive`` and ``palette`` are ``None`` for a format that has neither.
    """

    format: Format
    saver: str
    untrusted_family: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    lossy: bool
    lossless: bool
    alpha: bool
    keeps: frozenset[Keep] = ANY_METADATA
    max_side: int | None = None
    checks_profile: bool = False
    animation: Mapping[str, Any] | None = None
    max_delay: int = 0
    cost: EncodeCost
    lossless_cost: EncodeCost | None = None
    effort: EncoderEffort | None = None
    optimizes: bool = False
    chroma: Mapping[Chroma, Mapping[str, Any]] = field(default_factory=_any_chroma)
    progressive: ProgressiveWriting | None = None
    palette: PaletteWriting | None = None

    mark_transparent: Callable[[bytes], bytes] | None = None
    """Make it known of a result of several frames that it has transparency, if its encoder may not."""

    count_frames: Callable[[bytes], int] | None = None
    """Return how many frames a result has, if its encoder may write fewer than it got."""

    without_resolution: Callable[[bytes], bytes] | None = None
    """Remove the resolution from a result, if the saver always writes one."""

    save_plain: SavePlain | None = None
    """A faster way to write a lossy result of one image that ``is_plain``."""

    def has_quality(self, options: ResizeOptions) -> bool:
        """Whether a result with these options has a quality."""
        return not options.lossless and (self.lossy or self.has_palette(options))

    def has_palette(self, options: ResizeOptions) -> bool:
        """Whether a result with these options is reduced to a palette that has a quality."""
        return options.palette and self.palette is not None

    def is_plain(self, options: ResizeOptions) -> bool:
        """Whether a lossy result carries no metadata and is written with the effort of the writer's
        ``options``, row after row: only quality and chroma may differ from one such result to the next.
        """
        if options.keep is not Keep.NONE or (options.progressive and self.progressive is not None):
            return False
        effort = self._effort(options)
        if self.effort is None or effort is None:
            return True
        return bool(self.effort.values[effort] == self.options.get(self.effort.argument))

    def arguments(self, options: ResizeOptions) -> dict[str, Any]:
        """Return the arguments of the saver, but the quality and the metadata."""
        arguments = dict(self.options)
        effort, scale = self._effort(options), self.effort
        if self.lossy and options.lossless:
            arguments["lossless"] = True
            if effort is None and scale is not None:
                effort = scale.lossless_default
        elif self.lossy:
            arguments |= self.chroma.get(options.chroma, {})
        if options.palette and self.palette is not None:
            arguments |= self.palette.options
            scale = self.palette.effort
        if scale is not None and effort is not None:
            arguments[scale.argument] = scale.values[effort]
        if options.progressive and self.progressive is not None:
            arguments[self.progressive.argument] = True
        return arguments

    def cost_of(self, options: ResizeOptions) -> EncodeCost:
        """Return the cost of one encode with these options."""
        is_lossless = self.lossy and options.lossless
        cost, scale = self.cost, self.effort
        if options.palette and self.palette is not None:
            cost, scale = self.palette.cost, self.palette.effort
        elif options.lossless and self.lossless_cost is not None:
            cost = self.lossless_cost
        effort = self._effort(options)
        is_progressive = options.progressive and self.progressive is not None
        if effort is None and not is_progressive:
            return cost
        pixel, seconds = cost.pixel, cost.seconds
        if effort is not None and scale is not None:
            times = scale.lossless_times if is_lossless else scale.times
            pixel += 0 if scale.memory is None else scale.memory[effort]
            seconds *= 1 if times is None else times[effort]
        if options.progressive and self.progressive is not None:
            pixel += self.progressive.pixel
            seconds *= self.progressive.times
        return replace(cost, pixel=pixel, seconds=seconds)

    def _effort(self, options: ResizeOptions) -> int | None:
        if self.optimizes and options.optimize is not None:
            return MAX_EFFORT if options.optimize else 0
        return options.effort
