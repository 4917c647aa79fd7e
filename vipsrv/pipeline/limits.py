"""Check the limits that need only the header, before a pixel is decoded."""

from collections.abc import Collection

from vipsrv.errors import BadRequest, TooLarge, UnsupportedFormat
from vipsrv.options import Format, ImageInfo
from vipsrv.worker_config import WorkerConfig

MAX_PAGES = 10_000
"""Pages or frames. Only one of them is ever decoded; this bounds the time to read the header to 0.1 s."""


def too_many_pages(pages: int | None) -> TooLarge:
    """Return the error for more than ``MAX_PAGES`` pages; ``None`` means that not all were counted."""
    count = f"more than {MAX_PAGES}" if pages is None else f"{pages}"
    return TooLarge(f"the image has {count} pages or frames; {MAX_PAGES} are allowed")


def check_format(name: str, what: str, allowed: Collection[str] | None) -> None:
    """Raise ``UnsupportedFormat`` if the format of ``what`` is not one of those that the client may use."""
    if allowed is not None and name not in allowed:
        raise UnsupportedFormat(
            f"{what} is a {name}, which is not among the formats of this client's token: "
            f"{', '.join(sorted(allowed))}"
        )


def check_source(source: ImageInfo, config: WorkerConfig, frames: int = 1) -> None:
    """Raise ``TooLarge`` if a page of the source has too many pixels, or all of its ``frames`` together."""
    if frames > config.max_frames:
        raise TooLarge(f"the result would have {frames} frames; max-frames allows {config.max_frames}")
    if frames > 1 and source.width * source.height * frames > config.max_pixels:
        raise TooLarge(
            f"the {frames} frames have {source.width * source.height * frames} pixels "
            f"({source.width} x {source.height} each); max-pixels allows {config.max_pixels}"
        )
    if source.width * source.height > config.max_pixels:
        raise TooLarge(_over("the image", source.width, source.height, "max-pixels", config.max_pixels))


def check_result(
    width: int, height: int, format_: Format, max_side: int | None, config: WorkerConfig
) -> None:
    """Raise ``TooLarge`` if a result has too many pixels, or a side above the ``max_side`` of its format."""
    if width * height > config.max_output_pixels:
        raise TooLarge(_over("the result", width, height, "max-output-pixels", config.max_output_pixels))
    if max_side is not None and max(width, height) > max_side:
        raise TooLarge(
            f"the result would be {width} x {height}; a {format_} has at most {max_side} pixels on a side"
        )


def check_effort(effort: int | None, config: WorkerConfig) -> None:
    """Raise ``BadRequest`` if the server does not allow this effort."""
    if effort is not None and effort > config.max_effort:
        raise BadRequest(f"effort: {effort} is more than this server's max-effort, {config.max_effort}")


def _over(what: str, width: int, height: int, limit: str, allowed: int) -> str:
    return f"{what} has {width * height} pixels ({width} x {height}); {limit} allows {allowed}"
