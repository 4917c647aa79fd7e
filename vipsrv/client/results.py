"""What a client gives back: the values made from a reply's meta and body."""

from dataclasses import dataclass, field
from typing import Any

from vipsrv.client.core import Reply
from vipsrv.client.requests import Request
from vipsrv.errors import ProtocolError
from vipsrv.options import DEFAULT_QUALITY, Format, ImageInfo, ResizeReport, Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeResult:
    """A resized picture, and what it took.

    ``data`` is the picture's file; ``width`` and ``height`` are pixels; ``quality`` is the one used, 1–100.
    ``source`` tells of the original and ``timings`` are milliseconds at the server; version 1 tells neither,
    and there ``width``, ``height``, ``format`` and ``quality`` are what that version promises. ``ratio`` is
    bytes of the original over bytes of the result; ``sent`` and ``received`` are bytes on the wire, headers
    included; ``elapsed`` is the whole call in seconds, connecting included, by the client's clock.
    """

    data: bytes = field(repr=False)
    width: int
    height: int
    format: str
    quality: int
    source: ImageInfo | None
    timings: Timings | None
    ratio: float
    sent: int
    received: int
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server takes: bytes of an upload, pixels of a source and of a result, and milliseconds for a
    request; ``None`` for a limit that it did not tell.
    """

    max_upload: int | None = None
    max_pixels: int | None = None
    max_output_pixels: int | None = None
    deadline_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a server says of itself: ``name`` and version, ``limits``, what it ``reads`` and ``writes``, and
    the ``fits`` it knows.
    """

    name: str
    limits: Limits
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    fits: tuple[str, ...]


def resize_result(request: Request, reply: Reply, *, size: int, sent: int, elapsed: float) -> ResizeResult:
    """The result of a RESIZE of ``size`` bytes. Raises ``ProtocolError`` for a senseless meta."""
    shared: dict[str, Any] = {
        "data": reply.body,
        "sent": sent,
        "received": reply.received,
        "elapsed": elapsed,
    }
    if reply.version == 1:
        return ResizeResult(
            width=request.width,
            height=request.height,
            format=Format.JPEG.value,
            quality=DEFAULT_QUALITY,
            source=None,
            timings=None,
            ratio=size / len(reply.body),
            **shared,
        )
    try:
        report = ResizeReport.from_meta(reply.meta)
        (output,) = report.outputs
    except (KeyError, TypeError, ValueError) as error:
        raise _senseless("RESIZE", error) from None
    if output.size != len(reply.body):
        raise ProtocolError(
            f"the server announced {output.size} bytes of a result and sent {len(reply.body)}"
        )
    return ResizeResult(
        width=output.width,
        height=output.height,
        format=output.format,
        quality=output.quality,
        source=report.source,
        timings=report.ms,
        ratio=report.ratio,
        **shared,
    )


def image_info(reply: Reply) -> ImageInfo:
    """The answer to an INFO. Raises ``ProtocolError``."""
    try:
        return ImageInfo.from_meta(reply.meta["source"])
    except (KeyError, ValueError) as error:
        raise _senseless("INFO", error) from None


def server_info(reply: Reply) -> ServerInfo:
    """The answer to a HELLO. Raises ``ProtocolError``."""
    meta = reply.meta
    try:
        return ServerInfo(
            name=str(meta["server"]),
            limits=Limits(**{name: meta["limits"].get(name) for name in Limits.__dataclass_fields__}),
            reads=_words(meta["formats"]["in"]),
            writes=_words(meta["formats"]["out"]),
            fits=_words(meta["fits"]),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise _senseless("HELLO", error) from None


def _words(listed: Any) -> tuple[str, ...]:
    if not isinstance(listed, list):
        raise TypeError("a list was expected")
    return tuple(str(word) for word in listed)


def _senseless(kind: str, error: Exception) -> ProtocolError:
    return ProtocolError(f"the reply to {kind} does not make sense: {type(error).__name__}: {error}")
