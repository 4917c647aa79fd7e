"""Run a server process: signals, the event loop, standard output."""

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import Any

from vipsrv.address import Address
from vipsrv.errors import StartFailed
from vipsrv.server.configuration import Configuration
from vipsrv.server.descriptors import fit_connections, raise_limit
from vipsrv.server.gateway import Gateway
from vipsrv.server.hardening import harden
from vipsrv.server.logs.server_log import ServerLog
from vipsrv.server.pid_file import LastReload, PidFile
from vipsrv.server.reload import Outcome, Reloader, ReloadReport
from vipsrv.server.settings import ServerSettings
from vipsrv.server.systemd import Notifier, inherited_listeners

_log = logging.getLogger(__name__)


def serve(
    configuration: Configuration,
    *,
    read: Callable[[], Configuration],
    log: ServerLog,
    on_listening: Callable[[list[Address]], None],
    until_stdin_closes: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal stops at once. A server whose place another
    one has taken drains by itself.

    SIGHUP drains, too, if the process has a terminal, because the terminal was closed. Without a terminal it
    is a request to ``read`` the configuration again; SIGUSR1 always is.
    ``until_stdin_closes`` stops the server, as a signal does, when standard input ends, so that it ends with
    the process that started it. Raises ``StartFailed``, also if ``on_listening`` raises ``OSError``.
    """
    harden()
    settings = fit_connections(configuration.settings, raise_limit())
    pid_file = (
        None if settings.pid_file is None else PidFile.create(settings.pid_file, take_over=settings.takeover)
    )

    def reloader(gateway: Gateway) -> Reloader:
        return Reloader(configuration, read, [log, gateway])

    with closing(Notifier.from_environment(successor=settings.takeover)) as notifier:
        try:
            _run(
                _serve(
                    settings,
                    log,
                    reloader,
                    pid_file,
                    notifier,
                    on_listening,
                    until_stdin_closes=until_stdin_closes,
                )
            )
        finally:
            if pid_file is not None:
                pid_file.remove()


async def _serve(
    settings: ServerSettings,
    log: ServerLog,
    make_reloader: Callable[[Gateway], Reloader],
    pid_file: PidFile | None,
    notifier: Notifier,
    on_listening: Callable[[list[Address]], None],
    *,
    until_stdin_closes: bool,
) -> None:
    loop = asyncio.get_running_loop()
    first, second, reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
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
        loop.add_signal_handler(signal.SIGHUP, drain_asked if _has_terminal() else reload.set)
    loop.add_signal_handler(signal.SIGUSR1, reload.set)
    if until_stdin_closes:
        _on_end_of_stdin(loop, drain_asked)
    gateway = Gateway(
        settings, log.requests, inherited=inherited_listeners(), notifier=notifier, on_handed_over=leave.set
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
        if pid_file is not None:
            _publish(pid_file)
        # All objects of now live as long as the server, so the garbage collector need not visit them.
        gc.freeze()
        reloading = loop.create_task(_reload_when_asked(reload, make_reloader(gateway), pid_file, notifier))
        await asked
        reloading.cancel()
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


def _publish(pid_file: PidFile) -> None:
    try:
        pid_file.publish()
    except OSError as error:
        _log.error("--pid-file: the file of the other server cannot be replaced: %s", error)


async def _reload_when_asked(
    asked: asyncio.Event, reloader: Reloader, pid_file: PidFile | None, notifier: Notifier
) -> None:
    while True:
        await asked.wait()
        asked.clear()
        notifier.reloading()
        began = time.monotonic()
        try:
            report = await reloader.reload()
        except Exception as error:  # noqa: BLE001 - a bug in a part must not end later reloads
            _log.exception("the settings were not reloaded")
            report = ReloadReport(Outcome.REFUSED, (f"internal error: {error!r}",))
        if pid_file is not None:
            try:
                pid_file.note_reload(LastReload(began, report.outcome is Outcome.TAKEN_OVER, report.lines))
            except OSError as error:
                _log.error("how the reload went cannot be written beside the pid file: %s", error)
        notifier.ready(f"serving; the last reload was {report.outcome}")


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
