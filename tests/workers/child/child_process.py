"""A real worker process, and the gateway's end of its socket."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.image_comparison import open_exact
from tests.support.images import jpeg
from vipsrv.errors import RequestError
from vipsrv.workers.channel import READY_SIZE, REPLY_SIZE, Carrier, JobHead, Operation, Ready, ReplyHead

PATIENCE = 60
"""Seconds after which a test gives up waiting, on a machine however busy."""

CONFIG = {
    "max_pixels": 100_000_000,
    "max_output_pixels": 10_000_000,
    "quality": 85,
    # A confined worker could not write down which lines it ran.
    **({"sandbox": "off"} if "COVERAGE_PROCESS_CONFIG" in os.environ else {}),
}


class ChildProcess:
    """A worker, started as the gateway starts it."""

    def __init__(
        self, config: dict[str, Any] | None = None, *, environment: dict[str, str] | None = None
    ) -> None:
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(PATIENCE)
        with theirs:
            words = [
                sys.executable,
                "-m",
                "vipsrv.workers.child",
                "--socket",
                str(theirs.fileno()),
                "--config",
            ]
            words.append(json.dumps(CONFIG | {"parent": os.getpid()} | (config or {})))
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                env=os.environ | {"VIPS_CONCURRENCY": "1", "VIPS_WARNING": "0"} | (environment or {}),
            )

    def close(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)

    def receive(self, size: int) -> bytes:
        """Up to ``size`` bytes, fewer only at the end."""
        data = b""
        while len(data) < size and (more := self.channel.recv(size - len(data))):
            data += more
        return data

    def start(self) -> Ready:
        return Ready.unpack(self.receive(READY_SIZE))

    def send_job(
        self, head: JobHead, options: bytes = b"", image: bytes = b"", descriptors: tuple[int, ...] = ()
    ) -> None:
        data = head.pack() + options + image
        if descriptors:
            sent = socket.send_fds(self.channel, [data], list(descriptors))
            data = data[sent:]
        if data:
            self.channel.sendall(data)

    def send_resize(
        self,
        image: bytes,
        *,
        job_id: int = 1,
        options: bytes | None = None,
        deadline_ms: int = 0,
        admitted: bool = True,
    ) -> None:
        if options is None:
            options = json.dumps({"width": 80, "height": 60}).encode()
        head = JobHead(
            operation=Operation.RESIZE,
            job_id=job_id,
            options_size=len(options),
            image_size=len(image),
            deadline_ms=deadline_ms,
            admitted=admitted,
        )
        self.send_job(head, options, image)

    def lend(
        self, descriptor: int, size: int, *, job_id: int = 1, operation: Operation = Operation.RESIZE
    ) -> None:
        options = json.dumps({"width": 80, "height": 60}).encode()
        head = JobHead(
            operation=operation,
            job_id=job_id,
            carrier=Carrier.DESCRIPTOR,
            options_size=len(options),
            image_size=size,
            admitted=True,
        )
        self.send_job(head, options, descriptors=(descriptor,))

    def reply(self, *, image_size: int = 1, digests: bool = False) -> tuple[ReplyHead, bytes]:
        head = ReplyHead.unpack(self.receive(REPLY_SIZE), image_size=image_size, digests=digests)
        return head, self.receive(sum(output.size for output in head.outputs))

    def refusal(self) -> RequestError:
        head, _ = self.reply()
        assert head.error is not None
        return head.error

    def check_that_it_works(self) -> None:
        """It does the next job as if nothing had happened."""
        self.send_resize(jpeg(), job_id=77)
        head, data = self.reply()
        assert (head.job_id, head.error) == (77, None)
        assert open_exact(data).size == (80, 60)

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE)

    def standard_error(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def descriptors(self) -> dict[int, str]:
        folder = Path(f"/proc/{self.process.pid}/fd")
        return {int(link.name): str(link.readlink()) for link in folder.iterdir()}

    def status(self, field: str) -> int:
        """A number of ``/proc/PID/status``; sizes are KiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))
