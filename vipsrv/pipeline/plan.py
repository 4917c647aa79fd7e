"""What each result will be, settled before anything is decoded."""

from collections.abc import Sequence
from dataclasses import dataclass

from vipsrv.errors import TooLarge
from vipsrv.options import ImageInfo, Keep, ResizeOptions
from vipsrv.pipeline.direct import FIRST_TURNED, jpeg_scale
from vipsrv.pipeline.fit import Placement, fit
from vipsrv.pipeline.header import Header
from vipsrv.pipeline.job import Job
from vipsrv.pipeline.kept_profile import has_rgb_profile
from vipsrv.pipeline.limits import check_limits
from vipsrv.pipeline.mixes import check_mix
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.writers import Writer, find_writer
from vipsrv.worker_config import WorkerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One result. ``background`` is ``None`` where transparency is kept; ``keep_profile``: its colours are
    those of the source's profile, which it carries.
    """

    options: ResizeOptions
    writer: Writer
    quality: int
    placement: Placement
    background: str | None
    keep_profile: bool

    @property
    def pixels(self) -> int:
        """How many are computed, those that ``cover`` cuts off among them."""
        across, down = self.placement.scaled
        return max(across * down, self.placement.width * self.placement.height)

    @property
    def lossless(self) -> bool:
        """Whether no quality is involved."""
        return self.options.lossless or not self.writer.lossy


def make_plan(options: ResizeOptions, header: Header, config: WorkerConfig) -> Plan:
    """The plan for one result of the page that ``header`` is of. Raises ``BadRequest`` and ``TooLarge``."""
    info = header.info
    writer = find_writer(options.format, info)
    check_mix(options, writer)
    placement = fit(options, *_seen(info))
    check_limits(info, placement.width, placement.height, writer.format, config)
    keeps_alpha = info.has_alpha and writer.alpha
    wants_profile = options.keep in {Keep.ICC, Keep.ALL} and Keep.ICC in writer.keeps
    return Plan(
        options=options,
        writer=writer,
        quality=options.quality or config.quality,
        placement=placement,
        background=None if keeps_alpha else options.background,
        keep_profile=wants_profile and has_rgb_profile(header.image),
    )


def likely_shrink(outputs: Sequence[ResizeOptions], width: int, height: int) -> int:
    """At one over how much a JPEG of ``width`` × ``height`` pixels will be decoded for all ``outputs``.

    Its EXIF orientation is not known yet; where that swaps the two, it may be another.
    """
    upright = ImageInfo(
        format="jpeg", width=width, height=height, pages=1, has_alpha=False, orientation=1, size=0
    )
    scaled = [fit(options, width, height).scaled for options in outputs]
    across, down = max(one for one, _ in scaled), max(one for _, one in scaled)
    return jpeg_scale(upright, min(width, across), min(height, down))


def check_together(plans: Sequence[Plan], config: WorkerConfig) -> None:
    """What ``make_plan`` does not see: pixels that are computed and cut off, and the sum of all, for those of
    several results are in memory at a time. Raises ``TooLarge``.
    """
    allowed = config.max_output_pixels
    for plan in plans:
        width, height = plan.placement.scaled
        if width * height > allowed:
            raise TooLarge(
                f"the result is cut from {width * height} pixels ({width} x {height}); "
                f"max-output-pixels allows {allowed}"
            )
    together = sum(plan.pixels for plan in plans)
    if together > allowed:
        raise TooLarge(
            f"the {len(plans)} results take {together} pixels together; max-output-pixels allows {allowed}"
        )


def make_job(upload: Upload, header: Header, plans: Sequence[Plan], config: WorkerConfig) -> Job:
    """The one decode that serves all ``plans``, which are for the same page: as large as the largest of them
    needs, transparency and profile kept if any of them needs those. Raises ``TooLarge``.
    """
    width = max(plan.placement.scaled[0] for plan in plans)
    height = max(plan.placement.scaled[1] for plan in plans)
    if len(plans) > 1:
        # What is larger than the picture is enlarged from it, each for itself.
        own_width, own_height = _seen(header.info)
        width, height = min(width, own_width), min(height, own_height)
        if width * height > config.max_output_pixels:
            raise TooLarge(
                f"the results need the image in {width} x {height} pixels between them; "
                f"max-output-pixels allows {config.max_output_pixels}"
            )
    backgrounds = {plan.background for plan in plans}
    return Job(
        upload=upload,
        header=header,
        width=width,
        height=height,
        background=backgrounds.pop() if len(backgrounds) == 1 else None,
        keep_profile=any(plan.keep_profile for plan in plans),
        page=plans[0].options.page,
    )


def _seen(info: ImageInfo) -> tuple[int, int]:
    turned = info.orientation >= FIRST_TURNED
    return (info.height, info.width) if turned else (info.width, info.height)
