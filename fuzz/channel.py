"""Targets for the socket between the gateway and a worker: a worker may have turned hostile."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from fuzz.target import Target
from vipsrv.errors import CorruptImage, InternalError
from vipsrv.options import ImageInfo, OutputInfo, Placeholders
from vipsrv.workers.channel import (
    JOB_SIZE,
    READY_SIZE,
    REPLY_SIZE,
    ChannelError,
    JobHead,
    Operation,
    Ready,
    ReplyHead,
)

_IMAGE_SIZE = 53_210


def _sized(data: bytes, size: int) -> bytes:
    """Cut or pad to the fixed size of a message: the real reader collects as many bytes first."""
    return data[:size].ljust(size, b"\0")


def _parse_ready(data: bytes) -> None:
    ready = Ready.unpack(_sized(data, READY_SIZE))
    assert all(name.isascii() and name.isprintable() for name in (*ready.readers, *ready.writers))
    assert all(library.isascii() and library.isprintable() for library in ready.readers.values())


def _parse_job(data: bytes) -> None:
    head = JobHead.unpack(_sized(data, JOB_SIZE))
    assert JobHead.unpack(head.pack()) == head


def _parse_reply(data: bytes) -> None:
    head = ReplyHead.unpack(_sized(data, REPLY_SIZE), image_size=_IMAGE_SIZE)
    assert (head.source is not None) + (head.error is not None) + (head.needs > 0) == 1
    if head.error is not None:
        assert head.error.message.isascii()
        assert not head.outputs
    else:
        assert ReplyHead.unpack(head.pack(), image_size=_IMAGE_SIZE) == head
        asked = ReplyHead.unpack(_sized(data, REPLY_SIZE), image_size=_IMAGE_SIZE, digests=True)
        assert ReplyHead.unpack(asked.pack(), image_size=_IMAGE_SIZE, digests=True) == asked


def _ready() -> Iterator[bytes]:
    readers = {"jpeg": "libvips jpegload 8.18.7", "bmp": "vipsrv 0.1.0"}
    yield Ready(pid=4321, readers=readers, writers=("jpeg", "webp"), layers=("seccomp", "rlimits")).pack()


def _jobs() -> Iterator[bytes]:
    yield JobHead(operation=Operation.RESIZE, job_id=7, options_size=39, image_size=_IMAGE_SIZE).pack()
    yield JobHead(operation=Operation.INFO, job_id=8, image_size=1, deadline_ms=60_000, threads=4).pack()
    yield JobHead(operation=Operation.CANCEL, job_id=8).pack()


def _replies() -> Iterator[bytes]:
    source = ImageInfo(
        format="jpeg", width=4000, height=3000, pages=1, has_alpha=False, orientation=6, size=_IMAGE_SIZE
    )
    outputs = tuple(
        OutputInfo(width=width, height=width, format="webp", quality=80, size=9 * width)
        for width in (320, 640)
    )
    yield ReplyHead(job_id=7, source=source, outputs=outputs).pack()
    animated = tuple(replace(output, frames=8, ssim=0.97) for output in outputs)
    placeholder = Placeholders(thumbhash="1QcSHQRnh493V4dIh4eXh1h4kJUI", average="#7e777e")
    yield ReplyHead(job_id=7, source=source, outputs=animated, placeholder=placeholder).pack()
    yield ReplyHead(job_id=7, source=source).pack()
    yield ReplyHead(job_id=7, needs=200 << 20, needs_ms=1500).pack()
    yield ReplyHead(job_id=7, error=CorruptImage("truncated")).pack()
    yield ReplyHead(job_id=7, error=InternalError("a bug", where="resize.py, line 1")).pack()


def _target(name: str, parse: Callable[[bytes], None], seeds: Callable[[], Iterator[bytes]]) -> Target:
    return Target(name=name, parse=parse, allowed=(ChannelError,), seeds=seeds)


TARGETS = (
    _target("worker-ready", _parse_ready, _ready),
    _target("worker-job", _parse_job, _jobs),
    _target("worker-reply", _parse_reply, _replies),
)
