"""One worker process, seen from the gateway: its start, its socket, its end.

::

                 READY                run(job)               reply complete
    STARTING ───────────► IDLE ─────────────────► BUSY ─────────────────────► IDLE
        │                   │                       │
        └───────────────────┴────── end of file, an odd byte, kill() ──► ENDED (reaped, its reason told)
"""

import array
import math
import socket
import subprocess
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import Any

from vipsrv.errors import RequestError, WorkerDied
from vipsrv.storage.spool import Slot, Spool
from vipsrv.workers.channel import (
    READY_SIZE,
    REPLY_SIZE,
    Carrier,
    ChannelError,
    JobHead,
    Operation,
    Ready,
    ReplyHead,
)
from vipsrv.workers.job import Job, Outcome
from vipsrv.workers.launch import exit_reason, worker_command, worker_environment
from vipsrv.workers.shared_memory import SharedMemory

MAX_START_REASON = 4096
"""Bytes of standard error that are read from a worker that could not start."""

MOST_BYTES_A_PIXEL = 16
"""Bytes of the results for each pixel that they may have together, beyond which a worker is taken to lie.
The worst JPEG has 10: for each pixel in three colours a code of at most 16 bits and 10 more (ITU-T T.81,
F.1.2.2)."""

_MOST_BESIDE_PIXELS = 1 << 20  # bytes: a result's headers and padding

_scratch = memoryview(bytearray(64 * 1024))
"""For heads and what is read along with them, small results wholly; used up within one callback."""

_READS_AT_ONCE = 32
"""After them it is the turn of others: a worker that has turned hostile may send without end."""

LEAVE_SECONDS = 1.0
"""How long a worker whose socket is closed, by whichever end, may take to leave before it is killed."""


class State(Enum):
    """See the picture above."""

    STARTING = auto()
    IDLE = auto()
    BUSY = auto()
    ENDED = auto()


class WorkerProcess:
    """A spawned ``python -m vipsrv.workers.child`` and the gateway's end of its socket.

    Raises ``OSError`` where the system has no room for one. ``on_idle`` is called when it is ready for a job
    (after the handshake and after each job), ``on_end`` once when it is gone.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        spool: Spool,
        config: dict[str, Any],
        *,
        on_idle: Callable[["WorkerProcess"], None],
        on_heavy: Callable[[Job], None],
        on_end: Callable[["WorkerProcess"], None],
    ) -> None:
        self._loop = loop
        self._spool = spool
        self._on_idle = on_idle
        self._on_heavy = on_heavy
        self._on_end = on_end
        self.state = State.STARTING
        self.ready: Ready | None = None
        self.jobs_done = 0
        self.had_job = False
        self.retired = False
        self.ready_at = math.inf  # of time.monotonic
        self.job: Job | None = None
        self.end_reason = ""
        self._kill_reason: str | None = None
        self._head = bytearray(READY_SIZE)
        self._head_filled = 0
        self._reply: ReplyHead | None = None
        self._result: Slot | None = None
        self._result_left = 0  # bytes of it that are still to be read
        self._discarding = False
        self._ended = 0.0
        self._to_send: list[memoryview] = []
        self._most_pixel_bytes = MOST_BYTES_A_PIXEL * config["max_output_pixels"]
        self._job_memory = config["job_memory"]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._socket = ours
        self._shared: SharedMemory | None = None
        try:
            self._shared = SharedMemory.create()
            inherited = [theirs.fileno()] + ([self._shared.descriptor] if self._shared is not None else [])
            self._process = subprocess.Popen(
                worker_command(inherited, config),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=inherited,
                env=worker_environment(),
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            if self._shared is not None:
                self._shared.close_descriptor()
        loop.add_reader(ours.fileno(), self._readable)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def anonymous_memory(self) -> int:
        """Bytes of anonymous memory it holds (``RssAnon`` of /proc), 0 where that cannot be read."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return 0
        for line in status.splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        return 0

    def run(self, job: Job) -> bool:
        """Give it a job; ``False`` if it turns out to be gone, and the job untouched."""
        now = time.monotonic()
        image = job.image
        views, ancillary = [], []
        if image.descriptor is not None:
            carrier = Carrier.DESCRIPTOR
            ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [image.descriptor])))
        elif self._shared is not None:
            carrier = Carrier.SHARED
            self._shared.put(image.views)
        else:
            carrier = Carrier.INLINE
            views = image.views
        head = JobHead(
            operation=job.operation,
            job_id=job.id,
            carrier=carrier,
            options_size=len(job.options),
            image_size=image.size,
            deadline_ms=max(1, int((job.deadline - now) * 1000)),
            admitted=bool(job.memory),
            threads=job.threads,
        )
        to_send = [memoryview(head.pack() + job.options), *views]
        try:
            sent = self._socket.sendmsg(to_send, ancillary)
        except OSError:
            self._end()
            return False
        self.job = job
        self.had_job = True
        job.started = now
        self.state = State.BUSY
        self._expect_head(REPLY_SIZE)
        self._to_send = to_send
        self._sent(sent)
        if self._to_send:
            self._loop.add_writer(self._socket.fileno(), self._writable)
        return True

    def cancel(self) -> None:
        """Tell it to stop its job; the reply will come all the same."""
        if self.job is not None:
            cancel = memoryview(JobHead(operation=Operation.CANCEL, job_id=self.job.id).pack())
            sending = bool(self._to_send)
            self._to_send.append(cancel)
            if not sending:
                self._writable()

    def retire(self) -> None:
        """End an idle worker in peace: it leaves when its socket is closed."""
        self.retired = True
        self._kill_reason = "it was retired"
        self._end()

    def kill(self, reason: str) -> None:
        """End it at once, for a reason that completes the sentence "worker 7 ended: …"."""
        if self.state is not State.ENDED:
            self._kill_reason = reason
            self._process.kill()
            self._end()

    def reap(self) -> None:
        """Wait for the process to be gone and find out why; blocks, so it runs in a thread."""
        try:
            status = self._process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        reason = self._kill_reason or exit_reason(status)
        if self._process.stderr is not None and not self._process.stderr.closed:
            with self._process.stderr as stderr:
                said = stderr.read(MAX_START_REASON).decode("utf-8", "replace").strip()
            if said:
                reason = f"{reason}: {said}"
        self.end_reason = reason

    def _end(self) -> None:
        self.state = State.ENDED
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        if self._shared is not None:
            self._shared.close()
        if self._result is not None:
            self._result.close()
            self._result = None
        job, self.job = self.job, None
        if job is not None:
            job.fail(WorkerDied("the worker that had this image died of it; try once more, not again"))
            job.close()
        self._on_end(self)

    def _expect_head(self, size: int) -> None:
        self._head = bytearray(size)
        self._head_filled = 0
        self._reply = None

    def _readable(self) -> None:
        try:
            for _ in range(_READS_AT_ONCE):
                if not self._read():
                    break
        except ChannelError as error:
            self.kill(str(error))
        except RequestError as error:
            self._no_room_for_result(error)

    def _read(self) -> bool:
        """Read what one call brings; ``False`` when this was the end of something."""
        if self.state is State.IDLE:
            if self._receive_into(_scratch[:1]):
                raise ChannelError("it spoke without having been asked")
            return False
        if self._result is not None and self._result.stalled:
            self._loop.remove_reader(self._socket.fileno())
            self._result.on_ready = self._resume
            return False
        result = self._result
        if result is not None:
            room = result.room()
        elif self._discarding:
            room = _scratch[: self._result_left]
        elif self.state is State.BUSY:
            room = _scratch
        else:
            room = _scratch[: len(self._head) - self._head_filled]
        size = self._receive_into(room)
        if not size:
            return False
        if result is not None or self._discarding:
            if result is not None:
                result.filled(size)
            return self._received_of_result(size)
        part = _scratch[: min(size, len(self._head) - self._head_filled)]
        self._head[self._head_filled : self._head_filled + len(part)] = part
        self._head_filled += len(part)
        return self._head_filled < len(self._head) or self._head_complete(_scratch[len(part) : size])

    def _receive_into(self, room: memoryview) -> int:
        """How many bytes there were; 0 for none at the moment, and at its end, which is seen to."""
        try:
            size = self._socket.recv_into(room)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            size = 0
        if not size:
            self._end()
        return size

    def _no_room_for_result(self, error: RequestError) -> None:
        """That is no fault of the worker: what it sends is read to its end, and it goes on."""
        assert self.job is not None  # noqa: S101 - the state is BUSY
        if self._result is not None:
            self._result.close()
            self._result = None
        self.job.fail(error)
        self._discarding = True
        self._received_of_result(0)

    def _resume(self) -> None:
        if self.state is not State.ENDED:
            self._loop.add_reader(self._socket.fileno(), self._readable)

    def _head_complete(self, beginning: memoryview) -> bool:
        """Act on a handshake, or on a reply's head and the ``beginning`` of its result that came with it.

        Gives whether more is to be read.
        """
        if self.state is State.STARTING:
            self.ready = Ready.unpack(self._head)
            self.ready_at = time.monotonic()
            if self._process.stderr is not None:
                self._process.stderr.close()
            self._become_idle()
            return False
        job = self.job
        assert job is not None  # noqa: S101 - the state is BUSY
        reply = ReplyHead.unpack(self._head, image_size=job.image.size)
        result_size = self._check(reply, job)
        if len(beginning) > result_size:
            raise ChannelError("it said more than its reply")
        if reply.needs:
            return self._give_back(job, reply.needs)
        self._reply = reply
        self._ended = time.monotonic()
        if not reply.outputs:
            self._finish()
            return False
        self._result_left = result_size - len(beginning)
        result = self._result = self._spool.open(result_size)
        while beginning:
            room = result.room()
            part = beginning[: len(room)]
            room[: len(part)] = part
            result.filled(len(part))
            beginning = beginning[len(part) :]
        return self._received_of_result(0)

    def _check(self, reply: ReplyHead, job: Job) -> int:
        """The size in bytes of a reply's results. Raises ``ChannelError`` if it is no reply to this job."""
        if reply.job_id != job.id:
            raise ChannelError("it replied to a job that it does not have")
        is_success = reply.error is None and not reply.needs
        if is_success and bool(reply.outputs) != (job.operation is Operation.RESIZE):
            raise ChannelError("its reply is not of the kind of its job")
        size = sum(output.size for output in reply.outputs)
        if size > self._most_pixel_bytes + _MOST_BESIDE_PIXELS * len(reply.outputs):
            raise ChannelError("its result is larger than any can be")
        return size

    def _received_of_result(self, size: int) -> bool:
        """Finish the job with the last byte of its result; whether more is to be read."""
        self._result_left -= size
        if not self._result_left:
            self._finish()
        return self._result_left > 0

    def _finish(self) -> None:
        job, reply, result = self.job, self._reply, self._result
        assert job is not None  # noqa: S101 - the state is BUSY
        assert reply is not None  # noqa: S101 - its head is complete
        self.job = self._reply = self._result = None
        self._discarding = False
        if self._to_send:
            # It answered before it had the whole image: what is left would be taken for the next job.
            self.kill("it replied before it had been given its job")
        outcome = Outcome(
            source=reply.source,
            outputs=reply.outputs,
            result=result,
            error=reply.error,
            started=job.started,
            ended=self._ended,
        )
        job.close()
        self.jobs_done += 1
        if result is None:
            job.answer(outcome)
        else:
            _answer_when_complete(job, outcome, result)
        if self.state is State.BUSY:
            self._become_idle()

    def _give_back(self, job: Job, memory: int) -> bool:
        """The job is a heavy one: it goes back to wait for its turn. There is nothing more to be read."""
        if job.memory:
            raise ChannelError("it finds a job heavy that was admitted as such")
        if memory > self._job_memory:
            raise ChannelError("it asks for more memory than a job may take")
        self.job = None
        if self._to_send:
            self.kill("it replied before it had been given its job")
        if job.answered:
            job.close()
        else:
            job.memory = memory
            self._on_heavy(job)
        if self.state is State.BUSY:
            self._become_idle()
        return False

    def _become_idle(self) -> None:
        self.state = State.IDLE
        self._on_idle(self)

    def _writable(self) -> None:
        try:
            sent = self._socket.sendmsg(self._to_send)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._end()
            return
        self._sent(sent)
        if self._to_send:
            self._loop.add_writer(self._socket.fileno(), self._writable)
        else:
            self._loop.remove_writer(self._socket.fileno())

    def _sent(self, size: int) -> None:
        done = 0
        for view in self._to_send:
            if size < len(view):
                break
            size -= len(view)
            done += 1
        del self._to_send[:done]
        if size:
            self._to_send[0] = self._to_send[0][size:]


def _answer_when_complete(job: Job, outcome: Outcome, result: Slot) -> None:
    """A large result may still be on its way to its file."""
    try:
        if result.complete:
            job.answer(outcome)
        else:
            result.on_ready = lambda: _answer_when_complete(job, outcome, result)
    except RequestError as error:
        result.close()
        job.fail(error)
