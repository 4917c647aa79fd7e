"""The messages between the gateway and one worker, over the worker's own socket: the layout for both ends.

::

    worker ── READY ──────────────────────────────────────────────► gateway   once, when it can take jobs
    worker ◄─ JOB, options (JSON); the image by its carrier ─────── gateway   one job at a time
    worker ◄─ JOB with CANCEL ───────────────────────────────────── gateway   any time, for the current job
    worker ── REPLY, the bytes of the results ────────────────────► gateway   exactly one for each job

A worker decodes hostile images, and one of them may have taken it over. So everything that the gateway reads
from it has a fixed size and is checked field by field, and the results are a stated number of opaque bytes.
A worker that breaks these rules is killed. All integers are big-endian.
"""

import json
import math
import re
import struct
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import Any

from vipsrv.errors import (
    BadRequest,
    Cancelled,
    CorruptImage,
    DeadlineExceeded,
    InternalError,
    RequestError,
    TooLarge,
    UnsupportedFormat,
)
from vipsrv.options import HIGHEST_QUALITY, Format, ImageInfo, OutputInfo, Placeholders

CHANNEL_VERSION = 9
"""Increase it with every change of a layout: the handshake then detects a worker of another installation."""

MAX_THREADS = 64
"""Maximum threads of one job; more would be idle."""

MAX_OUTPUTS = 16
"""Maximum results of one job."""

TAG_SIZE = 16
"""Bytes of the tag of a result: enough that no two results of a client will ever have the same."""

_READERS_SIZE = 4096
_READY = struct.Struct(f"!4sHI{_READERS_SIZE}s256s256s")
_JOB = struct.Struct("!4sBBBBIIQQ")
_REPLY = struct.Struct("!4sHQ 16sIIIBB 400s QIB")
_OUTPUT = struct.Struct("!IIBBQdI")
_PLACEHOLDER = struct.Struct("!48s48s7s7s")
_DIGEST = struct.Struct(f"!{TAG_SIZE}sI")

READY_SIZE = _READY.size
JOB_SIZE = _JOB.size
_PLACEHOLDER_START = _REPLY.size + MAX_OUTPUTS * _OUTPUT.size
REPLY_SIZE = _PLACEHOLDER_START + _PLACEHOLDER.size

_READY_MAGIC = b"VRDY"
_JOB_MAGIC = b"VJOB"
_REPLY_MAGIC = b"VRPL"
_NO_PLACEHOLDER = b"\0" * _PLACEHOLDER.size
_COLOUR = re.compile(rb"#[0-9a-f]{6}")
_PLACEHOLDERS = (
    re.compile(rb"[A-Za-z0-9+/]{4,46}={0,2}"),
    re.compile(rb"[A-Za-z0-9#$%*+,.:;=?@\[\]^_{|}~-]{6,48}"),
    _COLOUR,
    _COLOUR,
)
"""What each text may be; none of the characters needs an escape in JSON or in a header field."""
_NAME = re.compile(rb"[a-z][a-z0-9-]{0,15}")
_MOST_ORIENTATION = 8  # EXIF 2.3, tag 0x0112
_PRINTABLE = range(0x20, 0x7F)

_WORKER_ERRORS: dict[int, type[RequestError]] = {
    error.status: error
    for error in (
        BadRequest,
        TooLarge,
        UnsupportedFormat,
        CorruptImage,
        Cancelled,
        InternalError,
        DeadlineExceeded,
    )
}
"""The errors that a worker may report; all others are the gateway's own."""


LIMITS = "limits"
"""The name of the ``JobLimits`` in the options of a job; no option of a request has it."""

DIGEST = "digest"
"""The name of the ``Digest`` in the options of a job; no option of a request has it."""


class ChannelError(Exception):
    """The other end sent something that does not have this layout."""


class Operation(IntEnum):
    """What a job asks a worker to do."""

    RESIZE = 1
    INFO = 2
    CANCEL = 3


class Carrier(IntEnum):
    """How the image reaches the worker."""

    INLINE = 0  # as bytes after the options, if there is no shared memory
    DESCRIPTOR = 1  # as the descriptor of a file, sent with the first byte of the job (SCM_RIGHTS)
    SHARED = 2  # in the memory that the gateway shares with this worker only


_OPERATIONS = frozenset(Operation)
_CARRIERS = frozenset(Carrier)
_RESULTS = tuple(format_.value for format_ in Format if format_ is not Format.AUTO)
"""The formats of results; a reply has their index here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The handshake.

    ``readers`` maps each format that the worker reads to the name and version of its library; ``writers`` are
    the formats that it writes; ``layers`` are the layers of its confinement, such as ``seccomp``, none if it
    is not confined.
    """

    pid: int
    readers: dict[str, str]
    writers: tuple[str, ...]
    layers: tuple[str, ...] = ()

    def pack(self) -> bytes:
        """The handshake as ``READY_SIZE`` bytes. Raises ``ValueError`` if it needs more."""
        readers = "\n".join(f"{name}={library}" for name, library in self.readers.items()).encode()
        if len(readers) > _READERS_SIZE:
            raise ValueError("there are too many readers for the size of the handshake")
        writers, layers = (",".join(names).encode() for names in (self.writers, self.layers))
        return _READY.pack(_READY_MAGIC, CHANNEL_VERSION, self.pid, readers, writers, layers)

    @classmethod
    def unpack(cls, data: bytes | bytearray) -> "Ready":
        """The handshake from ``READY_SIZE`` bytes. Raises ``ChannelError``."""
        magic, version, pid, readers, writers, layers = _READY.unpack(data)
        if magic != _READY_MAGIC:
            raise ChannelError("its first message is not a handshake")
        if version != CHANNEL_VERSION:
            raise ChannelError(f"it speaks version {version} of the channel, not {CHANNEL_VERSION}")
        parts = (line.partition(b"=") for line in readers.rstrip(b"\0").split(b"\n"))
        return cls(
            pid=pid,
            readers={_name(name): _text(library) for name, _, library in parts},
            writers=_names(writers),
            layers=_names(layers) if layers.rstrip(b"\0") else (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """What the client of one job may use, besides the limits of the worker; ``None`` means as much as that.

    ``max_pixels`` bounds the image, and all results together; ``formats`` are those of image and results.
    """

    max_pixels: int | None = None
    formats: frozenset[str] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is limited."""
        return self.max_pixels is None and self.formats is None

    def add_to(self, options: bytes) -> bytes:
        """Return the options of a job, a JSON object or nothing, with these limits."""
        formats = None if self.formats is None else sorted(self.formats)
        return _add_option(options, LIMITS, {"max_pixels": self.max_pixels, "formats": formats})

    @classmethod
    def take_from(cls, options: dict[str, Any]) -> "JobLimits":
        """Take the limits out of the options of a job."""
        limits = options.pop(LIMITS, None)
        if limits is None:
            return cls()
        formats = limits["formats"]
        return cls(max_pixels=limits["max_pixels"], formats=None if formats is None else frozenset(formats))


class Digest(StrEnum):
    """Which digests of its results a RESIZE asks for."""

    TAG = "tag"
    TAG_AND_CRC = "tag-and-crc"

    def add_to(self, options: bytes) -> bytes:
        """Return the options of a job, a JSON object, with this wish."""
        return _add_option(options, DIGEST, self)

    @classmethod
    def take_from(cls, options: dict[str, Any]) -> "Digest | None":
        """Take the wish out of the options of a job. Raises ``ValueError``."""
        asked = options.pop(DIGEST, None)
        return None if asked is None else cls(asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultDigest:
    """What identifies the bytes of a result, so that the gateway need not read them.

    ``tag`` is ``TAG_SIZE`` bytes of BLAKE2b; ``crc`` is the CRC-32 of zip files, 0 if it was not asked for.
    """

    tag: bytes
    crc: int


@dataclass(slots=True, kw_only=True)
class JobHead:
    """The head of a job; sizes are bytes, ``deadline_ms`` is the time it may take, 0 for no limit.

    ``admitted`` allows the job to be heavy; without it, the worker replies to a heavy job with the memory
    that the job needs. ``threads`` (1 to ``MAX_THREADS``) is how many may compute at the same time.
    """

    operation: Operation
    job_id: int
    carrier: Carrier = Carrier.INLINE
    options_size: int = 0
    image_size: int = 0
    deadline_ms: int = 0
    admitted: bool = False
    threads: int = 1

    def pack(self) -> bytes:
        """The head as ``JOB_SIZE`` bytes."""
        return _JOB.pack(
            _JOB_MAGIC,
            self.operation,
            self.carrier,
            self.admitted,
            self.threads,
            self.options_size,
            self.deadline_ms,
            self.job_id,
            self.image_size,
        )

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> "JobHead":
        """The head from ``JOB_SIZE`` bytes. Raises ``ChannelError``."""
        magic, operation, carrier, admitted, threads, *sizes = _JOB.unpack(data)
        options_size, deadline_ms, job_id, image_size = sizes
        if magic != _JOB_MAGIC:
            raise ChannelError("the message is not the head of a job")
        if operation not in _OPERATIONS or carrier not in _CARRIERS or admitted > 1:
            raise ChannelError("the head of a job has an unknown operation, carrier or lane")
        if not 1 <= threads <= MAX_THREADS:
            raise ChannelError("the head of a job has an impossible number of threads")
        return cls(
            operation=Operation(operation),
            job_id=job_id,
            carrier=Carrier(carrier),
            options_size=options_size,
            image_size=image_size,
            deadline_ms=deadline_ms,
            admitted=bool(admitted),
            threads=threads,
        )


@dataclass(slots=True, kw_only=True)
class ReplyHead:
    """The head of a reply: a RESIZE has ``source`` and ``outputs``, an INFO ``source``, a failure ``error``.

    A heavy job that was not admitted has only ``needs``, the bytes of memory it would take, and
    ``needs_ms``, its predicted CPU time in milliseconds if all that is not known is expensive. The results
    follow the head, one after another, ``outputs[…].size`` bytes each. For an ``InternalError``, the space of
    the outputs holds as much of its ``where`` as fits. If the job asked for ``digests``, there is one for
    each of the outputs, in the space of an error's message. If it asked for a ``placeholder``, that is at the
    end.
    """

    job_id: int
    source: ImageInfo | None = None
    outputs: tuple[OutputInfo, ...] = ()
    error: RequestError | None = None
    needs: int = 0
    needs_ms: int = 0
    digests: tuple[ResultDigest, ...] = ()
    placeholder: Placeholders | None = None

    def pack(self) -> bytes:
        """The head as ``REPLY_SIZE`` bytes."""
        source, error = self.source, self.error
        head = _REPLY.pack(
            _REPLY_MAGIC,
            0 if error is None else error.status,
            self.job_id,
            *(
                (b"", 0, 0, 0, 0, 0)
                if source is None
                else (
                    source.format.encode(),
                    source.width,
                    source.height,
                    source.pages,
                    source.has_alpha,
                    source.orientation,
                )
            ),
            self._message(),
            self.needs,
            self.needs_ms,
            len(self.outputs),
        )
        if isinstance(error, InternalError):
            rest = error.where.encode("ascii", "replace")[: REPLY_SIZE - _REPLY.size]
        else:
            rest = b"".join(map(_pack_output, self.outputs))
            if self.placeholder is not None:
                start = _PLACEHOLDER_START - _REPLY.size
                rest = rest.ljust(start, b"\0") + _pack_placeholder(self.placeholder)
        return (head + rest).ljust(REPLY_SIZE, b"\0")

    def _message(self) -> bytes:
        if self.error is not None:
            return self.error.message.encode("ascii", "replace")
        return b"".join([_DIGEST.pack(one.tag, one.crc) for one in self.digests]) if self.digests else b""

    @classmethod
    def unpack(cls, data: bytes | bytearray, *, image_size: int, digests: bool = False) -> "ReplyHead":
        """The head from ``REPLY_SIZE`` bytes, ``image_size`` being the job's. Raises ``ChannelError``.

        ``digests`` is whether the job asked for them.
        """
        magic, status, job_id, *rest, message, needs, needs_ms, count = _REPLY.unpack_from(data)
        if magic != _REPLY_MAGIC:
            raise ChannelError("its message is not a reply")
        if status:
            kind = _WORKER_ERRORS.get(status)
            if kind is None:
                raise ChannelError(f"its reply has the status {status}, which no worker may send")
            if kind is InternalError:
                where = _text(data[_REPLY.size : REPLY_SIZE])
                return cls(job_id=job_id, error=InternalError(_text(message), where=where))
            return cls(job_id=job_id, error=kind(_text(message)))
        if needs:
            return cls(job_id=job_id, needs=needs, needs_ms=needs_ms)
        format_, width, height, pages, has_alpha, orientation = rest
        if not (width and height and pages and 1 <= orientation <= _MOST_ORIENTATION):
            raise ChannelError("its reply describes an impossible image")
        if count > MAX_OUTPUTS:
            raise ChannelError("its reply has more results than a job may have")
        source = ImageInfo(
            format=_name(format_.rstrip(b"\0")),
            width=width,
            height=height,
            pages=pages,
            has_alpha=bool(has_alpha),
            orientation=orientation,
            size=image_size,
        )
        outputs = tuple(_unpack_output(data, number) for number in range(count))
        placeholder = _unpack_placeholder(data)
        if not digests:
            return cls(job_id=job_id, source=source, outputs=outputs, placeholder=placeholder)
        found = tuple(
            ResultDigest(tag=tag, crc=crc)
            for tag, crc in _DIGEST.iter_unpack(message[: count * _DIGEST.size])
        )
        return cls(job_id=job_id, source=source, outputs=outputs, digests=found, placeholder=placeholder)


def _add_option(options: bytes, name: str, value: Any) -> bytes:
    """Return the options of a job, a JSON object or nothing, with one more."""
    added = f'{{"{name}":{json.dumps(value, separators=(",", ":"))}'.encode()
    others = options[1:-1]
    return added + (b"," + others if others else b"") + b"}"


def _pack_output(output: OutputInfo) -> bytes:
    number = _RESULTS.index(output.format)
    ssim = math.nan if output.ssim is None else output.ssim
    # No result has 0 frames: it stands for a result that states none.
    frames = output.frames or 0
    return _OUTPUT.pack(output.width, output.height, output.quality, number, output.size, ssim, frames)


def _unpack_output(data: bytes | bytearray, number: int) -> OutputInfo:
    start = _REPLY.size + number * _OUTPUT.size
    width, height, quality, format_, size, ssim, frames = _OUTPUT.unpack_from(data, start)
    if format_ >= len(_RESULTS) or not (width and height and size and quality <= HIGHEST_QUALITY):
        raise ChannelError("its reply describes an impossible result")
    if not (math.isnan(ssim) or 0 <= ssim <= 1):
        raise ChannelError("its reply describes an impossible result")
    return OutputInfo(
        width=width,
        height=height,
        format=_RESULTS[format_],
        quality=quality,
        size=size,
        ssim=None if math.isnan(ssim) else ssim,
        frames=frames or None,
    )


def _pack_placeholder(one: Placeholders) -> bytes:
    texts = (one.thumbhash, one.blurhash, one.dominant, one.average)
    return _PLACEHOLDER.pack(*(b"" if text is None else text.encode() for text in texts))


def _unpack_placeholder(data: bytes | bytearray) -> Placeholders | None:
    packed = bytes(data[_PLACEHOLDER_START:REPLY_SIZE])
    if packed == _NO_PLACEHOLDER:
        return None
    texts = []
    for allowed, padded in zip(_PLACEHOLDERS, _PLACEHOLDER.unpack(packed), strict=True):
        text = padded.rstrip(b"\0")
        if text and not allowed.fullmatch(text):
            raise ChannelError("its reply has an impossible placeholder")
        texts.append(text.decode("ascii") or None)
    thumbhash, blurhash, dominant, average = texts
    return Placeholders(thumbhash=thumbhash, blurhash=blurhash, dominant=dominant, average=average)


@lru_cache(64)
def _name(data: bytes) -> str:
    if not _NAME.fullmatch(data):
        raise ChannelError("a name in its message has forbidden characters")
    return data.decode("ascii")


def _names(data: bytes) -> tuple[str, ...]:
    return tuple(_name(name) for name in data.rstrip(b"\0").split(b","))


def _text(data: bytes | bytearray) -> str:
    """Return text with printable ASCII only, so that it is safe in a log line and in a reply."""
    return "".join(chr(byte) if byte in _PRINTABLE else "?" for byte in data.rstrip(b"\0"))
