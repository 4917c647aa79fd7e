"""Plan the decode and each result before anything is decoded."""

from collections.abc import Sequence
from dataclasses import dataclass

from vipsrv.errors import TooLarge
from vipsrv.options import Keep, ResizeOptions
from vipsrv.pipeline.formats.base import LibvipsReader
from vipsrv.pipeline.formats.jpeg.shrink import shrink_factor
from vipsrv.pipeline.formats.registry import format_named
from vipsrv.pipeline.formats.writer import Writer
from vipsrv.pipeline.geometry import Geometry, fit
from vipsrv.pipeline.header import ImageHeader
from vipsrv.pipeline.icc_profile import has_rgb_profile, is_written
from vipsrv.pipeline.limits import check_effort, check_result, check_source
from vipsrv.pipeline.option_rules import check_options
from vipsrv.pipeline.orientation import size_before_rotation, size_of_rotation
from vipsrv.pipeline.output_format import find_writer
from vipsrv.pipeline.pixels import PIXELS
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.view import view_of
from vipsrv.pipeline.vips.stopping import StopCheck
from vipsrv.pipeline.watermarks import find_watermark
from vipsrv.worker_config import WorkerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPlan:
    """One result. ``background`` is ``None`` if transparency is kept. ``keep_profile``: the result keeps the
    colours of the source's ICC profile, and carries that profile. ``frames`` is how many images it has.
    ``place`` is the left and top of what ``cover`` keeps, if another frame has decided it.
    """

    options: ResizeOptions
    writer: Writer
    quality: int
    geometry: Geometry
    background: str | None
    keep_profile: bool
    frames: int = 1
    place: tuple[int, int] | None = None

    @property
    def lossless(self) -> bool:
        """Whether the result has no quality."""
        return not self.writer.has_quality(self.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePlan:
    """One page of an image that is decoded for one or several results.

    The page, or the view of it, is scaled to ``width`` × ``height``, in pixels as a viewer sees it (after a
    rotation by an angle). Its transparency is flattened onto ``background`` (``#rrggbb``), or kept if that
    is ``None``. With ``keep_profile`` its colours stay in the RGB space of the embedded profile instead of
    becoming sRGB. ``header`` is that of the ``page``, counted from 0, or of the view. ``corners`` is the
    colour that a rotation uncovers. ``direct``: libjpeg-turbo may decode the image. ``threads`` is how many
    may compute at a time; ``watch`` returns a reason if the job must stop.
    """

    upload: Upload
    header: ImageHeader
    width: int
    height: int
    background: str | None
    keep_profile: bool = False
    page: int = 0
    corners: str = "#ffffff"
    direct: bool = True
    threads: int = 1
    watch: StopCheck | None = None

    @property
    def keeps_alpha(self) -> bool:
        """Whether the decoded image still has transparency."""
        return self.background is None and self.header.info.has_alpha

    @property
    def stored_size(self) -> tuple[int, int]:
        """The target size before the image is rotated by its orientation."""
        return self.header.info.swap_if_rotated(*self.upright_size)

    @property
    def upright_size(self) -> tuple[int, int]:
        """The target size before the upright image is rotated by an angle; then it is not enlarged."""
        header = self.header
        if not header.angle:
            return self.width, self.height
        return size_before_rotation(header.info.upright_size, header.seen_size, (self.width, self.height))

    @property
    def libvips_reader(self) -> LibvipsReader | None:
        """The reader of the page's format; ``None`` for a built-in format."""
        reader = format_named(self.header.info.format).reader
        return reader if isinstance(reader, LibvipsReader) else None


def plan_output(
    options: ResizeOptions, header: ImageHeader, config: WorkerConfig, *, as_pixels: bool = False
) -> OutputPlan:
    """Plan one result of the page with this header, a file or ``as_pixels``.

    Raises ``BadRequest`` and ``TooLarge``.
    """
    info = header.info
    frames = 1 if header.frames is None else header.frames.count
    writer = PIXELS if as_pixels else find_writer(options.format, info, frames)
    check_options(options, writer, frames)
    if options.watermark is not None:
        find_watermark(options.watermark)
    if writer.effort is not None:
        check_effort(options.effort, config)
    geometry = fit(options, *header.seen_size)
    check_source(header.source.info, config, frames)
    check_result(geometry.width, geometry.height, writer.format, writer.max_side, config)
    _check_rotation(header, geometry.scaled, config)
    keeps_alpha = info.has_alpha and writer.alpha
    wants_profile = options.keep in {Keep.ICC, Keep.ALL} and Keep.ICC in writer.keeps
    return OutputPlan(
        options=options,
        writer=writer,
        quality=options.quality or config.quality,
        geometry=geometry,
        background=None if keeps_alpha else options.background,
        keep_profile=wants_profile
        and header.colours is None
        and has_rgb_profile(header.image)
        and (not writer.checks_profile or is_written(header.image, writer.saver)),
        frames=frames,
    )


def _check_rotation(header: ImageHeader, target: tuple[int, int], config: WorkerConfig) -> None:
    if not header.angle:
        return
    across, down = size_of_rotation(header.seen_size, target)
    if across * down > config.max_output_pixels:
        raise TooLarge(
            f"rotate: {across} x {down} pixels are rotated and then stretched to {target[0]} x {target[1]}; "
            f"max-output-pixels allows {config.max_output_pixels}"
        )


def likely_shrink(outputs: Sequence[ResizeOptions], width: int, height: int) -> int:
    """Return the shrink factor (1, 2, 4, 8) at which a JPEG of ``width`` × ``height`` pixels will be decoded
    for all ``outputs``.

    The EXIF orientation is not known yet; if it swaps width and height, the factor may turn out different.
    """
    if any(view_of(options).is_part for options in outputs):
        return 1
    scaled = [fit(options, width, height).scaled for options in outputs]
    across, down = max(one for one, _ in scaled), max(one for _, one in scaled)
    return shrink_factor((width, height), (min(width, across), min(height, down)))


def check_together(plans: Sequence[OutputPlan], config: WorkerConfig) -> None:
    """Check what ``plan_output`` cannot: pixels that are computed and then cropped, and the sum of all
    results, which are in memory at the same time. Raises ``TooLarge``.
    """
    allowed = config.max_output_pixels
    for plan in plans:
        width, height = plan.geometry.scaled
        if width * height > allowed:
            raise TooLarge(
                f"the result is cropped from {width * height} pixels ({width} x {height}); "
                f"max-output-pixels allows {allowed}"
            )
    together = sum(plan.geometry.computed_pixels * plan.frames for plan in plans)
    if together > allowed:
        frames = max(plan.frames for plan in plans)
        if frames > 1:
            raise TooLarge(
                f"the {frames} frames of the result take {together} pixels together; "
                f"max-output-pixels allows {allowed}"
            )
        raise TooLarge(
            f"the {len(plans)} results take {together} pixels together; max-output-pixels allows {allowed}"
        )


def plan_decode(
    upload: Upload, header: ImageHeader, plans: Sequence[OutputPlan], config: WorkerConfig
) -> DecodePlan:
    """Plan the one decode that serves all ``plans``, which are for the same page. It is as large as the
    largest of them needs, and keeps transparency and profile if any of them does. Raises ``TooLarge``.
    """
    width = max(plan.geometry.scaled[0] for plan in plans)
    height = max(plan.geometry.scaled[1] for plan in plans)
    if len(plans) > 1:
        # Results that are larger than the image are enlarged from it one by one.
        own_width, own_height = header.seen_size
        width, height = min(width, own_width), min(height, own_height)
        if width * height > config.max_output_pixels:
            raise TooLarge(
                f"the results together need a decode of {width} x {height} pixels; "
                f"max-output-pixels allows {config.max_output_pixels}"
            )
        _check_rotation(header, (width, height), config)
    backgrounds = {plan.background for plan in plans}
    return DecodePlan(
        upload=upload,
        header=header,
        width=width,
        height=height,
        background=backgrounds.pop() if len(backgrounds) == 1 else None,
        keep_profile=any(plan.keep_profile for plan in plans),
        page=view_of(plans[0].options).page,
        corners=plans[0].options.background,
    )
