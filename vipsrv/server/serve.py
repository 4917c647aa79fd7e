"""Run a server process: signals, the event loop, standard output."""

import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from vipsrv.address import Address
from vipsrv.errors import StartFailed
from vipsrv.server.gateway import Gateway
from vipsrv.server.hardening import harden
from vipsrv.server.settings import ServerSettings

_log = logging.getLogger(__name__)


def serve(
    settings: ServerSettings,
    *,
    on_listening: Callable[[list[Address]], None],
    until_stdin_closes: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal stops at once.

    ``until_stdin_closes`` stops the server, as a signal does, when standard input ends, so that it ends with
    the process that started it. Raises ``StartFailed``, also if ``on_listening`` raises ``OSError``.
    """
    harden()
    _raise_descriptor_limit()
    _run(_serve(settings, on_listening, until_stdin_closes=until_stdin_closes))


async def _serve(
    settings: ServerSettings, on_listening: Callable[[list[Address]], None], *, until_stdin_closes: bool
) -> None:
    loop = asyncio.get_running_loop()
    first, second = asyncio.Event(), asyncio.Event()

    def stop_asked() -> None:
        (second if first.is_set() else first).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_asked)
    if until_stdin_closes:
        _on_end_of_stdin(loop, first.set)
    gateway = Gateway(settings)
    starting = loop.create_task(gateway.start())
    asked = loop.create_task(first.wait())
    await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        listening = await starting
        try:
            on_listening(listening)
        except OSError as error:
            asked.cancel()
            await gateway.stop()
            raise StartFailed(f"the addresses could not be printed: {error.strerror}") from None
        # All objects of now live as long as the server, so the garbage collector need not visit them.
        gc.freeze()
        await asked
        _log.info("stopping: %d connections", gateway.connections)
        draining = loop.create_task(gateway.drain())
        asked_again = loop.create_task(second.wait())
        await asyncio.wait({draining, asked_again}, return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        asked_again.cancel()
    else:
        starting.cancel()
    asked.cancel()
    await gateway.stop()


def _on_end_of_stdin(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    if sys.stdin is None:  # closed from the beginning
        stop()
        return
    descriptor = sys.stdin.fileno()

    def readable() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop()

    try:
        loop.add_reader(descriptor, readable)
    except PermissionError:  # a file or /dev/null, which cannot be waited for
        stop()


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop  # noqa: PLC0415 - an optional dependency, not on all platforms
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _raise_descriptor_limit() -> None:
    """Raise the limit of open files to the hard limit; the soft one is for programs that use select()."""
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as error:  # macOS refuses "unlimited", a system call filter the call
        _log.warning("the limit of open files stays as it is: %s", error)
