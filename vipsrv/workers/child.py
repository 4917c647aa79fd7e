"""A worker process: ``python -m vipsrv.workers.child``, started by the gateway and by nobody else.

::

    start   signals, parent ─► imports ─► libvips set up and tried out ─► confined ─► READY
    loop    head (and descriptor) ─► options ─► image ─► the pipeline ─► reply head, result
    end     the gateway closes its end: exit 0; it sends what is no job: exit 3

One thread, one socket, one job at a time. A job that fails is an error reply; only the channel ends the loop.
A worker that cannot start says why in one line on standard error and exits with 1.
"""

import argparse
import array
import json
import logging
import mmap
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import PurePath

from vipsrv.errors import BadRequest, Cancelled, DeadlineExceeded, InternalError, RequestError
from vipsrv.options import ResizeOptions, ResizeRequest
from vipsrv.worker_config import WorkerConfig
from vipsrv.workers import sandbox
from vipsrv.workers.channel import (
    JOB_SIZE,
    MAX_OUTPUTS,
    Carrier,
    ChannelError,
    JobHead,
    Operation,
    Ready,
    ReplyHead,
)
from vipsrv.workers.malloc import find_trim
from vipsrv.workers.shared_memory import attach

START_FAILED = 1
CHANNEL_BROKEN = 3

_MOST_OPTIONS = 65_536  # bytes: the most meta that a request may have on the wire
_MOST_INLINE = 1 << 30  # bytes: no gateway sends more than that through a socket
_KEPT_BUFFER = 8 << 20  # bytes: an image up to this size goes where the one before it was
_CHECK_EVERY = 0.02  # seconds between two looks at the socket while libvips computes
_MOST_SAID = 120  # characters of an exception's text in a log line that has to tell its place, too
_DESCRIPTOR_SIZE = array.array("i").itemsize

# Not on macOS; a worker starts no program that could inherit a descriptor, so that it is a second bolt only.
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Watch:
    """The reason to stop a running job, if there is one: its deadline, a CANCEL, or the gateway's end.

    Called many times a second while libvips computes, it looks at the clock each time and at the socket
    every 20 ms. What it sees there it leaves there, for the loop to read when the job is over.
    """

    def __init__(self, channel: socket.socket, head: JobHead) -> None:
        self._channel = channel
        self._job_id = head.job_id
        now = time.monotonic()
        self._ends_at = now + head.deadline_ms / 1000 if head.deadline_ms else float("inf")
        self._next_look = now + _CHECK_EVERY
        self._reason: RequestError | None = None

    def __call__(self) -> RequestError | None:
        """The reason, and the same one from then on."""
        if self._reason is None:
            now = time.monotonic()
            if now >= self._ends_at:
                self._reason = DeadlineExceeded("the image took longer than allowed")
            elif now >= self._next_look:
                self._next_look = now + _CHECK_EVERY
                self._reason = self._look()
        return self._reason

    def _look(self) -> RequestError | None:
        try:
            data = self._channel.recv(JOB_SIZE, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            if not data:
                return Cancelled("the gateway is gone")
            if len(data) < JOB_SIZE:
                return None
            head = JobHead.unpack(data)
        except BlockingIOError:
            return None
        except (ChannelError, OSError):
            return Cancelled("the channel to the gateway is broken")  # the loop will find it so, too
        cancelled = head.operation is Operation.CANCEL and head.job_id == self._job_id
        return Cancelled("the request was cancelled") if cancelled else None


Run = Callable[[JobHead, bytes, "memoryview | int", Watch], tuple[ReplyHead, tuple[bytes, ...]]]
"""A job's head, its options, the image as memory or descriptor, the watch → the reply and the results."""


class Worker:
    """The loop over jobs: one end of the channel, and the memory that images are received into."""

    def __init__(self, channel: socket.socket, shared: memoryview, run: Run) -> None:
        self._channel = channel
        self._shared = shared
        self._run = run
        self._buffer = _memory(_KEPT_BUFFER)
        self._trim = find_trim()

    def serve(self) -> None:
        """Answer jobs until the gateway closes its end. Raises ``ChannelError`` and ``OSError``."""
        while (received := self._receive_head()) is not None:
            head, descriptor = received
            if head.operation is Operation.CANCEL:
                continue  # its job is over; a running one sees it by its watch
            try:
                reply, results = self._serve_one(head, descriptor)
            finally:
                if descriptor is not None:
                    # Before the reply, while the gateway has it open, too: whoever closes a file last waits
                    # until the kernel has freed it.
                    os.close(descriptor)
            self._send(reply.pack(), *results)
            del results
            if head.admitted:
                self._trim()  # the budget of heavy jobs is the next one's, maybe in another worker

    def _serve_one(self, head: JobHead, descriptor: int | None) -> tuple[ReplyHead, tuple[bytes, ...]]:
        watch = Watch(self._channel, head)
        options = bytes(self._receive(head.options_size)) if head.options_size else b""
        image = self._image(head) if descriptor is None else self._from_file(descriptor, head.image_size)
        try:
            return self._run(head, options, image, watch)
        except Exception as error:  # noqa: BLE001 - one job's failure is not the next one's
            return ReplyHead(job_id=head.job_id, error=_for_reply(error)), ()

    def _receive_head(self) -> tuple[JobHead, int | None] | None:
        space = socket.CMSG_SPACE(_DESCRIPTOR_SIZE)
        flags = socket.MSG_WAITALL | _CLOSE_ON_EXEC
        data, ancillary, received_flags, _ = self._channel.recvmsg(JOB_SIZE, space, flags)
        if not data:
            return None
        if len(data) < JOB_SIZE:  # the kernel ends a read behind a descriptor's bytes
            data += self._receive(JOB_SIZE - len(data))
        descriptors = array.array("i")
        for level, kind, lent in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(lent[: len(lent) - len(lent) % _DESCRIPTOR_SIZE])
        head = JobHead.unpack(data)
        awaited = 1 if head.carrier is Carrier.DESCRIPTOR else 0
        if len(descriptors) != awaited or received_flags & socket.MSG_CTRUNC:
            raise ChannelError("a job came with more or fewer descriptors than its head says")
        most = {Carrier.INLINE: _MOST_INLINE, Carrier.SHARED: len(self._shared)}
        if head.options_size > _MOST_OPTIONS or head.image_size > most.get(head.carrier, head.image_size):
            raise ChannelError("a job's sizes cannot be")
        return head, descriptors[0] if awaited else None

    def _image(self, head: JobHead) -> memoryview:
        size = head.image_size
        if head.carrier is Carrier.SHARED:
            return self._shared[:size]
        image = self._buffer[:size] if size <= _KEPT_BUFFER else _memory(size)
        self._receive_into(image)
        return image

    def _from_file(self, descriptor: int, size: int) -> memoryview | int:
        if size > _KEPT_BUFFER:
            return descriptor
        # libvips would read it 4 KB at a time: 2.5 ms of the 50 that a PNG of 7 MB takes.
        image = self._buffer[:size]
        filled = 0
        while filled < size:
            count = os.preadv(descriptor, [image[filled:]], filled)
            if not count:
                raise ChannelError("a lent file is shorter than its job says")
            filled += count
        return image

    def _receive(self, size: int) -> bytearray:
        data = bytearray(size)
        self._receive_into(memoryview(data))
        return data

    def _receive_into(self, view: memoryview) -> None:
        while view:
            count = self._channel.recv_into(view, 0, socket.MSG_WAITALL)
            if not count:
                raise ChannelError("the gateway closed the channel within a job")
            view = view[count:]

    def _send(self, *parts: bytes) -> None:
        sent = self._channel.sendmsg(parts)
        for part in parts:
            if sent < len(part):
                self._channel.sendall(memoryview(part)[sent:])
            sent = max(0, sent - len(part))


def _for_reply(error: Exception) -> RequestError:
    """The same error without its history: a traceback holds the frames of the job and these the error again,
    so that libvips would keep the image, and what was lent, until Python's garbage collector comes by.
    """
    if isinstance(error, RequestError):
        told = error
    else:
        told = InternalError(f"the worker failed on this image: {type(error).__name__}")
    if isinstance(told, InternalError):
        told.where = _where(error.__cause__ or error)
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return told


def _where(error: BaseException) -> str:
    """What a traceback says, in one short line: the innermost call first, for the end may be cut off."""
    calls = [
        f"{PurePath(frame.f_code.co_filename).name}:{line} {frame.f_code.co_qualname}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    said = " ".join(str(error).split())[:_MOST_SAID]
    return f"{type(error).__name__}: {said}; {' < '.join(reversed(calls))}"


def _memory(size: int) -> memoryview:
    """Private zeroed memory that takes no room before it is written to, and none when it is let go."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def main() -> int:
    """Serve until the gateway ends it; the exit code."""
    sandbox.ignore_stop_signals()
    logging.disable()  # pyvips logs each operation and what libvips warns of, here for nobody
    try:
        channel, shared, config, parent = _arguments()
        sandbox.die_with_parent(parent)
        run, ready = _load_pipeline(config)
        sandbox.confine(channel.fileno())
        channel.sendall(ready.pack())
    except Exception as error:  # noqa: BLE001 - whatever it is, the gateway is told in one line
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return START_FAILED
    try:
        Worker(channel, shared, run).serve()
    except (BrokenPipeError, ConnectionResetError):
        return 0  # the gateway closed its end while a reply was under way
    except (ChannelError, OSError):
        return CHANNEL_BROKEN
    return 0


def _arguments() -> tuple[socket.socket, memoryview, WorkerConfig, int]:
    parser = argparse.ArgumentParser(
        prog="vipsrv.workers.child", description="Started by `vipsrv serve` only."
    )
    parser.add_argument("--socket", type=int, required=True, help="descriptor of the channel to the gateway")
    parser.add_argument(
        "--config",
        required=True,
        help="a JSON object: the fields of WorkerConfig, and parent, the gateway's process id",
    )
    parser.add_argument("--shared", type=int, help="descriptor of the memory that the gateway puts images in")
    arguments = parser.parse_args()
    channel = socket.socket(fileno=arguments.socket)
    channel.setblocking(True)
    shared = memoryview(b"") if arguments.shared is None else attach(arguments.shared)
    config = json.loads(arguments.config)
    parent: int = config.pop("parent")
    return channel, shared, WorkerConfig(**config), parent


def _load_pipeline(config: WorkerConfig) -> tuple[Run, Ready]:
    # Not at the top: this is most of the start, and when it fails it is told like everything else.
    from vipsrv import pipeline  # noqa: PLC0415

    @lru_cache(maxsize=256)
    def outputs_from(data: bytes) -> tuple[ResizeOptions, ...]:
        try:
            outputs = ResizeRequest.from_meta(json.loads(data)).outputs
        except (ValueError, TypeError, RecursionError) as error:
            raise BadRequest(f"{error}") from error
        if len(outputs) > MAX_OUTPUTS:
            raise BadRequest(f"outputs: {len(outputs)} are asked for; {MAX_OUTPUTS} are allowed")
        return outputs

    def run(
        head: JobHead, options: bytes, image: memoryview | int, watch: Watch
    ) -> tuple[ReplyHead, tuple[bytes, ...]]:
        if isinstance(image, int):
            upload = pipeline.Upload.from_descriptor(image, head.image_size)
        else:
            upload = pipeline.Upload.from_memory(image)
        if head.operation is Operation.INFO:
            return ReplyHead(job_id=head.job_id, source=pipeline.read_info(upload)), ()
        try:
            result = pipeline.resize(
                upload,
                outputs_from(options),
                config=config,
                watch=watch,
                seconds=head.deadline_ms / 1000 or None,
                heavy_ok=head.admitted,
                threads=head.threads,
            )
        except pipeline.NeedsHeavyLane as heavy:
            return ReplyHead(job_id=head.job_id, needs=heavy.memory), ()
        outputs = tuple(output.info for output in result.outputs)
        data = tuple(output.data for output in result.outputs)
        return ReplyHead(job_id=head.job_id, source=result.source, outputs=outputs), data

    readers = {one.name: f"{one.library} {one.version}" for one in pipeline.start(config.formats)}
    return run, Ready(pid=os.getpid(), readers=readers, writers=pipeline.written_formats())


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Without Python's tidying up: there is nothing to save, and the gateway, which acts when the socket
    # closes, shall find the exit code settled by then.
    os._exit(code)
