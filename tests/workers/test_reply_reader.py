"""Replies read from a socket whose other end the test holds."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vipsrv.errors import RequestError
from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.storage import Spool
from vipsrv.workers.channel import Operation, Ready, ReplyHead
from vipsrv.workers.job import Job
from vipsrv.workers.reply_reader import (
    TRANSITIONS,
    ReadState,
    ReplyHandlers,
    ReplyLimits,
    WorkerReply,
    WorkerReplyReader,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

READY = Ready(pid=1, readers={"jpeg": "libvips"}, writers=("jpeg",))
SOURCE = ImageInfo(format="jpeg", width=9, height=9, pages=1, has_alpha=False, orientation=1, size=9)
TIMEOUT = 30


class CountingSocket(socket.socket):
    """A socket that counts the reads, and may give only one byte each."""

    reads = 0
    one_byte = False

    def recv_into(self, buffer: "Buffer", nbytes: int = 0, flags: int = 0) -> int:
        self.reads += 1
        return super().recv_into(buffer, 1 if self.one_byte else nbytes, flags)


class Worker:
    """The other end of the socket, and what the reader has reported, in order."""

    def __init__(self, folder: Path) -> None:
        self.channel, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.read = CountingSocket(fileno=theirs.detach())
        self.spool = Spool(directory=folder, memory=1 << 20, disk=0)
        self.reported: list[object] = []
        self.news = asyncio.Event()
        self.reader = WorkerReplyReader(
            asyncio.get_running_loop(),
            self.read,
            self.spool,
            ReplyLimits(output_pixels=1 << 20, memory=1 << 30),
            ReplyHandlers(
                ready=self.report,
                replied=self.report,
                no_room=self.report,
                broke_protocol=self.report,
                ended=lambda: self.report("ended"),
            ),
        )

    def report(self, what: object) -> None:
        self.reported.append(what)
        self.news.set()
        if isinstance(what, str):  # the process ends it then
            self.reader.close()

    async def next(self) -> object:
        while not self.reported:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), TIMEOUT)
        return self.reported.pop(0)

    def job(self) -> Job:
        return Job(
            operation=Operation.RESIZE,
            options=b"",
            image=self.spool.open(9),
            deadline=time.monotonic() + TIMEOUT,
            on_outcome=lambda _: None,
        )


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    one = Worker(tmp_path)
    yield one
    asyncio.get_running_loop().remove_reader(one.read.fileno())
    one.read.close()
    one.channel.close()
    one.spool.close()


def resized(job: Job, size: int) -> bytes:
    output = OutputInfo(width=9, height=9, format="jpeg", quality=85, size=size)
    return ReplyHead(job_id=job.id, source=SOURCE, outputs=(output,)).pack()


def test_every_state_can_be_closed() -> None:
    assert set(TRANSITIONS) == set(ReadState)
    assert all(ReadState.CLOSED in after for state, after in TRANSITIONS.items() if after)


async def test_a_handshake_and_replies_one_byte_at_a_time(worker: Worker) -> None:
    worker.read.one_byte = True
    worker.channel.sendall(READY.pack())
    assert await worker.next() == READY
    for content in (b"first", b"second"):
        job = worker.job()
        worker.reader.expect(job)
        worker.channel.sendall(resized(job, len(content)) + content)
        reply = await worker.next()
        assert isinstance(reply, WorkerReply)
        assert reply.head.job_id == job.id
        assert reply.result is not None
        assert b"".join(reply.result.views) == content
        assert reply.arrived <= time.monotonic()
        reply.result.close()


async def test_a_reply_without_results(worker: Worker) -> None:
    worker.channel.sendall(READY.pack())
    await worker.next()
    job = worker.job()
    worker.reader.expect(job)
    worker.channel.sendall(ReplyHead(job_id=job.id, needs=1 << 20).pack())
    reply = await worker.next()
    assert isinstance(reply, WorkerReply)
    assert (reply.head.needs, reply.result) == (1 << 20, None)


async def test_a_result_without_room_is_reported_at_once_and_read_to_its_end(worker: Worker) -> None:
    worker.channel.sendall(READY.pack())
    await worker.next()
    job = worker.job()
    worker.reader.expect(job)
    size = 9 << 20  # needs a file, and there is no disk
    loop = asyncio.get_running_loop()
    sending = loop.run_in_executor(None, worker.channel.sendall, resized(job, size) + bytes(size))
    assert isinstance(await worker.next(), RequestError)
    reply = await worker.next()
    assert isinstance(reply, WorkerReply)
    assert reply.result is None
    await sending
    assert worker.spool.memory_left == 1 << 20


async def test_the_end_of_the_stream_is_reported_once(worker: Worker) -> None:
    worker.channel.sendall(READY.pack())
    await worker.next()
    worker.reader.expect(worker.job())
    worker.channel.close()
    assert await worker.next() == "ended"
    assert worker.reported == []


async def test_a_result_that_was_begun_is_given_back_at_the_end(worker: Worker) -> None:
    worker.channel.sendall(READY.pack())
    await worker.next()
    job = worker.job()
    worker.reader.expect(job)
    worker.channel.sendall(resized(job, 100) + b"half")
    worker.channel.close()
    assert await worker.next() == "ended"
    assert worker.spool.memory_left == 1 << 20


async def test_a_worker_that_sends_without_end_lets_others_have_their_turn(worker: Worker) -> None:
    worker.channel.sendall(READY.pack())
    await worker.next()
    job = worker.job()
    worker.reader.expect(job)
    worker.read.one_byte = True
    worker.read.reads = 0
    worker.channel.sendall(resized(job, 1000) + bytes(1000))
    turns = 0
    while not worker.reported:
        await asyncio.sleep(0)
        turns += 1
    # All is in the socket from the beginning, but only so much is read in one turn of the loop.
    assert worker.read.reads > 1000
    assert worker.read.reads <= 32 * turns
