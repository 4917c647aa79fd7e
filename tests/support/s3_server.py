"""A real S3 server for the tests, as a process of its own on a loopback port: rclone's, or versitygw."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from enum import Enum
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.unused_port import unused_port

ACCESS_KEY = "vipsrv-test"
SECRET_KEY = "not-a-secret-of-anybody"  # noqa: S105 - of a server that lives as long as a test
REGION = "us-east-1"

START_SECONDS = 60


class S3Kind(Enum):
    """The program that serves. Both keep a bucket as a folder, and its objects as the files in it."""

    RCLONE = "rclone"
    """Installed with the extra ``test``, as a wheel with the binary: always there."""
    VERSITYGW = "versitygw"
    """An S3 gateway in Go; in PATH, in ~/go/bin, or named by VIPSRV_VERSITYGW."""

    @property
    def program(self) -> str | None:
        """The path of the program, if it is installed."""
        if self is S3Kind.RCLONE:
            return shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
        go = os.pathsep.join((os.environ.get("PATH", ""), str(Path.home() / "go" / "bin")))
        return os.environ.get("VIPSRV_VERSITYGW") or shutil.which("versitygw", path=go)


class S3Server:
    """A server that answers once constructed; the end of the ``with`` always ends it.

    ``folder`` has the buckets as folders: a test may look at what was put, or put files there; then it calls
    ``refresh``.
    """

    def __init__(self, kind: S3Kind = S3Kind.RCLONE) -> None:
        program = kind.program
        assert program is not None, f"{kind.value} is not installed"
        self.kind = kind
        self.port = unused_port()
        self._control_port = unused_port()
        self._home = Path(tempfile.mkdtemp(prefix="vipsrv-s3-"))
        self.folder = self._home / "buckets"
        self.folder.mkdir()
        (self._home / "attributes").mkdir()
        self._command = [program, *self._arguments()]
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a client finds the server and may use it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
        }

    @property
    def log(self) -> str:
        """What it has written."""
        return (self._home / "log").read_text(errors="replace")

    def make_bucket(self, name: str) -> Path:
        """Make a bucket and return its folder."""
        bucket = self.folder / name
        bucket.mkdir()
        self.refresh()
        return bucket

    def refresh(self) -> None:
        """Let the server see files that were put into its folders.

        rclone reads a folder once and then keeps account of it: reading it for each request would make the
        time for many objects quadratic.
        """
        if self.kind is S3Kind.RCLONE and self._process is not None:
            connection = HTTPConnection("127.0.0.1", self._control_port, timeout=30)
            connection.request("POST", "/vfs/forget")
            reply = connection.getresponse()
            assert reply.status == HTTPStatus.OK, reply.read()
            connection.close()

    def start(self) -> None:
        """Start it again at the same port, with what is in its buckets, and wait until it answers."""
        assert self._process is None
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "ROOT_ACCESS_KEY": ACCESS_KEY,
                    "ROOT_SECRET_KEY": SECRET_KEY,
                    "RCLONE_AUTH_KEY": f'"{ACCESS_KEY},{SECRET_KEY}"',
                    "RCLONE_CONFIG": "",
                },
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, f"{self.kind.value} did not start:\n{self.log}"
            assert time.monotonic() < deadline, f"{self.kind.value} did not answer:\n{self.log}"
            time.sleep(0.02)

    def stop(self, *, kill: bool = False) -> None:
        """End the process, with ``kill`` at once; what is in its buckets stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def restart(self, *, kill: bool = False) -> None:
        """Stop and start it."""
        self.stop(kill=kill)
        self.start()

    def close(self) -> None:
        """End it for good, and remove its buckets."""
        self.stop(kill=True)
        shutil.rmtree(self._home)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _arguments(self) -> list[str]:
        address = f"127.0.0.1:{self.port}"
        if self.kind is S3Kind.RCLONE:
            control = ["--rc", "--rc-no-auth", "--rc-addr", f"127.0.0.1:{self._control_port}"]
            return ["serve", "s3", "--addr", address, *control, str(self.folder)]
        attributes = ["--sidecar", str(self._home / "attributes")]
        return ["--quiet", "--keep-alive", "--port", address, "posix", *attributes, str(self.folder)]

    def _answers(self) -> bool:
        ports = [self.port, self._control_port] if self.kind is S3Kind.RCLONE else [self.port]
        try:
            for port in ports:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True
