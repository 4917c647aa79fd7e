"""The entry of a gateway process: ``python -m vipsrv.server.gateways.child``, started by the supervisor only.

::

    start   order of the supervisor ─► cores ─► workers ─► STARTED ─► SERVE ─► accepts clients
    end     the supervisor says so or has ended, or SIGTERM: the requests in flight are finished

Signals of a terminal go to all its processes. They are the supervisor's concern, and passed over here.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from vipsrv.address import Address
from vipsrv.errors import Draining, SettingsError, StartFailed
from vipsrv.server.descriptors import fit_connections, raise_limit
from vipsrv.server.event_loop import first_of, run
from vipsrv.server.gateway import Gateway
from vipsrv.server.gateways.messages import PASSED_OVER, Channel, Kind, Message, unpack_settings
from vipsrv.server.gateways.other_gateways import OtherGateways
from vipsrv.server.hardening import harden
from vipsrv.server.identity.shared_quotas import SharedQuotas
from vipsrv.server.listening_sockets import OpenListener
from vipsrv.server.logs.server_log import ServerLog
from vipsrv.server.metrics.merging import SNAPSHOTS
from vipsrv.server.reload import TakeOver, prepare_all
from vipsrv.server.settings import ServerSettings
from vipsrv.workers.core_pinning import confine

ALIVE_SECONDS = 1.0
"""Seconds between two signs of life for the supervisor."""

_log = logging.getLogger("vipsrv.server.gateways.child")  # its __name__ is __main__


def main() -> int:
    """Serve until the supervisor says otherwise; return the exit code."""
    for number in PASSED_OVER:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_OVER)
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    child = _Child()
    run(child.run(sock))
    return 1 if child.failed else 0


class _Child:
    """Makes a gateway of the supervisor's order: ``run``. ``failed`` says whether it could not start."""

    def __init__(self) -> None:
        self.failed = False

    async def run(self, sock: socket.socket) -> None:
        channel = await Channel.open(sock)
        order = await channel.receive()
        if order is None or order.kind is not Kind.START:
            return
        try:
            inherited = _Inherited(order.values["inherited"], order.values["quotas"])
            settings = unpack_settings(order.values["settings"])
            with ServerLog(settings, gateway=order.values["number"] + 1) as log:
                _keep_to(order.values["cores"])
                harden(exports=settings.otel)
                await _GatewayProcess(channel, order, inherited.fit(settings), inherited, log).run()
        except (StartFailed, SettingsError) as error:
            self.failed = True
            channel.send(Kind.FAILED, faults=[str(error)])
        await channel.close_sent()


class _Inherited:
    """The descriptors of listening sockets that the supervisor holds as well, and of the quotas."""

    def __init__(self, descriptors: Sequence[int], quotas: int) -> None:
        self._descriptors = list(descriptors)
        self._quotas = quotas
        for descriptor in (*descriptors, quotas):
            os.set_inheritable(descriptor, False)

    def fit(self, settings: ServerSettings) -> ServerSettings:
        """Return the settings with no more connections than descriptors are left. Raises ``StartFailed``."""
        limit = raise_limit()
        return fit_connections(settings, None if limit is None else limit - len(self._descriptors))

    def open(self, sockets: Sequence[dict[str, Any]]) -> list[OpenListener]:
        """Return listeners on some of the sockets, as the supervisor describes them."""
        listeners = []
        for one in sockets:
            sock = socket.socket(fileno=os.dup(one["descriptor"]))
            sock.setblocking(False)
            listeners.append(OpenListener(sock, Address.parse(one["address"])))
        return listeners

    def quotas(self, gateways: int, gateway: int) -> SharedQuotas:
        """Return the usage of identities that all gateways share."""
        return SharedQuotas(self._quotas, gateways, gateway)

    def close(self) -> None:
        """Close the listening sockets, as far as this process is concerned."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []


class _GatewayProcess:
    """A gateway, and what the supervisor has told it: ``run``.

    ``asked`` to stop is set by a message, a signal or the end of the supervisor, ``at_once`` by a message.
    """

    def __init__(
        self,
        channel: Channel,
        order: Message,
        settings: ServerSettings,
        inherited: _Inherited,
        log: ServerLog,
    ) -> None:
        number, gateways = order.values["number"], order.values["gateways"]
        self._channel = channel
        self._inherited = inherited
        self._log = log
        self._peers = OtherGateways(channel)
        self._gateway = Gateway(
            settings,
            log.requests,
            inherited=inherited.open(order.values["sockets"]),
            quotas=inherited.quotas(gateways, number),
            peers=self._peers,
            number=number,
            gateways=gateways,
        )
        self._may_serve = asyncio.Event()
        self._asked = asyncio.Event()
        self._at_once = asyncio.Event()
        self._stays = False  # after a drain, until it may leave
        self._may_leave = asyncio.Event()
        self._has_successor = True  # the supervisor keeps the sockets, unless it says otherwise
        self._prepared: TakeOver | None = None

    async def run(self) -> None:
        """Start, serve, drain and stop. Raises ``StartFailed``."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._asked.set)
        tasks = {asyncio.create_task(self._follow()), asyncio.create_task(self._tell_that_it_lives())}
        try:
            await self._start_and_serve()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _start_and_serve(self) -> None:
        starting = asyncio.create_task(self._gateway.start(self._wait_until_allowed))
        if not await first_of(starting, self._asked):
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)  # it may have failed meanwhile
            await self._gateway.stop()
        else:
            await starting
            try:
                await self._serve()
            finally:
                await self._gateway.stop()
                with suppress(KeyError):  # nobody can read metrics
                    self._channel.send(Kind.LAST, value=await self._gateway.snapshots.take(SNAPSHOTS))

    async def _wait_until_allowed(self) -> None:
        self._channel.send(Kind.STARTED)
        await self._may_serve.wait()

    async def _serve(self) -> None:
        self._channel.send(Kind.SERVING)
        # All objects of now live as long as the server, so the garbage collector need not visit them.
        gc.freeze()
        await self._asked.wait()
        self._channel.send(Kind.DRAINING)
        _log.info("stopping: %d connections", self._gateway.connections)
        self._inherited.close()
        draining = asyncio.create_task(self._gateway.drain(has_successor=self._has_successor))
        if await first_of(draining, self._at_once):
            await draining
        draining.cancel()
        if self._stays:
            await self._may_leave.wait()

    async def _tell_that_it_lives(self) -> None:
        while True:
            if self._channel.is_read:
                is_ready = False
                with suppress(Draining):
                    self._gateway.check_ready()
                    is_ready = True
                self._channel.send(Kind.ALIVE, connections=self._gateway.connections, is_ready=is_ready)
            await asyncio.sleep(ALIVE_SECONDS)

    async def _follow(self) -> None:
        """Do what the supervisor says. When it has ended, finish the requests in flight."""
        while (message := await self._channel.receive()) is not None:
            await self._handle(message)
        self._may_leave.set()
        if not self._asked.is_set():
            _log.error("the supervisor has ended")
            self._has_successor = False
            self._asked.set()

    async def _handle(self, message: Message) -> None:
        values = message.values
        match message.kind:
            case Kind.SERVE:
                self._may_serve.set()
            case Kind.BORROW if not self._asked.is_set():
                await self._borrow(values["owner"], values["sockets"])
            case Kind.GIVE_BACK:
                self._gateway.give_back(values["owner"])
            case Kind.PREPARE:
                self._prepare(values["question"], values["settings"])
            case Kind.TAKE_OVER:
                self._take_over(values["question"])
            case Kind.SNAPSHOT | Kind.COLLECTED:
                self._peers.handle(message, self._gateway.snapshots)
            case Kind.DRAIN:
                self._has_successor, self._stays = values["has_successor"], values["stays"]
                self._asked.set()
            case Kind.LEAVE:
                self._may_leave.set()
            case Kind.STOP:
                self._may_leave.set()
                self._at_once.set()
                self._asked.set()

    def _take_over(self, question: int) -> None:
        if self._prepared is not None:
            self._prepared()
        self._channel.send(Kind.TAKEN_OVER, question=question)

    async def _borrow(self, owner: int, sockets: Sequence[dict[str, Any]]) -> None:
        try:
            await self._gateway.borrow(owner, self._inherited.open(sockets))
        except StartFailed as error:
            _log.error("the clients of gateway %d have to wait: %s", owner + 1, error)

    def _prepare(self, question: int, values: dict[str, Any]) -> None:
        self._prepared = None
        faults: tuple[str, ...] = ()
        try:
            settings = self._inherited.fit(unpack_settings(values))
            self._prepared = prepare_all([self._log, self._gateway], settings)
        except SettingsError as error:
            faults = error.faults
        except StartFailed as error:
            faults = (str(error),)
        except Exception as error:  # noqa: BLE001 - a bug in a part must not end later reloads
            _log.exception("the settings could not be checked")
            faults = (f"internal error: {error!r}",)
        if faults:
            self._channel.send(Kind.FAILED, question=question, faults=faults)
        else:
            self._channel.send(Kind.PREPARED, question=question)


def _keep_to(cores: Sequence[int]) -> None:
    """Run on these cores only, and so will the workers. None means any."""
    if cores:
        try:
            confine(os.getpid(), cores)
        except OSError as error:
            _log.warning("a gateway cannot be kept to its cores: %s", error)


if __name__ == "__main__":
    sys.exit(main())
