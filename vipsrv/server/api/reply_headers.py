"""Facts about image, results and times as header fields of a reply.

``Vipsrv-Source``, ``Vipsrv-Result``, ``Vipsrv-Ratio`` and ``Vipsrv-Placeholder`` are structured fields (RFC
9651): an Item, a List of Items, a Decimal, and a Dictionary of Strings with a ThumbHash as bytes. A format is
a Token, and what is known of it are its parameters::

    Vipsrv-Source: jpeg;width=4000;height=3000;pages=1;has_alpha=?0;orientation=1;size=53210
    Vipsrv-Result: webp;width=320;height=240;quality=80;size=8514
    Vipsrv-Ratio: 6.25
    Vipsrv-Placeholder: thumbhash=:1QcSHQRnh493V4dIh4eXh1h4kJUI:, average="#7e777e"
"""

from collections.abc import Sequence

from vipsrv.options import ImageInfo, OutputInfo, Placeholder, Placeholders
from vipsrv.server.http.messages import Headers
from vipsrv.server.timeline import Timeline

COMMON: Headers = (("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"))
"""Fields of each reply about an image: it is nobody else's, and its type is the stated one."""

MEDIA_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
    "tiff": "image/tiff",
    "gif": "image/gif",
    "jxl": "image/jxl",
}
"""The media type of each format of results."""


def source_field(source: ImageInfo) -> tuple[str, str]:
    """Return the field that describes the image."""
    described = (
        f"{source.format};width={source.width};height={source.height};pages={source.pages}"
        f";has_alpha={'?1' if source.has_alpha else '?0'};orientation={source.orientation};size={source.size}"
    )
    return "Vipsrv-Source", described


def result_field(outputs: Sequence[OutputInfo]) -> tuple[str, str]:
    """Return the field that describes results."""
    described = [
        f"{one.format};width={one.width};height={one.height};quality={one.quality};size={one.size}"
        + ("" if one.frames is None else f";frames={one.frames}")
        + ("" if one.ssim is None else f";ssim={one.ssim:.3f}")
        for one in outputs
    ]
    return "Vipsrv-Result", ", ".join(described)


def placeholder_field(placeholder: Placeholders | None) -> Headers:
    """Return the field with what stands for the image, a Dictionary, if it was asked for."""
    if placeholder is None:
        return ()
    members = [
        f"{name}=:{text}:" if name == Placeholder.THUMBHASH else f'{name}="{text}"'
        for name, text in placeholder.to_meta().items()
    ]
    return (("Vipsrv-Placeholder", ", ".join(members)),)


def ratio_field(source: ImageInfo, outputs: Sequence[OutputInfo]) -> tuple[str, str]:
    """Return the field with the image's bytes divided by those of all results."""
    return "Vipsrv-Ratio", f"{source.size / sum([one.size for one in outputs]):.3f}"


def timing_field(timeline: Timeline) -> tuple[str, str]:
    """Return the field with the milliseconds of each stage (W3C Server Timing)."""
    stages = (
        f"receive;dur={timeline.receive_ms:.3f}, queue;dur={timeline.queue_ms:.3f}, "
        f"process;dur={timeline.process_ms:.3f}, total;dur={timeline.total_ms:.3f}"
    )
    return "Server-Timing", stages


def id_field(request_id: str | None) -> Headers:
    """Return the field with what the client calls its request, if it does."""
    return () if request_id is None else (("X-Request-Id", request_id),)
