"""Reasons to stop a running job: its deadline, a CANCEL, or the end of the gateway."""

import socket
import time

from vipsrv.errors import Cancelled, DeadlineExceeded, RequestError
from vipsrv.workers.channel import JOB_SIZE, ChannelError, JobHead, Operation

_CHECK_EVERY = 0.02  # seconds between two checks of the socket while libvips computes


class JobWatch:
    """Decides whether one job must stop, and why.

    libvips calls it many times a second while it computes. Each call reads the clock; the socket is checked
    every 20 ms. Messages are only peeked at, so the loop reads them when the job is over.
    """

    def __init__(self, channel: socket.socket, head: JobHead) -> None:
        self._channel = channel
        self._job_id = head.job_id
        now = time.monotonic()
        self._ends_at = now + head.deadline_ms / 1000 if head.deadline_ms else float("inf")
        self._next_look = now + _CHECK_EVERY
        self._reason: RequestError | None = None

    def __call__(self) -> RequestError | None:
        """The reason to stop, or ``None``; once there is a reason, it stays the same."""
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
                return Cancelled("the gateway has closed the channel")
            if len(data) < JOB_SIZE:
                return None
            head = JobHead.unpack(data)
        except BlockingIOError:
            return None
        except (ChannelError, OSError):
            return Cancelled("the channel to the gateway is broken")  # the loop will get the same error
        cancelled = head.operation is Operation.CANCEL and head.job_id == self._job_id
        return Cancelled("the request was cancelled") if cancelled else None
