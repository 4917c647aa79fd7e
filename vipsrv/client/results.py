"""The values that a client returns, made from the meta and body of a reply."""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vipsrv.client.calls import Answer
from vipsrv.client.core import Reply
from vipsrv.client.requests import ClientRequest
from vipsrv.client.save import save
from vipsrv.errors import ProtocolError
from vipsrv.options import (
    DEFAULT_QUALITY,
    Format,
    ImageInfo,
    OutputInfo,
    Placeholders,
    ResizeReport,
    Timings,
    placeholders_of,
)

MAX_LIMIT = 2**63 - 1
"""The largest limit that a server may state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizedImage:
    """One image that the server made.

    ``data`` is the encoded image; ``width`` and ``height`` are pixels; ``quality`` is the quality used,
    1–100; ``ratio`` is the bytes of the original divided by the bytes of this image. ``ssim`` is how much the
    image looks like itself before it was encoded, 1 for equal, where ``min_ssim`` was asked. ``frames`` is
    how many images it has: more than 1 in an animation.
    """

    data: bytes = field(repr=False)
    width: int
    height: int
    format: str
    quality: int
    ratio: float
    frames: int = 1
    ssim: float | None = None

    def save(self, path: str | os.PathLike[str], *, follow_symlinks: bool = True) -> Path:
        """Write the image to a file, replacing it if it exists, and return the path.

        The file is never seen half written. The ending of the name does not change the format. A symbolic
        link is followed, and a device or a pipe is written to. With ``follow_symlinks=False`` whatever has
        the name is replaced instead, as is safer for a name that you did not choose yourself. Raises
        ``OSError``. This blocks; in a coroutine use ``await asyncio.to_thread(result.save, path)``.
        """
        file = Path(path)
        save(self.data, file, follow_symlinks=follow_symlinks)
        return file


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeResult(ResizedImage):
    """A resized image, with the times and sizes of its request.

    ``source`` describes the original and ``timings`` are milliseconds at the server. ``sent`` and
    ``received`` are bytes on the wire, headers included. ``elapsed`` is seconds for the whole call by the
    client's clock, including the time to connect. ``attempts`` is how often the request was sent; ``sent``
    and ``received`` are of the last attempt, to the address ``server``, which had ``resumed`` bytes of the
    image already. ``placeholder`` is what was asked for that stands for the image until it is loaded.
    """

    source: ImageInfo
    timings: Timings
    sent: int
    received: int
    elapsed: float
    attempts: int = 1
    resumed: int = 0
    server: str = ""
    placeholder: Placeholders | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeResults:
    """Several images made from one upload, in the order of the request, with its times and sizes.

    ``ratio`` is the bytes of the original divided by the bytes of all ``outputs``; the other fields are those
    of ``ResizeResult``.
    """

    outputs: tuple[ResizedImage, ...]
    source: ImageInfo
    timings: Timings
    ratio: float
    sent: int
    received: int
    elapsed: float
    attempts: int = 1
    resumed: int = 0
    server: str = ""
    placeholder: Placeholders | None = None

    def only(self) -> ResizeResult:
        """Return the single output as a ``ResizeResult``. Raises ``ValueError`` if there are several."""
        (output,) = self.outputs
        return ResizeResult(
            data=output.data,
            width=output.width,
            height=output.height,
            format=output.format,
            quality=output.quality,
            ratio=self.ratio,
            frames=output.frames,
            ssim=output.ssim,
            source=self.source,
            timings=self.timings,
            sent=self.sent,
            received=self.received,
            elapsed=self.elapsed,
            attempts=self.attempts,
            resumed=self.resumed,
            server=self.server,
            placeholder=self.placeholder,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Version1Result(ResizedImage):
    """A resized image from a version 1 reply, which states nothing about the original or the server's time.

    ``width``, ``height``, ``format`` and ``quality`` are those that version 1 guarantees. The other fields
    are those of ``ResizeResult``.
    """

    sent: int
    received: int
    elapsed: float
    attempts: int = 1
    server: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedImage(ImageInfo):
    """Facts from the header of an image, and what was asked for that stands for it until it is loaded."""

    placeholder: Placeholders | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """The limits of a server: bytes of an upload, pixels of a source and of all results of a request, and
    milliseconds for a request. ``workers`` is how many requests it works on at the same time, and
    ``queue_per_client`` how many more of this client may wait. ``None`` for a limit that the server did not
    state.
    """

    max_upload: int | None = None
    max_pixels: int | None = None
    max_output_pixels: int | None = None
    deadline_ms: int | None = None
    workers: int | None = None
    queue_per_client: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """Facts about a server: its ``name`` with the version, its ``limits``, the formats that it ``reads`` and
    ``writes``, the ``fits`` that it supports, and the names of its ``watermarks``.
    """

    name: str
    limits: ServerLimits
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    fits: tuple[str, ...]
    watermarks: tuple[str, ...] = ()


def resize_results(request: ClientRequest, answer: Answer, *, size: int, started: float) -> ResizeResults:
    """Make the results of a RESIZE of an image of ``size`` bytes that has ended.

    ``started`` is the time of ``time.monotonic`` when the call began. Raises the error of the request, or
    ``ProtocolError``.
    """
    reply, elapsed = answer.pending.result(), time.monotonic() - started
    try:
        report = ResizeReport.from_meta(reply.meta)
    except ValueError as error:
        raise _invalid_reply("RESIZE", error) from None
    announced = report.outputs
    _check_outputs(request, announced, reply.body)
    return ResizeResults(
        outputs=tuple(_cut(announced, reply.body, size)),
        source=report.source,
        timings=report.ms,
        ratio=report.ratio,
        sent=len(answer.pending.head) + size - answer.offset,
        received=reply.received,
        elapsed=elapsed,
        attempts=answer.attempts,
        resumed=answer.resumed,
        server=answer.pending.peer,
        placeholder=report.placeholder,
    )


def version_1_result(request: ClientRequest, answer: Answer, *, size: int, started: float) -> Version1Result:
    """Make the result of a version 1 request that has ended; the rest is as for ``resize_results``."""
    reply, elapsed = answer.pending.result(), time.monotonic() - started
    return Version1Result(
        data=reply.body,
        width=request.width,
        height=request.height,
        format=Format.JPEG.value,
        quality=DEFAULT_QUALITY,
        ratio=size / len(reply.body),
        sent=len(answer.pending.head) + size - answer.offset,
        received=reply.received,
        elapsed=elapsed,
        attempts=answer.attempts,
        server=answer.pending.peer,
    )


def _check_outputs(request: ClientRequest, announced: tuple[OutputInfo, ...], body: bytes) -> None:
    """Check that the results are those that were asked for, and fill the body. Raises ``ProtocolError``."""
    if len(announced) != len(request.outputs):
        raise ProtocolError(
            f"the request has {len(request.outputs)} results and the server announced {len(announced)}"
        )
    total = sum(output.size for output in announced)
    if total != len(body):
        raise ProtocolError(f"the server announced {total} bytes of results and sent {len(body)}")
    for asked, output in zip(request.outputs, announced, strict=True):
        if not output.size:
            raise ProtocolError(f"the server sent an empty result for {output.width} x {output.height}")
        if asked.format == output.format:
            continue
        if not re.fullmatch(r"[a-z0-9]{1,16}", output.format):
            raise ProtocolError(f"the server named {output.format[:40]!r} as the format of a result")
        if asked.format is not Format.AUTO:
            raise ProtocolError(f"the server sent {output.format} for a result in {asked.format}")


def _cut(announced: tuple[OutputInfo, ...], body: bytes, size: int) -> Iterator[ResizedImage]:
    """Cut ``body`` into the images that it holds one after another."""
    start = 0
    for output in announced:
        data = body[start : start + output.size]
        start += output.size
        yield ResizedImage(
            data=data,
            width=output.width,
            height=output.height,
            format=output.format,
            quality=output.quality,
            ratio=size / output.size,
            frames=output.frames or 1,
            ssim=output.ssim,
        )


def image_info(reply: Reply) -> DescribedImage:
    """Make the result of an INFO. Raises ``ProtocolError``."""
    try:
        info = ImageInfo.from_meta(reply.meta["source"])
        facts = {name: getattr(info, name) for name in ImageInfo.__dataclass_fields__}
        return DescribedImage(**facts, placeholder=placeholders_of(reply.meta))
    except (KeyError, ValueError) as error:
        raise _invalid_reply("INFO", error) from None


def server_info(reply: Reply) -> ServerInfo:
    """Make the result of a HELLO. Raises ``ProtocolError``."""
    meta = reply.meta
    try:
        return ServerInfo(
            name=_text("server", meta["server"]),
            limits=ServerLimits(
                **{name: _limit(name, meta["limits"].get(name)) for name in ServerLimits.__dataclass_fields__}
            ),
            reads=_words("formats: in", meta["formats"]["in"]),
            writes=_words("formats: out", meta["formats"]["out"]),
            fits=_words("fits", meta["fits"]),
            watermarks=_words("watermarks", meta.get("watermarks", [])),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _invalid_reply("HELLO", error) from None


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name}: must be a string, not {type(value).__name__}")  # noqa: TRY004 - one error type
    return value


def _limit(name: str, value: Any) -> int | None:
    if value is not None and (type(value) is not int or not 0 <= value <= MAX_LIMIT):
        raise ValueError(f"{name}: must be a whole number from 0 to {MAX_LIMIT}, or null")
    return value


def _words(name: str, listed: Any) -> tuple[str, ...]:
    if not isinstance(listed, list):
        raise ValueError(f"{name}: must be a list, not {type(listed).__name__}")  # noqa: TRY004 - one error type
    return tuple(_text(name, word) for word in listed)


def _invalid_reply(kind: str, error: Exception) -> ProtocolError:
    return ProtocolError(f"the reply to {kind} is invalid: {type(error).__name__}: {error}")
