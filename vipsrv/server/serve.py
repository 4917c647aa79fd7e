"""Run a server process: signals, the event loop, standard output."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import Any

from vipsrv.address import Address
from vipsrv.errors import StartFailed
from vipsrv.server.descriptors import fit_connections, raise_limit
from vipsrv.server.gateway import Gateway
from vipsrv.server.hardening import harden
from vipsrv.server.logs.server_log import ServerLog
from vipsrv.server.settings import ServerSettings
from vipsrv.server.systemd import Notifier, inherited_listeners

_log = logging.getLogger(__name__)


def serve(
    settings: ServerSettings,
    *,
    log: ServerLog,
    on_listening: Callable[[list[Address]], None],
    until_stdin_closes: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal stops at once. A server whose place another
    one has taken drains by itself.

    SIGHUP drains, too, if the process has a terminal, because the terminal was closed. Without a terminal it
    is a request to read the settings again, which is not possible yet; the log says so.
    ``until_stdin_closes`` stops the server, as a signal does, when standard input ends, so that it ends with
    the process that started it. Raises ``StartFailed``, also if ``on_listening`` raises ``OSError``.
    """
    harden()
    settings = fit_connections(settings, raise_limit())
    with closing(Notifier.from_environment(successor=settings.takeover)) as notifier:
        _run(_serve(settings, log, on_listening, notifier, until_stdin_closes=until_stdin_closes))


async def _serve(
    settings: ServerSettings,
    log: ServerLog,
    on_listening: Callable[[list[Address]], None],
    notifier: Notifier,
    *,
    until_stdin_closes: bool,
) -> None:
    loop = asyncio.get_running_loop()
    first, second = asyncio.Event(), asyncio.Event()
    leave = asyncio.Event()  # after the first signal, or because another server has taken over

    def drain_asked() -> None:
        first.set()
        leave.set()

    def stop_asked() -> None:
        if first.is_set():
            second.set()
        drain_asked()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_asked)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        # Never the second signal: a shell repeats what the terminal has sent.
        loop.add_signal_handler(signal.SIGHUP, drain_asked if _has_terminal() else _log_reload)
    if until_stdin_closes:
        _on_end_of_stdin(loop, drain_asked)
    gateway = Gateway(
        settings,
        log.requests,
        inherited=inherited_listeners(),
        notifier=notifier,
        on_handed_over=leave.set,
    )
    starting = loop.create_task(gateway.start())
    asked = loop.create_task(leave.wait())
    await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        listening = await starting
        try:
            on_listening(listening)
        except OSError as error:
            asked.cancel()
            await gateway.stop()
            raise StartFailed(f"the addresses could not be printed: {error.strerror}") from None
        await gateway.announce(listening)
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


def _has_terminal() -> bool:
    """Whether this process gets SIGHUP when a terminal is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _log_reload() -> None:
    _log.warning("SIGHUP has no effect: the settings are read at the start only; restart the server")


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
