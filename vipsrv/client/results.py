"""What a client gives back: the values made from a reply's meta and body."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vipsrv.client.core import Reply
from vipsrv.client.requests import Request
from vipsrv.errors import ProtocolError
from vipsrv.options import DEFAULT_QUALITY, Format, ImageInfo, OutputInfo, ResizeReport, Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizedImage:
    """One picture that was made.

    ``data`` is the picture's file; ``width`` and ``height`` are pixels; ``quality`` is the one used, 1–100;
    ``ratio`` is bytes of the original over bytes of this one.
    """

    data: bytes = field(repr=False)
    width: int
    height: int
    format: str
    quality: int
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeResult(ResizedImage):
    """A resized picture, and what it took.

    ``source`` tells of the original and ``timings`` are milliseconds at the server; version 1 tells neither,
    and there ``width``, ``height``, ``format`` and ``quality`` are what that version promises. ``sent`` and
    ``received`` are bytes on the wire, headers included; ``elapsed`` is the whole call in seconds, connecting
    included, by the client's clock.
    """

    source: ImageInfo | None
    timings: Timings | None
    sent: int
    received: int
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeResults:
    """Several pictures made of one upload, in the order they were asked for, and what they took together.

    ``ratio`` is bytes of the original over bytes of all ``outputs``; the rest is as in ``ResizeResult``.
    """

    outputs: tuple[ResizedImage, ...]
    source: ImageInfo | None
    timings: Timings | None
    ratio: float
    sent: int
    received: int
    elapsed: float

    def only(self) -> ResizeResult:
        """The same as a ``ResizeResult``, where there is one output. Raises ``ValueError`` for several."""
        (output,) = self.outputs
        return ResizeResult(
            data=output.data,
            width=output.width,
            height=output.height,
            format=output.format,
            quality=output.quality,
            ratio=self.ratio,
            source=self.source,
            timings=self.timings,
            sent=self.sent,
            received=self.received,
            elapsed=self.elapsed,
        )


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


def resize_results(request: Request, reply: Reply, *, size: int, sent: int, elapsed: float) -> ResizeResults:
    """The results of a RESIZE of ``size`` bytes. Raises ``ProtocolError`` for a senseless reply."""
    if reply.version == 1:
        report = None
        told = [
            OutputInfo(
                width=request.width,
                height=request.height,
                format=Format.JPEG.value,
                quality=DEFAULT_QUALITY,
                size=len(reply.body),
            )
        ]
    else:
        try:
            report = ResizeReport.from_meta(reply.meta)
        except ValueError as error:
            raise _senseless("RESIZE", error) from None
        told = list(report.outputs)
    if len(told) != request.results:
        raise ProtocolError(f"the server was asked for {request.results} results and announced {len(told)}")
    return ResizeResults(
        outputs=tuple(_cut(told, reply.body, size)),
        source=report.source if report else None,
        timings=report.ms if report else None,
        ratio=report.ratio if report else size / len(reply.body),
        sent=sent,
        received=reply.received,
        elapsed=elapsed,
    )


def _cut(told: list[OutputInfo], body: bytes, size: int) -> Iterator[ResizedImage]:
    """The pictures that lie one after another in ``body``; all is checked before the first is given."""
    announced = sum(output.size for output in told)
    if announced != len(body):
        raise ProtocolError(f"the server announced {announced} bytes of results and sent {len(body)}")
    for output in told:
        if not output.size:
            raise ProtocolError(f"the server sent an empty result for {output.width} x {output.height}")
        if not re.fullmatch(r"[a-z0-9]{1,16}", output.format):
            raise ProtocolError(f"the server named {output.format[:40]!r} as the format of a result")
    start = 0
    for output in told:
        data = body[start : start + output.size]
        start += output.size
        yield ResizedImage(
            data=data,
            width=output.width,
            height=output.height,
            format=output.format,
            quality=output.quality,
            ratio=size / output.size,
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
