"""The loop of a worker over its jobs: receive, run, reply.

A job that fails is answered with an error; only a broken channel ends the loop.
"""

import array
import mmap
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import PurePath

from vipsrv.errors import InternalError, RequestError
from vipsrv.workers.channel import JOB_SIZE, Carrier, ChannelError, JobHead, Operation, ReplyHead
from vipsrv.workers.child.malloc import find_trim
from vipsrv.workers.child.watch import JobWatch

_MOST_OPTIONS = 65_536  # bytes: the largest meta of a request on the wire
_MOST_INLINE = 1 << 30  # bytes: no gateway sends more than this through a socket
_KEPT_BUFFER = 8 << 20  # bytes: images up to this size are received into the same memory, one after another
_MOST_MESSAGE = 120  # characters of an exception's text in the log line that also names the place
_DESCRIPTOR_SIZE = array.array("i").itemsize

# Missing on macOS. A worker starts no program that could inherit a descriptor; this is a second safeguard.
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

RunJob = Callable[[JobHead, bytes, "memoryview | int", JobWatch], tuple[ReplyHead, tuple[bytes, ...]]]
"""Takes a job's head, options, image (memory or a descriptor) and watch; returns its reply and results."""


class JobLoop:
    """Answers jobs that arrive over ``channel``, one at a time.

    ``shared`` is the memory that the gateway puts small images in, empty if there is none.
    """

    def __init__(self, channel: socket.socket, shared: memoryview, run: RunJob) -> None:
        self._channel = channel
        self._shared = shared
        self._run = run
        self._buffer = _memory(_KEPT_BUFFER)
        self._trim = find_trim()

    def serve(self) -> None:
        """Answer jobs until the gateway closes the channel. Raises ``ChannelError`` and ``OSError``."""
        while (received := self._receive_head()) is not None:
            head, descriptor = received
            if head.operation is Operation.CANCEL:
                continue  # its job is over; while a job runs, its watch sees the CANCEL
            try:
                reply, results = self._serve_one(head, descriptor)
            finally:
                if descriptor is not None:
                    # Before the reply, while the gateway still has it open: the last process to close a file
                    # waits until the kernel has freed it.
                    os.close(descriptor)
            self._send(reply.pack(), *results)
            del results
            if head.admitted:
                self._trim()  # the next heavy job, maybe in another worker, may use the memory

    def _serve_one(self, head: JobHead, descriptor: int | None) -> tuple[ReplyHead, tuple[bytes, ...]]:
        watch = JobWatch(self._channel, head)
        options = bytes(self._receive(head.options_size)) if head.options_size else b""
        image = self._image(head) if descriptor is None else self._from_file(descriptor, head.image_size)
        try:
            return self._run(head, options, image, watch)
        except Exception as error:  # noqa: BLE001 - a failed job must not affect the next one
            return ReplyHead(job_id=head.job_id, error=_for_reply(error)), ()

    def _receive_head(self) -> tuple[JobHead, int | None] | None:
        space = socket.CMSG_SPACE(_DESCRIPTOR_SIZE)
        flags = socket.MSG_WAITALL | _CLOSE_ON_EXEC
        data, ancillary, received_flags, _ = self._channel.recvmsg(JOB_SIZE, space, flags)
        if not data:
            return None
        if len(data) < JOB_SIZE:  # the kernel ends a read after bytes that carry a descriptor
            data += self._receive(JOB_SIZE - len(data))
        descriptors = array.array("i")
        for level, kind, lent in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(lent[: len(lent) - len(lent) % _DESCRIPTOR_SIZE])
        head = JobHead.unpack(data)
        awaited = 1 if head.carrier is Carrier.DESCRIPTOR else 0
        if len(descriptors) != awaited or received_flags & socket.MSG_CTRUNC:
            raise ChannelError("a job came with a different number of descriptors than its head says")
        most = {Carrier.INLINE: _MOST_INLINE, Carrier.SHARED: len(self._shared)}
        if head.options_size > _MOST_OPTIONS or head.image_size > most.get(head.carrier, head.image_size):
            raise ChannelError("a job's head has sizes over the limits")
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
        # libvips would read the file 4 KB at a time: 2.5 ms of the 50 ms that a 7 MB PNG takes.
        image = self._buffer[:size]
        filled = 0
        while filled < size:
            count = os.preadv(descriptor, [image[filled:]], filled)
            if not count:
                raise ChannelError("a job's file is shorter than its head says")
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
    """The error for the reply, stripped of its traceback.

    A traceback refers to the frames of the job, and they refer to the error: libvips would keep the image,
    and the job's file, until Python's garbage collector runs.
    """
    if isinstance(error, RequestError):
        for_reply = error
    else:
        for_reply = InternalError(f"the worker failed on this image: {type(error).__name__}")
    if isinstance(for_reply, InternalError):
        for_reply.where = _where(error.__cause__ or error)
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return for_reply


def _where(error: BaseException) -> str:
    """The traceback in one short line, innermost call first because the end may be cut off."""
    calls = [
        f"{PurePath(frame.f_code.co_filename).name}:{line} {frame.f_code.co_qualname}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    message = " ".join(str(error).split())[:_MOST_MESSAGE]
    return f"{type(error).__name__}: {message}; {' < '.join(reversed(calls))}"


def _memory(size: int) -> memoryview:
    """Private zeroed memory: pages take room once they are written, and give it back when it is dropped."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
