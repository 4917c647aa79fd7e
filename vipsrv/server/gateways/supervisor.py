"""The supervisor of several gateways: starts, watches and replaces them, and ends them together.

It has the interface of one ``Gateway``, so that ``serve`` runs either.

Its states are those of ``server_state``. A gateway that ends while the server is SERVING is replaced. Until
its replacement serves, another gateway accepts clients from its sockets, so that none has to wait for the new
process.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from vipsrv.address import Address, Wire
from vipsrv.errors import Draining, SettingsError, StartFailed
from vipsrv.server.gateways.gateway_process import GatewayProcess, NoAnswer, ProcessState, StartOrder
from vipsrv.server.gateways.listening import SharedListeners
from vipsrv.server.gateways.messages import Channel
from vipsrv.server.gateways.shares import cores_of, own_cores, settings_of
from vipsrv.server.identity.shared_quotas import SharedQuotas, create_table
from vipsrv.server.listening_sockets import OpenListener
from vipsrv.server.metrics.merging import SNAPSHOTS, SupervisorFigures
from vipsrv.server.ops.snapshots import Answers
from vipsrv.server.server_state import ServerState
from vipsrv.server.settings import OFF, ServerSettings
from vipsrv.server.succession import Succession, addresses_of, may_lack_default
from vipsrv.server.systemd import Notifier, Watchdog
from vipsrv.workers.orphans import Orphans

WATCH_SECONDS = 0.25
"""Seconds between two looks at the gateways."""

SILENT_SECONDS = 60.0
"""A gateway that has not been heard of for so long is killed: its event loop is stuck."""

STOP_SECONDS = 10.0
"""How long the gateways may take to stop at once before they are killed."""

STABLE_SECONDS = 10.0
"""A gateway that has served for so long is replaced without a pause."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0

_LONGEST_DRAIN = 1e6
"""Seconds; a timer for an infinite time is an error."""

_log = logging.getLogger(__name__)


class Supervisor:
    """A server of several gateways: ``start``, ``announce``, then ``drain`` and ``stop``, as ``Gateway``."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        inherited: Sequence[OpenListener] = (),
        notifier: Notifier | None = None,
        on_handed_over: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._count = settings.gateway_count
        self._notifier = notifier or Notifier(None)
        self._on_handed_over = on_handed_over
        self._listeners = SharedListeners()
        self._succession = Succession(self._listeners, inherited, self._handed_over)
        self._state = ServerState.STARTING
        self._cores = own_cores() if settings.pin_workers else []
        self._quotas = -1
        self._has_operator = False
        """Whether there is a listener for one, so that gateways keep figures."""
        self._processes: list[GatewayProcess] = []
        self._borrowers: dict[int, GatewayProcess] = {}
        """Which gateway accepts clients from the sockets of another one, by the number of that."""
        self._orphans: Orphans | None = None
        self._watchdog: Watchdog | None = None
        self._watching: asyncio.Task[None] | None = None
        self._keeping: list[asyncio.Task[None]] = []
        self._collecting: set[asyncio.Task[None]] = set()
        self._figures = SupervisorFigures()

    @property
    def connections(self) -> int:
        """The number of connected clients at all gateways, up to a second ago."""
        return sum(process.connections for process in self._processes)

    @property
    def takes_over(self) -> bool:
        """Whether it has the listeners of a server whose place it takes."""
        return self._succession.takes_over

    async def start(self) -> list[Address]:
        """Start all gateways and listen; return the addresses, with real ports. Raises ``StartFailed``."""
        try:
            await self._open_listeners()
            self._quotas = _create_quotas(self._count)
            self._orphans = Orphans.create()
            self._watching = asyncio.create_task(self._watch())
            for number in range(self._count):
                self._processes.append(await self._launch(number))
            await _all(process.started() for process in self._processes)
            self._listeners.listen()
            await _all(process.serve() for process in self._processes)
        except StartFailed:
            await self.stop()
            raise
        self._state = self._state.followed_by(ServerState.SERVING)
        self._keeping = [asyncio.create_task(self._keep(number)) for number in range(self._count)]
        self._lend()  # one may have ended while the others started
        _log.info("%d gateways serve, the processes %s", self._count, self._pids())
        return self._listeners.addresses

    async def announce(self, addresses: list[Address]) -> None:
        """Say that the server accepts requests at ``addresses``: to the service manager, and to the server
        whose place it takes, which then stops. Raises ``StartFailed``; this one has to ``stop`` then.
        """
        await self._succession.finish()
        self._watchdog = Watchdog(self._notifier, self._check_ready)
        self._notifier.ready(
            f"{self._count} gateways, {self._settings.workers} workers, "
            f"listening on {', '.join(map(str, addresses))}"
        )

    async def prepare_reload(self, settings: ServerSettings) -> Callable[[], Awaitable[None]]:
        """Let all gateways check their shares of new settings, and return what makes them take these over.

        Raises ``SettingsError`` if one refuses; then none has changed.
        """
        serving = [process for process in self._processes if process.state is ProcessState.SERVING]
        answers = await asyncio.gather(
            *(
                process.prepare(self._settings_of(self._processes.index(process), settings))
                for process in serving
            ),
            return_exceptions=True,
        )
        _raise_faults(answers)
        prepared = [process for process, ready in zip(serving, answers, strict=True) if ready is True]

        async def take_over() -> None:
            self._settings = settings
            for process in self._processes:
                if process not in prepared:  # it has just started, or starts, with the settings from before
                    process.drain(has_successor=True)
            await asyncio.gather(*(process.take_over() for process in prepared))

        return take_over

    async def drain(self) -> None:
        """Accept no new requests, and let all gateways finish those in flight."""
        self._state = self._state.followed_by(ServerState.DRAINING)
        if not self._succession.is_handed_over:
            self._notifier.stopping()
        has_successor = self._succession.sockets_live_on
        self._succession.close()
        await _end(self._keeping)
        self._listeners.close(but=Wire.OPS)
        draining = [process for process in self._processes if process.state is not ProcessState.ENDED]
        first, *others = self._processes  # the first one has the operator's listener
        first.drain(has_successor=has_successor, stays=self._has_operator and not has_successor)
        for process in others:
            process.drain(has_successor=has_successor)
        seconds = self._settings.drain_delay + self._settings.drain
        until = time.monotonic() + min(seconds, _LONGEST_DRAIN) + STOP_SECONDS
        await self._wait_until_ended(until, others)
        first.leave()
        await self._wait_until_ended(max(until, time.monotonic() + STOP_SECONDS), [first])
        for process in draining:
            if process.has_failed:
                _log.error("%s ended before its requests in flight: %s", process.name, process.reason)

    async def stop(self) -> None:
        """Stop at once; clients that still wait get ``Draining``."""
        if self._state is not ServerState.ENDED:
            self._state = self._state.followed_by(ServerState.ENDED)
        self._succession.abandon()
        await _end(self._keeping)
        self._listeners.close()
        for process in self._processes:
            process.stop()
        await self._wait_until_ended(time.monotonic() + STOP_SECONDS, self._processes)
        for process in self._processes:
            if process.state is not ProcessState.ENDED:
                process.kill()
                await process.ended.wait()
        if self._watching is not None:
            await _end([self._watching])
        self._end_orphans()
        if self._quotas >= 0:
            os.close(self._quotas)
            self._quotas = -1

    async def _wait_until_ended(self, until: float, processes: Sequence[GatewayProcess]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(until - time.monotonic()):
                for process in processes:
                    await process.ended.wait()

    async def _open_listeners(self) -> None:
        if sys.platform != "linux":
            raise StartFailed("--gateways: more than one gateway needs Linux")
        if self._count > self._settings.workers:
            raise StartFailed(
                f"--gateways: each of {self._count} gateways needs a worker, and --workers is "
                f"{self._settings.workers}; have fewer gateways or more workers"
            )
        given = await self._succession.begin(self._settings)
        self._listeners.adopt(given)
        for_clients = [one for one in given if one.address.wire is not Wire.OPS]
        for address in [] if for_clients else addresses_of(self._settings):
            await self._listeners.open(address, self._count)
        ops = self._settings.ops_address
        if ops is not None and len(for_clients) == len(given):
            with may_lack_default(self._settings):
                await self._listeners.open(ops, self._count)
        self._has_operator = any(one.wire is Wire.OPS for one in self._listeners.addresses)

    async def _launch(self, number: int) -> GatewayProcess:
        """Start a gateway process. Raises ``StartFailed``.

        Nothing is awaited after the settings are read, so that no reload passes it by.
        """
        try:
            channel, theirs = await Channel.pair()
        except OSError as error:
            raise StartFailed(f"no process can be started: {error.strerror}") from None
        order = StartOrder(
            number=number,
            gateways=self._count,
            settings=self._settings_of(number),
            cores=cores_of(self._cores, self._count, number),
            sockets=self._listeners.of(self._count, number),
            inherited=self._listeners.descriptors,
            quotas=self._quotas,
        )
        return GatewayProcess.launch(
            order,
            channel,
            theirs,
            on_change=self._lend,
            on_collect=self._start_to_collect,
            on_last=self._figures.note,
        )

    def _settings_of(self, number: int, settings: ServerSettings | None = None) -> ServerSettings:
        """Return the share of a gateway, of ``settings`` if they are new."""
        share = settings_of(settings or self._settings, self._count, number)
        return share if self._has_operator else share.model_copy(update={"ops_listen": OFF})

    async def _keep(self, number: int) -> None:
        """Replace one gateway whenever it has ended."""
        pause = 0.0
        while True:
            process = self._processes[number]
            await process.ended.wait()
            SharedQuotas(self._quotas, self._count, number).clear_in_flight()
            if self._succession.is_handed_over:
                return
            self._figures.gateway_ended()
            served = time.monotonic() - process.serving_since if process.serving_since else 0.0
            is_expected = process.was_told_to_end or served > STABLE_SECONDS
            pause = 0.0 if is_expected else _longer(pause)
            when = f"in {pause:g} s" if pause else "now"
            level = logging.INFO if process.was_told_to_end else logging.ERROR
            _log.log(level, "%s ended: %s; it is replaced %s", process.name, process.reason, when)
            await asyncio.sleep(pause)
            while not await self._replace(number):
                pause = _longer(pause)
                await asyncio.sleep(pause)

    async def _replace(self, number: int) -> bool:
        """Start a gateway in the place of one that has ended; return whether there is a process. It may end
        before it serves.
        """
        try:
            self._processes[number] = process = await self._launch(number)
        except StartFailed as error:
            _log.error("gateway %d cannot be replaced yet: %s", number + 1, error)
            return False
        with suppress(StartFailed):  # told when it has ended
            await process.started()
            await process.serve()
            _log.info("%s serves again, as process %d", process.name, process.pid)
        return True

    def _lend(self) -> None:
        """Let a gateway that serves accept the clients of each one that does not."""
        if self._state is not ServerState.SERVING or self._succession.is_handed_over:
            return
        serving = [process for process in self._processes if process.state is ProcessState.SERVING]
        for owner, process in enumerate(self._processes):
            borrower = self._borrowers.get(owner)
            if borrower is not None and borrower not in serving:
                del self._borrowers[owner]
                borrower = None
            if process in serving:
                if borrower is not None:
                    del self._borrowers[owner]
                    borrower.give_back(owner)
            elif borrower is None and serving:
                sockets = [one for one in self._listeners.of(self._count, owner) if not one.is_shared]
                borrower = self._borrowers[owner] = serving[owner % len(serving)]
                borrower.borrow(owner, sockets)

    def _start_to_collect(self, asker: GatewayProcess, question: int, name: str) -> None:
        task = asyncio.create_task(self._collect(asker, question, name))
        self._collecting.add(task)
        task.add_done_callback(self._collecting.discard)

    async def _collect(self, asker: GatewayProcess, question: int, name: str) -> None:
        """Ask all gateways but ``asker`` for their figures with this name, and pass them on to it."""
        others = [process for process in self._processes if process is not asker]
        if name != SNAPSHOTS:
            answers = await _ask(others, name)
        else:
            # Those of the asker as well, which are kept in case that it ends.
            answers, own = await asyncio.gather(_ask(others, name), _ask([asker], name))
            answers.values.append(self._figures.complete([*answers.values, *own.values], asker.number))
        asker.collected(question, answers)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._end_orphans()
            if self._watchdog is not None:
                self._watchdog.check(time.monotonic())
            for process in self._processes:
                # Looks are counted, not seconds: if this process was stopped for a while, there are messages
                # that it has not read yet.
                process.silent_looks += 1
                is_silent = process.silent_looks * WATCH_SECONDS > SILENT_SECONDS
                if is_silent and process.state is not ProcessState.ENDED:
                    _log.error("%s is killed: nothing was heard of it for %g s", process.name, SILENT_SECONDS)
                    process.silent_looks = 0
                    process.kill()

    def _end_orphans(self) -> None:
        """Kill what gateways that have ended have left behind: workers, and what workers have started."""
        if self._orphans is not None:
            own = [process.pid for process in self._processes]
            self._orphans.end(own, why="the gateway that it belonged to has ended")

    def _check_ready(self) -> None:
        """Raise ``Draining`` if no gateway has workers."""
        if not any(one.is_ready and one.state is ProcessState.SERVING for one in self._processes):
            raise Draining("no gateway has a worker")

    def _handed_over(self, successor: int | None) -> None:
        if successor is not None:
            self._notifier.main_process(successor)
        self._notifier.close()
        if self._on_handed_over is not None:
            self._on_handed_over()

    def _pids(self) -> str:
        return ", ".join(str(process.pid) for process in self._processes)


def _longer(pause: float) -> float:
    """Return the pause after ``pause`` while a gateway cannot be replaced."""
    return min(max(2 * pause, _FIRST_PAUSE), _LONGEST_PAUSE)


async def _end(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(processes: Iterable[GatewayProcess], name: str) -> Answers:
    """Return the figures with this name of all gateways that answer in time."""
    found = await asyncio.gather(*(one.snapshot(name) for one in processes), return_exceptions=True)
    values, silent = [], []
    for value in found:
        if isinstance(value, NoAnswer):
            silent.append(str(value))
        elif isinstance(value, BaseException):
            raise value
        else:
            values.append(value)
    return Answers(values, tuple(silent))


def _create_quotas(gateways: int) -> int:
    """Return the descriptor of memory for what identities use. Raises ``StartFailed``."""
    try:
        return create_table(gateways)
    except OSError as error:
        raise StartFailed(
            f"--gateways: the gateways cannot share memory: {error.strerror}; set it to 1"
        ) from None


async def _all(waits: Iterable[Awaitable[None]]) -> None:
    """Wait for all, or for the first that fails. Raises ``StartFailed``."""
    await asyncio.gather(*waits)


def _raise_faults(answers: Sequence[object]) -> None:
    """Raise ``SettingsError`` with the faults of all gateways, each once; other exceptions as they are."""
    faults: dict[str, None] = {}
    for answer in answers:
        if isinstance(answer, SettingsError):
            faults.update(dict.fromkeys(answer.faults))
        elif isinstance(answer, BaseException):
            raise answer
    if faults:
        raise SettingsError(*faults)
