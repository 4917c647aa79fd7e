"""Run a server process: signals, the event loop, standard output, pid file.

Its states are those of ``server_state``. A reload that is asked for while the server is STARTING is done once
it is SERVING; while it is DRAINING, the reload is refused.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import TypedDict

from vipsrv.address import Address
from vipsrv.errors import StartFailed
from vipsrv.server.configuration import Configuration
from vipsrv.server.configuration.origin import Source
from vipsrv.server.descriptors import fit_connections, raise_limit
from vipsrv.server.event_loop import first_of, run
from vipsrv.server.gateway import Gateway
from vipsrv.server.gateways.supervisor import Supervisor
from vipsrv.server.hardening import harden
from vipsrv.server.listening_sockets import OpenListener
from vipsrv.server.logs.server_log import ServerLog
from vipsrv.server.ops_file import write_ops_file
from vipsrv.server.pid_file import LastReload, PidFile
from vipsrv.server.reload import Outcome, Reloader, ReloadReport
from vipsrv.server.server_state import ServerState
from vipsrv.server.spool_folder import is_fallback
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
    _log_surroundings(configuration)
    harden(exports=configuration.settings.otel)
    with closing(Notifier.from_environment(successor=configuration.settings.takeover)) as notifier:
        process = _ServerProcess(configuration, read, log, notifier)
        run(process.run(on_listening, until_stdin_closes=until_stdin_closes))


def _log_surroundings(configuration: Configuration) -> None:
    """Say which defaults this machine or container has changed."""
    settings, origins = configuration.settings, configuration.origins
    by_limit = [name for name, origin in origins.items() if origin.source is Source.LIMIT]
    if by_limit:
        values = ", ".join(f"{name} {configuration.shown(name)}" for name in by_limit)
        _log.info("the %s sets %s", origins[by_limit[0]].place, values)
    if origins["spool_dir"].source is Source.DEFAULT and is_fallback(settings.spool_dir):
        _log.info("large uploads and results are kept in %s: /var/tmp cannot be written", settings.spool_dir)


class _StopRequests:
    """Who has asked the process to stop, and how.

    ``asked`` is set by the first signal, the end of standard input, or another server that has taken over;
    ``at_once`` by a second signal. The signal after a hand-over is the first one.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()
        self._by_signal = False

    def drain(self) -> None:
        """Stop after the requests in flight; the signal after this is the second one."""
        self._by_signal = True
        self.asked.set()

    def signal(self) -> None:
        """Stop after the requests in flight, or at once if that has been asked for before."""
        if self._by_signal:
            self.at_once.set()
        self.drain()

    def handed_over(self) -> None:
        """Stop after the requests in flight, because another server has the listeners."""
        self.asked.set()


class _Common(TypedDict):
    """What a gateway and a supervisor of several need."""

    inherited: list[OpenListener]
    notifier: Notifier
    on_handed_over: Callable[[], None]


class _ServerProcess:
    """The life of one server process: ``run``. It is a gateway, or the supervisor of several."""

    def __init__(
        self,
        configuration: Configuration,
        read: Callable[[], Configuration],
        log: ServerLog,
        notifier: Notifier,
    ) -> None:
        self._settings = configuration.settings
        self._log = log
        self._notifier = notifier
        self._state = ServerState.STARTING
        self._stop = _StopRequests()
        self._reload_asked = asyncio.Event()
        common: _Common = {
            "inherited": inherited_listeners(),
            "notifier": notifier,
            "on_handed_over": self._stop.handed_over,
        }
        self._gateway: Gateway | Supervisor
        if self._settings.gateway_count > 1:
            self._gateway = Supervisor(self._settings, **common)
            self._reloader = Reloader(configuration, read, [log], self._gateway)
        else:
            self._settings = fit_connections(self._settings, raise_limit())
            self._gateway = Gateway(self._settings, log.requests, **common)
            self._reloader = Reloader(configuration, read, [log, self._gateway])
        self._pid_file: PidFile | None = None

    async def run(self, on_listening: Callable[[list[Address]], None], *, until_stdin_closes: bool) -> None:
        """Start, serve, drain and stop. Raises ``StartFailed``."""
        self._handle_signals(until_stdin_closes=until_stdin_closes)
        # After that, because 'vipsrv reload' sends a signal to the process that the file names.
        path, takes_over = self._settings.pid_file, self._settings.takeover
        self._pid_file = None if path is None else PidFile.create(path, take_over=takes_over)
        try:
            listening = await self._start()
            if listening is not None:
                try:
                    await self._serve(listening, on_listening)
                finally:
                    await self._gateway.stop()
        finally:
            self._state = self._state.followed_by(ServerState.ENDED)
            if self._pid_file is not None:
                self._pid_file.remove()

    def _handle_signals(self, *, until_stdin_closes: bool) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.signal)
        reload = self._reload_asked.set
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
            # Never the second signal: a shell repeats what the terminal has sent.
            loop.add_signal_handler(signal.SIGHUP, self._stop.drain if _has_terminal() else reload)
        loop.add_signal_handler(signal.SIGUSR1, reload)
        if until_stdin_closes:
            _on_end_of_stdin(loop, self._stop.drain)

    async def _start(self) -> list[Address] | None:
        """Start, and return the addresses; ``None`` if the process was asked to stop meanwhile."""
        starting = asyncio.create_task(self._gateway.start())
        if await first_of(starting, self._stop.asked):
            return await starting
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)  # it may have failed meanwhile
        await self._gateway.stop()
        return None

    async def _serve(self, listening: list[Address], on_listening: Callable[[list[Address]], None]) -> None:
        """Serve until the process is asked to stop, then drain. Raises ``StartFailed``."""
        if self._pid_file is not None and not self._gateway.takes_over:
            self._pid_file.check_published()
        try:
            on_listening(listening)
        except OSError as error:
            raise StartFailed(f"the addresses could not be printed: {error.strerror}") from None
        await self._gateway.announce(listening)
        self._publish_pid_file()
        if self._settings.ops_file is not None:
            write_ops_file(self._settings.ops_file, listening)
        self._state = self._state.followed_by(ServerState.SERVING)
        # All objects of now live as long as the server, so the garbage collector need not visit them.
        gc.freeze()
        reloading = asyncio.create_task(self._reload_when_asked())
        await self._stop.asked.wait()
        self._state = self._state.followed_by(ServerState.DRAINING)
        _log.info("stopping: %d connections", self._gateway.connections)
        draining = asyncio.create_task(self._gateway.drain())
        if await first_of(draining, self._stop.at_once):
            await draining
        draining.cancel()
        reloading.cancel()

    def _publish_pid_file(self) -> None:
        if self._pid_file is None:
            return
        try:
            self._pid_file.publish()
        except OSError as error:
            _log.error("--pid-file: the file of the other server cannot be replaced: %s", error)

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            began = time.monotonic()
            report = await self._reload()
            if self._pid_file is None:
                continue
            try:
                taken_over = report.outcome is Outcome.TAKEN_OVER
                self._pid_file.note_reload(LastReload(began, taken_over, report.lines))
            except OSError as error:
                _log.error("how the reload went cannot be written beside the pid file: %s", error)

    async def _reload(self) -> ReloadReport:
        if self._state is not ServerState.SERVING:
            _log.warning("the settings were not reloaded: the server is stopping")
            return ReloadReport(Outcome.REFUSED, ("the server is stopping",))
        self._notifier.reloading()
        try:
            report = await self._reloader.reload()
        except Exception as error:  # noqa: BLE001 - a bug in a part must not end later reloads
            _log.exception("the settings were not reloaded")
            report = ReloadReport(Outcome.REFUSED, (f"internal error: {error!r}",))
        if self._state is ServerState.SERVING:  # and has not told meanwhile that it stops
            reason = f": {report.lines[0]}" if report.outcome is Outcome.REFUSED else ""
            self._notifier.ready(f"serving; the last reload was {report.outcome}{reason}")
        return report


def _has_terminal() -> bool:
    """Whether this process gets SIGHUP when a terminal is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


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
