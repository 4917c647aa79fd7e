"""Try what a confined worker must not be able to do. Each attempt must fail, or the layer does not hold."""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from vipsrv.workers.child.sandbox import landlock


def beyond_landlock(abi: int) -> str | None:
    """Return what a process under Landlock of this version could still do, ``None`` if nothing; the filter of
    system calls must not be there yet.
    """
    attempts: list[tuple[str, Callable[[], None]]] = [("open a file", _open)]
    if abi >= landlock.NETWORK_ABI:
        attempts.append(("listen on TCP", _listen))
    if abi >= landlock.SCOPE_ABI:
        attempts.append(("signal the gateway", _signal_parent))
    return _first_success(attempts)


def beyond_seccomp() -> str | None:
    """Return what a process under the filter could still do, ``None`` if nothing."""
    return _first_success(
        [
            ("open a file", _open),
            ("make a socket", _make_socket),
            ("start a process", _fork),
            ("signal the gateway", _signal_parent),
        ]
    )


def _first_success(attempts: list[tuple[str, Callable[[], None]]]) -> str | None:
    for what, attempt in attempts:
        with suppress(OSError):
            attempt()
            return what
    return None


def _open() -> None:
    os.close(os.open("/", os.O_RDONLY))


def _make_socket() -> None:
    socket.socket(socket.AF_UNIX).close()


def _listen() -> None:
    with socket.socket(socket.AF_INET) as listener:
        listener.bind(("127.0.0.1", 0))


def _signal_parent() -> None:
    os.kill(os.getppid(), signal.SIG_DFL)  # number 0: only checks whether a signal could be sent


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()
