"""A server of one's own for as long as it is needed: ``vipsrv serve`` as a child on a free loopback port.

It holds its standard input as a lifeline: when that ends, because it is closed here or because this process
is gone, however that came, the server stops.
"""

import os
import subprocess
import sys
import tempfile
import threading
from types import TracebackType
from typing import IO, Any, Self

from vipsrv.errors import StartFailed
from vipsrv.protocol import DEFAULT_HOST

READY = f"vipsrv listening on {DEFAULT_HOST}:"
START_SECONDS = 30.0
STOP_SECONDS = 5.0


class EmbeddedServer:
    """A context manager: the server is ready at ``host`` and ``port`` within it, and gone after it.

    Raises ``StartFailed`` with the server's own reason if it does not start within 30 s.
    """

    host = DEFAULT_HOST
    port: int

    def __enter__(self) -> Self:
        # A file rather than a pipe: nobody has to read along so that the server can go on writing.
        with tempfile.TemporaryFile() as log:
            self._process = _start(log)
            try:
                self.port = self._wait_until_ready(log)
            except BaseException:
                self._stop()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _wait_until_ready(self, log: IO[bytes]) -> int:
        # A pipe cannot be read with a timeout everywhere; the end of the process ends the read.
        killer = threading.Timer(START_SECONDS, self._process.kill)
        killer.daemon = True  # a ctrl-C at the wrong moment must not leave the interpreter waiting for it
        try:
            killer.start()
            line = self._process.stdout.readline().decode(errors="replace") if self._process.stdout else ""
        finally:
            killer.cancel()
        if not line.startswith(READY):
            self._stop()
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()
            reason = said[-1] if said else f"it said nothing within {START_SECONDS:g} s"
            raise StartFailed(f"a server of its own could not be started: {reason}")
        return int(line.removeprefix(READY))

    def _stop(self) -> None:
        process = self._process
        try:
            if process.stdin is not None:
                process.stdin.close()
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # then by force, below
        finally:
            process.kill()  # does nothing to one that has ended
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _start(log: IO[bytes]) -> "subprocess.Popen[bytes]":
    arguments = ["serve", "--host", DEFAULT_HOST, "--port", "0", "--until-stdin-closes"]
    options: dict[str, Any] = {}
    if os.name == "nt":
        options["creationflags"] = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    else:
        # A ctrl-C at the terminal is for this process, which then stops the server.
        options["process_group"] = 0
    # VIPSRV_LISTEN would win over the host and port above.
    environment = {name: value for name, value in os.environ.items() if name.upper() != "VIPSRV_LISTEN"}
    try:
        return subprocess.Popen(
            # -P: what lies in the current folder, which may be one of downloads, is not imported.
            [sys.executable, "-P", "-m", "vipsrv", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            **options,
        )
    except OSError as error:
        raise StartFailed(f"a server of its own could not be started: {error}") from error
