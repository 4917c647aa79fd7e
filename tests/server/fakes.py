"""A server's context whose workers are played by the test."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vipsrv.errors import Cancelled, RequestError
from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.server.accounts import Account, Accounts
from vipsrv.server.admission import Admission
from vipsrv.server.context import ServerContext
from vipsrv.server.logs.access_log import AccessLog
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.server.settings import ServerSettings
from vipsrv.storage import Slot, Spool
from vipsrv.workers.job import Job, JobImage, Outcome

MANY = 1_000_000

STOPPED_SECONDS = 20
"""How long a stopped disk stands still at most, so that a test that fails can end."""


class FakeClock:
    """A clock that the test sets; ``calls`` are those that it was told to make, with their times."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        self.calls.append((when, call))

    def advance_to(self, when: float) -> None:
        """Let it become ``when``, and make the calls that are due."""
        self.now = when
        due = [call for at, call in self.calls if at <= when]
        self.calls = [(at, call) for at, call in self.calls if at > when]
        for call in due:
            call()


class FakeWorkers:
    """Workers of which ``free`` are idle; ``jobs`` are those that they were given, in order."""

    def __init__(self, free: int = 0) -> None:
        self.size = 2
        self.free = free
        self.threads_busy = 0
        self.jobs: list[Job] = []
        self.cancelled: list[Job] = []
        self.clock = FakeClock()

    @property
    def idle(self) -> int:
        return self.free

    def run(self, job: Job) -> bool:
        if not self.free:
            return False
        self.free -= 1
        job.started = self.clock()
        self.jobs.append(job)
        return True

    def cancel(self, job: Job) -> None:
        self.cancelled.append(job)
        job.fail(Cancelled("cancelled"))
        job.close()


class RecordedRequests(AccessLog):
    """Keeps the lines of requests that have ended."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[RequestLine] = []
        self.follows_successes = True

    def log(self, line: RequestLine) -> None:
        self.lines.append(line)


def make_context(
    folder: Path, workers: FakeWorkers, *, memory: int = 16 << 20, disk: int = 8 << 30, **settings: Any
) -> ServerContext:
    """The context of a server with ``memory`` and ``disk`` bytes of spool. Its ``spool`` has to be closed."""
    chosen = ServerSettings(**settings)
    return ServerContext(
        settings=chosen,
        spool=Spool(directory=folder, memory=memory, disk=disk),
        admission=Admission(
            workers,
            limit=chosen.queue,
            per_client=chosen.client_queue,
            memory=1000,
            cores=4,
            clock=workers.clock,
        ),
        describe=lambda: {"server": "fake"},
        check_ready=lambda: None,
        access_log=RecordedRequests(),
    )


def fill(slot: Slot, data: bytes | None = None) -> Slot:
    """Put ``data`` (zeros if there is none) into a slot."""
    data = bytes(slot.size) if data is None else data
    while data:
        room = slot.room()
        part = data[: len(room)]
        room[: len(part)] = part
        slot.filled(len(part))
        data = data[len(part) :]
    return slot


def succeed(job: Job, spool: Spool, *, size: int) -> None:
    """Answer a job with one result of ``size`` bytes, once it is stored."""
    source = ImageInfo(
        format="jpeg", width=9, height=9, pages=1, has_alpha=False, orientation=1, size=job.image.size
    )
    output = OutputInfo(width=9, height=9, format="jpeg", quality=85, size=size)
    now = time.monotonic()
    result = fill(spool.open(size))
    outcome = Outcome(source=source, outputs=(output,), result=result, started=now, ended=now)
    job.close()

    def answer_when_stored() -> None:
        if result.complete:
            job.answer(outcome)
        else:
            result.on_ready = answer_when_stored

    answer_when_stored()


def fail(job: Job, error: RequestError) -> None:
    """Answer a job with an error."""
    job.fail(error)
    job.close()


def content(slot: Slot | JobImage) -> bytes:
    """All bytes of a slot."""
    if slot.descriptor is None:
        return b"".join(map(bytes, slot.views))
    return os.pread(slot.descriptor, slot.size + 1, 0)


class Disk:
    """The disk under a spool. Nothing is spliced to it, so that the test controls each write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._running = threading.Event()
        self._running.set()
        self._full = False
        self._pwritev = os.pwritev
        monkeypatch.setattr(os, "pwritev", self._write)
        monkeypatch.delattr(os, "splice", raising=False)

    def stop(self) -> None:
        """No write ends from now on."""
        self._running.clear()

    def go_on(self) -> None:
        """Let the writes end."""
        self._running.set()

    def fill_up(self) -> None:
        """Every write fails from now on."""
        self._full = True

    def _write(self, fd: int, views: list[memoryview], offset: int) -> int:
        self._running.wait(STOPPED_SECONDS)
        if self._full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._pwritev(fd, views, offset)


def only_account(accounts: Accounts, key: str) -> Account:
    """The account ``key``, which must be the only one and have a connection."""
    flow = accounts.open_flow(key)  # a new account if there is none
    accounts.close_flow(flow)
    assert flow.account.flows
    assert len(accounts) == 1
    return flow.account
