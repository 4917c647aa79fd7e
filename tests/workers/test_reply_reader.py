"""Replies read from a socket whose other end the test holds."""

import array
import asyncio
import json
import os
import random
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vipsrv.errors import CorruptImage, RequestError
from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.server.report import report_json
from vipsrv.server.timeline import Timeline
from vipsrv.storage import Spool
from vipsrv.workers.channel import Digest, Operation, Ready, ReplyHead, ResultDigest
from vipsrv.workers.job import Job, Outcome
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


async def test_digests_are_read_if_the_job_asked_for_them(worker: Worker) -> None:
    worker.channel.sendall(READY.pack())
    await worker.next()
    output = OutputInfo(width=9, height=9, format="jpeg", quality=85, size=1)
    digests = (ResultDigest(tag=b"t" * 16, crc=7),)
    for options, expected in ((Digest.TAG.add_to(b'{"width":9}'), digests), (b'{"width":9}', ())):
        job = worker.job()
        job.options = options
        worker.reader.expect(job)
        head = ReplyHead(job_id=job.id, source=SOURCE, outputs=(output,), digests=digests)
        worker.channel.sendall(head.pack() + b"x")
        reply = await worker.next()
        assert isinstance(reply, WorkerReply)
        assert reply.head.digests == expected


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


def forged(message: bytes, *, most_padding: int | None = None) -> list[bytes]:
    """The message with each of its bytes replaced by extreme values and by a random one.

    Of a longer run of zeros, only the first ``most_padding`` bytes are replaced.
    """
    chance = random.Random(1)
    return [
        message[:place] + bytes([value]) + message[place + 1 :]
        for place in range(len(message))
        for value in (0, 1, 0x7F, 0xFF, chance.randrange(256))
        if message[place] != value
        and (most_padding is None or any(message[max(0, place - most_padding) : place + 1]))
    ]


def send_to_reader(worker: Worker, reader: WorkerReplyReader, message: bytes) -> object:
    """What the reader reports about a message, with the event loop left out."""
    worker.channel.sendall(message)
    worker.reported.clear()
    reader._readable()  # an event loop would need 10,000 turns for the same
    return worker.reported.pop(0) if worker.reported else None


def fresh(worker: Worker) -> WorkerReplyReader:
    """Another reader of the same socket, from which all bytes of before are gone."""
    loop = asyncio.get_running_loop()
    if worker.reader._state is not ReadState.CLOSED:
        worker.reader.close()
    worker.read.setblocking(False)
    try:
        while worker.read.recv(65536):
            pass
    except BlockingIOError:
        pass
    limits = ReplyLimits(output_pixels=1 << 20, memory=1 << 30)
    handlers = ReplyHandlers(
        ready=worker.report,
        replied=worker.report,
        no_room=worker.report,
        broke_protocol=worker.report,
        ended=lambda: worker.report("ended"),
    )
    worker.reader = WorkerReplyReader(loop, worker.read, worker.spool, limits, handlers)
    return worker.reader


async def test_a_handshake_with_any_forged_byte_is_read_or_refused(worker: Worker) -> None:
    message = Ready(
        pid=1, readers={"jpeg": "libvips", "png": "x"}, writers=("jpeg", "png"), layers=("a",)
    ).pack()
    used = message.rstrip(b"\0")
    outcomes = {str: 0, Ready: 0}
    for changed in forged(used, most_padding=16):
        told = send_to_reader(worker, fresh(worker), changed.ljust(len(message), b"\0"))
        assert isinstance(told, (str, Ready))
        if isinstance(told, Ready):
            json.dumps({"readers": told.readers, "writers": told.writers, "layers": told.layers})
        outcomes[type(told)] += 1
    assert all(outcomes.values())


@pytest.mark.parametrize("kind", ["results", "error", "needs"])
async def test_a_reply_with_any_forged_byte_is_passed_on_or_refused(worker: Worker, kind: str) -> None:
    size = 9
    outputs = (OutputInfo(width=9, height=9, format="jpeg", quality=85, size=size),) * 2
    passed = refused = 0
    job = worker.job()
    head = {
        "results": ReplyHead(job_id=job.id, source=SOURCE, outputs=outputs),
        "error": ReplyHead(job_id=job.id, error=CorruptImage("text")),
        "needs": ReplyHead(job_id=job.id, needs=1 << 20),
    }[kind].pack()
    used = len(head.rstrip(b"\0")) + 20
    for changed in forged(head[:used]):
        reader = fresh(worker)
        assert isinstance(send_to_reader(worker, reader, READY.pack()), Ready)
        reader.expect(job)
        body = bytes(size * 2) if kind == "results" else b""
        told = send_to_reader(worker, reader, changed + head[used:] + body)
        if isinstance(told, WorkerReply):
            passed += 1
            if told.head.error is None and not told.head.needs:
                outcome = Outcome(source=told.head.source, outputs=told.head.outputs, result=told.result)
                json.loads(report_json(outcome, Timeline(0.0))[0])
            if told.result is not None:
                told.result.close()
        else:
            # Refused, or it announces a result that is longer or has no room.
            assert told is None or isinstance(told, (str, RequestError))
            refused += 1
    assert passed
    assert refused
    fresh(worker)
    job.close()
    assert worker.spool.memory_left == 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
async def test_descriptors_that_a_worker_sends_are_not_received(worker: Worker) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - their number is enough
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [worker.channel.fileno()] * 10))]
    message = READY.pack()
    worker.channel.sendmsg([message[:100]], rights)
    worker.channel.sendmsg([message[100:]], rights)
    assert await worker.next() == READY
    for _ in range(3):
        job = worker.job()
        worker.reader.expect(job)
        worker.channel.sendmsg([resized(job, 5)], rights)
        worker.channel.sendmsg([b"bytes"], rights)
        reply = await worker.next()
        assert isinstance(reply, WorkerReply)
        assert reply.result is not None
        reply.result.close()
    worker.channel.sendmsg([b"unasked"], rights)
    assert await worker.next() == "it sent something without having a job"
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
