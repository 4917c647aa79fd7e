"""A real server for the tests: `vipsrv serve` as a process of its own on a free loopback port."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

WITHOUT_OPS = {"VIPSRV_OPS_LISTEN": "off"}
"""Servers that run at the same time would all want the default port of the operator's listener."""

START_SECONDS = 60
STOP_SECONDS = 60

_ACTIVATE = """
import os, sys
sources = [os.dup2(int(number), 100 + index) for index, number in enumerate(sys.argv[1].split(","))]
for index, source in enumerate(sources):
    os.dup2(source, 3 + index)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sources)))
os.closerange(3 + len(sources), 200)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Passes on the descriptors named in the first argument as 3, 4, … and becomes the command that follows."""

_READY = "vipsrv listening on "
_OPS = "vipsrv for its operator at "


class RunningServer:
    """A server that is ready once constructed; ``stop`` (or the end of the ``with``) always ends it.

    ``arguments`` are those of ``vipsrv serve``; ``new_session`` takes it away from the terminal that the
    tests may have. ``listeners`` are the addresses that it printed, ``host`` and ``port`` the first TCP one,
    and ``ops`` is where it said its operator's listener is, with ``--ops-listen``.
    With ``environment`` it has further variables; ``sockets`` are passed to it as systemd does.
    """

    def __init__(
        self,
        *arguments: str,
        new_session: bool = False,
        environment: Mapping[str, str] | None = None,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        self.arguments = arguments
        self._log = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by stop
        where = () if "--listen" in arguments or "--port" in arguments else ("--port", "0")
        file = () if "--config" in arguments else ("--no-config",)
        command = [sys.executable, "-m", "vipsrv", "serve", *where, *file, *arguments]
        inherited = [str(sock.fileno()) for sock in sockets]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ACTIVATE, ",".join(inherited), *command] if sockets else command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=new_session,
            # Without the settings of the user who runs the tests.
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")},
                **WITHOUT_OPS,
                **(environment or {}),
            },
            pass_fds=[sock.fileno() for sock in sockets],
        )
        try:
            self.listeners = self._wait_until_ready(len(sockets) or max(1, arguments.count("--listen")))
        except BaseException:
            self.stop()
            raise
        self.ops = self._wait_for_ops() if "--ops-listen" in arguments else ""
        tcp = [listener for listener in self.listeners if "unix:" not in listener]
        host, _, port = tcp[0].rpartition(":") if tcp else ("", "", "0")
        self.host, self.port = host.strip("[]"), int(port)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has written to standard error."""
        return Path(self._log.name).read_text(errors="replace")

    def wait_for_log(self, text: str) -> None:
        """Wait until it has written ``text`` to standard error."""
        wait_until(lambda: text in self.log, f"{text!r} in the log")

    def wait_until_busy(self) -> None:
        """Wait until one of its workers has been busy for a moment."""
        wait_until_busy(self.pid)

    def stop(self) -> int:
        """Stop it as an operator would, by force if necessary; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        code = self.process.wait()
        self._log.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_ready(self, listeners: int) -> list[str]:
        lines = self._read_lines(listeners)
        for line in lines:
            assert line.startswith(_READY), f"vipsrv serve did not start: {line!r}; it said:\n{self.log}"
        return [line.removeprefix(_READY).strip() for line in lines]

    def _wait_for_ops(self) -> str:
        (line,) = self._read_lines(1)
        assert line.startswith(_OPS), f"it printed {line!r}"
        return line.removeprefix(_OPS).strip()

    def _read_lines(self, number: int) -> list[str]:
        assert self.process.stdout is not None
        # A pipe's readline has no timeout; the end of the process ends it.
        killer = threading.Timer(START_SECONDS, self.process.kill)
        killer.start()
        try:
            return [self.process.stdout.readline() for _ in range(number)]
        finally:
            killer.cancel()


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``vipsrv serve`` until it exits by itself, as it is expected to."""
    return subprocess.run(
        [sys.executable, "-m", "vipsrv", "serve", *arguments],
        env={**os.environ, **WITHOUT_OPS, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


def worker_pids(server_pid: int) -> list[int]:
    """The processes that run `vipsrv.workers.child` for this server."""
    children = Path(f"/proc/{server_pid}/task/{server_pid}/children").read_text().split()
    return [int(pid) for pid in children if b"vipsrv.workers.child" in _command_line(pid)]


def wait_until_busy(server_pid: int) -> None:
    """Wait until one of the server's workers has been busy for a moment."""
    pids = worker_pids(server_pid)
    before = {pid: _cpu_ticks(pid) for pid in pids}
    wait_until(lambda: any(_cpu_ticks(pid) > before[pid] + 2 for pid in pids), "a busy worker")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something becomes true that must be polled for, such as a log line or a /proc entry."""
    end = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < end, f"no {what} within {START_SECONDS} s"
        time.sleep(0.01)


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # gone meanwhile
        return b""


def _cpu_ticks(pid: int) -> int:
    """User and system time, in clock ticks (/proc/PID/stat, fields 14 and 15)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])
