"""An embedded server: ``vipsrv serve`` as a child process on a free loopback port or a unix socket.

The server stops when its standard input closes: because ``stop`` closes it, or because this process has ended
for any reason.
"""

import os
import subprocess
import sys
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from vipsrv.address import Address
from vipsrv.errors import StartFailed
from vipsrv.protocol import DEFAULT_HOST

READY = "vipsrv listening on "
NOT_FOR_EMBEDDED = frozenset(
    {
        *("host", "port", "listen", "ops_listen", "control", "takeover", "trusted_proxies"),  # where it is
        *("tokens", "allow_v1", "insecure", "tls_cert", "tls_key", "tls_client_ca", "user"),  # who uses it
        *("cors_origin", "drain_delay", "ops_file"),  # for browsers, balancers and health checks
        *("upload_ttl", "upload_memory", "upload_disk"),  # no network is between
        *(
            "log_level",
            "log_format",
            "log_file",
            "access_log",
            "access_log_sample",
            "otel",
            "pid_file",
        ),  # what it tells
    }
)
"""The settings that an embedded server does not take from the variables of this process.

It takes those of how images are processed and of what that may take. Where it listens, who may use it and
what it tells an operator is decided here: those variables are meant for a server that others use, too.
"""

_OTHER_VARIABLES = frozenset(
    {
        *("VIPSRV_CONFIG", "VIPSRV_SERVERS", "VIPSRV_TOKEN", "VIPSRV_TOKEN_FILE"),
        # systemd tells this process where it is awaited, not the server.
        *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
    }
)
_NOT_PASSED_ON = _OTHER_VARIABLES | {
    f"VIPSRV_{name.upper()}{end}" for name in NOT_FOR_EMBEDDED for end in ("", "_FILE")
}

START_SECONDS = 30.0
STOP_SECONDS = 5.0


def server_is_installed() -> bool:
    """Whether this installation includes the server; the distribution ``vipsrv-client`` does not."""
    return find_spec("vipsrv.server") is not None


class EmbeddedServer:
    """A server that runs from ``start`` to ``stop``, or within a ``with`` block.

    Both may be called more than once and from several threads. If the server has ended by itself, for example
    because it was killed, ``start`` starts another one. It listens at the unix socket ``path``, which it
    makes and removes, or otherwise on a free port. ``workers`` is their number, instead of that of the
    variables of this process.
    """

    def __init__(self, *, path: Path | None = None, workers: int | None = None) -> None:
        where = ["--host", DEFAULT_HOST, "--port", "0"] if path is None else ["--listen", f"unix:{path}"]
        self._arguments = where if workers is None else [*where, "--workers", str(workers)]
        self._lock = threading.Lock()  # guards the fields below
        self._process: subprocess.Popen[bytes] | None = None
        self._address = Address()

    @property
    def running(self) -> bool:
        """Whether it has been started and not stopped since."""
        return self._process is not None

    def start(self) -> Address:
        """Start it if it does not run yet, and return its address once it accepts connections.

        Raises ``StartFailed`` with the server's own reason if it is not ready within 30 s.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                _close_pipes(self._process)
                self._process = None
            if self._process is None:
                # A file rather than a pipe: the server can write to it although nothing reads it.
                with tempfile.TemporaryFile() as log:
                    process = _start(self._arguments, log)
                    try:
                        address = _wait_until_ready(process, log)
                    except BaseException:
                        _stop(process)
                        raise
                self._address = address
                self._process = process
            return self._address

    def stop(self) -> None:
        """Stop it: close its standard input, and kill it if it runs for 5 s more."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            _stop(process)

    def forget(self) -> None:
        """In a forked child: leave the server to the parent, whose child process it is.

        Its address remains valid here as long as the parent keeps it running. Takes no lock, since another
        thread of the parent may have held it at the fork.
        """
        self._lock = threading.Lock()
        process = self._process
        if process is not None:
            _close_pipes(process)
            process.returncode = 0  # it is not a child of this process, so it cannot be waited for

    def __enter__(self) -> Address:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _start(own: list[str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
    if not server_is_installed():
        raise StartFailed("the server is not installed here; install vipsrv to have one started")
    # No TOML file: one in the current folder may be of another server, or of someone else.
    arguments = ["serve", *own, "--until-stdin-closes", "--no-config"]
    # It has no operator. Nobody can read the file of its log, which would grow with each request.
    arguments += ["--ops-listen", "off", "--access-log", "off", "--upload-ttl", "0"]
    options: dict[str, Any] = {}
    if os.name == "nt":
        options["creationflags"] = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    else:
        # A ctrl-C at the terminal is for this process, which then stops the server.
        options["process_group"] = 0
    environment = {name: value for name, value in os.environ.items() if name.upper() not in _NOT_PASSED_ON}
    try:
        return subprocess.Popen(
            # -P: do not import modules from the current folder, which may hold downloads.
            [sys.executable, "-P", "-m", "vipsrv", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            **options,
        )
    except OSError as error:
        raise StartFailed(f"an embedded server could not be started: {error}") from error


def _wait_until_ready(process: "subprocess.Popen[bytes]", log: IO[bytes]) -> Address:
    """Return where the server listens. Raises ``StartFailed``."""
    # Reading from a pipe with a timeout is not possible on every system; killing the process ends the read.
    killer = threading.Timer(START_SECONDS, process.kill)
    killer.daemon = True  # a ctrl-C here must not make the interpreter wait for it at exit
    try:
        killer.start()
        line = process.stdout.readline().decode(errors="replace") if process.stdout else ""
    finally:
        killer.cancel()
    if not line.startswith(READY):
        _stop(process)
        log.seek(0)
        output = log.read().decode(errors="replace").strip().splitlines()
        reason = output[-1] if output else f"it printed nothing within {START_SECONDS:g} s"
        raise StartFailed(f"an embedded server could not be started: {reason}")
    return Address.parse(line.removeprefix(READY).strip())


def _stop(process: "subprocess.Popen[bytes]") -> None:
    try:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass  # killed below
    finally:
        process.kill()  # has no effect on a process that has ended
        process.wait()
        _close_pipes(process)


def _close_pipes(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
