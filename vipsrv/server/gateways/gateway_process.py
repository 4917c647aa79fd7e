"""One gateway process as the supervisor sees it.

::

    STARTING ── it has workers ──► STARTED ── it may accept clients ──► SERVING ── told to stop ──► DRAINING
       └───────────────────────────────┴────────────────────────────────────┴── it ends ──► ENDED ◄────┘
"""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self, TypeAlias

from vipsrv.errors import ProtocolError, SettingsError, StartFailed
from vipsrv.server.gateways.listening import GatewaySocket
from vipsrv.server.gateways.messages import PASSED_OVER, Channel, Kind, Message, pack_settings
from vipsrv.server.ops.snapshots import Answers
from vipsrv.server.settings import ServerSettings
from vipsrv.workers.launch import exit_reason

ANSWER_SECONDS = 20.0
"""How long a gateway that serves may take to answer, for example to load new certificates."""

SNAPSHOT_SECONDS = 0.5
"""How long a gateway may take to answer with its figures. One whose event loop is stuck is left out."""

EXIT_SECONDS = 5.0
"""How long a process may live on after it has closed its channel."""

_log = logging.getLogger(__name__)


class ProcessState(Enum):
    """The states of a gateway process; see the diagram above."""

    STARTING = "starting"
    STARTED = "started"
    SERVING = "serving"
    DRAINING = "draining"
    ENDED = "ended"


TRANSITIONS: dict[ProcessState, tuple[ProcessState, ...]] = {
    ProcessState.STARTING: (ProcessState.STARTED, ProcessState.ENDED),
    ProcessState.STARTED: (ProcessState.SERVING, ProcessState.ENDED),
    ProcessState.SERVING: (ProcessState.DRAINING, ProcessState.ENDED),
    ProcessState.DRAINING: (ProcessState.ENDED,),
    ProcessState.ENDED: (),
}
"""The states that may follow each state."""


class NoAnswer(Exception):
    """A gateway has not answered in time with its figures, or has ended. The message is its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOrder:
    """What a gateway is started with. ``number`` counts from 0; ``quotas`` is a descriptor, and so are
    ``inherited``, which are all listening sockets of the server; it uses ``sockets`` of them at first.
    """

    number: int
    gateways: int
    settings: ServerSettings
    cores: Sequence[int]
    sockets: Sequence[GatewaySocket]
    inherited: Sequence[int]
    quotas: int


OnCollect: TypeAlias = Callable[["GatewayProcess", int, str], None]
"""Is called with a gateway, the number of its question, and the name of the figures that it wants."""


class GatewayProcess:
    """A gateway process, from ``launch`` until it has ``ended``. ``on_change`` is called after each change of
    its state, and ``on_collect`` when it asks for the figures of the others, to be told by ``collected``;
    ``on_last`` with its last counters when it ends as planned.
    """

    def __init__(
        self,
        number: int,
        process: "subprocess.Popen[bytes]",
        channel: Channel,
        on_change: Callable[[], None],
        on_collect: OnCollect,
        on_last: Callable[[Any], object],
    ) -> None:
        self.number = number + 1
        """Counted from 1."""
        self.name = f"gateway {self.number}"
        self.ended = asyncio.Event()
        self.serving_since = 0.0
        """Seconds of ``time.monotonic``; 0 before."""
        self.silent_looks = 0
        """How often the supervisor has looked at it since it was heard of."""
        self.connections = 0
        self.is_ready = False
        """Whether it has workers."""
        self.was_told_to_end = False
        self._process = process
        self._channel = channel
        self._on_change = on_change
        self._on_collect = on_collect
        self._on_last = on_last
        self._values: dict[int, asyncio.Future[Any]] = {}  # of snapshots, by the number of the question
        self._state = ProcessState.STARTING
        self._failure: tuple[str, ...] = ()  # why it could not start, in its own words
        self._awaited: asyncio.Future[Message | None] | None = None
        self._snapshots = 0  # counts the questions for them
        self._questions = 0  # counts them, so that a late answer is not taken for another one
        self._reached = {state: asyncio.Event() for state in ProcessState}
        self._following = asyncio.create_task(self._follow())

    @classmethod
    def launch(
        cls,
        order: StartOrder,
        channel: Channel,
        theirs: socket.socket,
        *,
        on_change: Callable[[], None],
        on_collect: OnCollect,
        on_last: Callable[[Any], object],
    ) -> Self:
        """Start a process with the other end of the channel. Raises ``StartFailed`` if the system has no room
        for one.

        Nothing is awaited: whoever keeps what is returned at once knows each process from its first moment.
        """
        try:
            with theirs, _blocked(PASSED_OVER):
                process = subprocess.Popen(
                    # -P: a file in the current folder is not imported in place of a module.
                    [sys.executable, "-P", "-m", "vipsrv.server.gateways.child", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), order.quotas, *order.inherited],
                )
        except OSError as error:
            channel.close()
            raise StartFailed(f"no process can be started: {error.strerror}") from None
        channel.send(
            Kind.START,
            number=order.number,
            gateways=order.gateways,
            settings=pack_settings(order.settings),
            cores=list(order.cores),
            sockets=_packed(order.sockets),
            inherited=list(order.inherited),
            quotas=order.quotas,
        )
        return cls(order.number, process, channel, on_change, on_collect, on_last)

    @property
    def state(self) -> ProcessState:
        """The current state."""
        return self._state

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def has_failed(self) -> bool:
        """Whether it has ended in another way than one that is told to."""
        return bool(self._process.returncode)

    @property
    def reason(self) -> str:
        """Why it has ended."""
        if self._failure:
            return "; ".join(self._failure)
        if self.was_told_to_end and not self._process.returncode:
            return "it was told to stop"
        status = self._process.returncode
        return exit_reason(status) if status is not None else "it does not answer"

    async def started(self) -> None:
        """Wait until it has workers. Raises ``StartFailed``."""
        await self._reach(ProcessState.STARTED)

    async def serve(self) -> None:
        """Let it accept clients. Raises ``StartFailed``."""
        self._channel.send(Kind.SERVE)
        await self._reach(ProcessState.SERVING)

    def borrow(self, owner: int, sockets: Sequence[GatewaySocket]) -> None:
        """Let it accept clients from the sockets of another gateway as well."""
        self._channel.send(Kind.BORROW, owner=owner, sockets=_packed(sockets))

    def give_back(self, owner: int) -> None:
        """Let it accept no more clients from the sockets of another gateway."""
        self._channel.send(Kind.GIVE_BACK, owner=owner)

    async def prepare(self, settings: ServerSettings) -> bool:
        """Let it check new settings; return whether it still serves. Raises ``SettingsError``."""
        answer = await self._ask(Kind.PREPARE, settings=pack_settings(settings))
        if answer is not None and answer.kind is Kind.FAILED:
            raise SettingsError(*answer.values["faults"])
        return answer is not None

    async def take_over(self) -> None:
        """Let it take over the settings that it has checked. One that does not answer is killed."""
        try:
            await self._ask(Kind.TAKE_OVER)
        except SettingsError:
            self.kill()

    async def snapshot(self, name: str) -> Any:
        """Return its figures with this name. Raises ``NoAnswer`` if there are none in time."""
        if self._state not in (ProcessState.SERVING, ProcessState.DRAINING) or not self._channel.is_read:
            raise NoAnswer(self.name)
        self._snapshots += 1
        question = self._snapshots
        value = self._values[question] = asyncio.get_running_loop().create_future()
        self._channel.send(Kind.SNAPSHOT, question=question, name=name)
        try:
            async with asyncio.timeout(SNAPSHOT_SECONDS):
                return await value
        except TimeoutError:
            raise NoAnswer(self.name) from None
        finally:
            del self._values[question]

    def collected(self, question: int, answers: Answers) -> None:
        """Answer its question for the figures of the others."""
        self._channel.send(Kind.COLLECTED, question=question, values=answers.values, silent=answers.silent)

    def drain(self, *, has_successor: bool, stays: bool = False) -> None:
        """Make it finish the requests in flight and end; at once if it does not serve yet.

        One that ``stays`` ends after ``leave``, so that the operator can watch the others.
        """
        self.was_told_to_end = True
        if self._state is ProcessState.SERVING:
            self._channel.send(Kind.DRAIN, has_successor=has_successor, stays=stays)
            self._enter(ProcessState.DRAINING)
        elif self._state is not ProcessState.DRAINING:
            self.stop()

    def leave(self) -> None:
        """Make it end after the requests in flight, although it was told to stay."""
        self._channel.send(Kind.LEAVE)

    def stop(self) -> None:
        """Make it end at once; clients that still wait get ``Draining``."""
        self.was_told_to_end = True
        self._channel.send(Kind.STOP)

    def kill(self) -> None:
        """End it by force."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    async def _ask(self, kind: Kind, **values: object) -> Message | None:
        """Send a message and return the answer; ``None`` if it ends before. Raises ``SettingsError``."""
        if self._state is not ProcessState.SERVING:
            return None
        self._awaited = asyncio.get_running_loop().create_future()
        self._questions += 1
        self._channel.send(kind, question=self._questions, **values)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._awaited
        except TimeoutError:
            raise SettingsError(f"{self.name} did not answer within {ANSWER_SECONDS:g} s") from None
        finally:
            self._awaited = None

    async def _reach(self, state: ProcessState) -> None:
        await self._reached[state].wait()
        if self._state is ProcessState.ENDED:
            raise StartFailed(f"{self.name}: {self.reason}")

    async def _follow(self) -> None:
        """Handle its messages until it has ended."""
        try:
            while (message := await self._channel.receive()) is not None:
                self._handle(message)
        except (ProtocolError, ValueError, OSError) as error:
            _log.error("%s is killed: %s", self.name, error)
            self.kill()
        try:
            await asyncio.to_thread(self._process.wait, EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            await asyncio.to_thread(self._process.wait)
        self._channel.close()
        self._enter(ProcessState.ENDED)
        self.ended.set()

    def _handle(self, message: Message) -> None:
        self.silent_looks = 0
        match message.kind:
            case Kind.STARTED:
                self._enter(ProcessState.STARTED)
            case Kind.SERVING:
                self.serving_since = time.monotonic()
                self.is_ready = True
                self._enter(ProcessState.SERVING)
            case Kind.ALIVE:
                self.connections = message.values["connections"]
                self.is_ready = message.values["is_ready"]
            case Kind.DRAINING:
                if self._state is ProcessState.SERVING:  # somebody has sent it a signal
                    self.was_told_to_end = True
                    self._enter(ProcessState.DRAINING)
            case Kind.PREPARED | Kind.TAKEN_OVER | Kind.FAILED if "question" in message.values:
                if message.values["question"] == self._questions:
                    self._answered(message)
            case Kind.COLLECT | Kind.VALUE | Kind.LAST:
                self._handle_figures(message)
            case Kind.FAILED:
                self._failure = tuple(message.values["faults"])
            case _:
                raise ProtocolError(f"it sent {message.kind.value!r}")

    def _handle_figures(self, message: Message) -> None:
        values = message.values
        if message.kind is Kind.COLLECT:
            self._on_collect(self, values["question"], values["name"])
            return
        if message.kind is Kind.LAST:
            self._on_last(values["value"])
            return
        value = self._values.get(values["question"])
        if value is None or value.done():
            return  # it came too late
        if "value" in values:
            value.set_result(values["value"])
        else:
            value.set_exception(NoAnswer(self.name))

    def _answered(self, message: Message | None) -> None:
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(message)

    def _enter(self, state: ProcessState) -> None:
        if state not in TRANSITIONS[self._state]:
            raise ValueError(f"a gateway that is {self._state.value} cannot become {state.value}")
        self._state = state
        self._reached[state].set()
        if state is ProcessState.ENDED:
            self._answered(None)
            for value in self._values.values():
                if not value.done():
                    value.set_exception(NoAnswer(self.name))
            for event in self._reached.values():  # nobody need wait for another state
                event.set()
        self._on_change()


@contextmanager
def _blocked(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """Block signals, so that a process which is started meanwhile gets none before it has chosen to."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _packed(sockets: Sequence[GatewaySocket]) -> list[dict[str, object]]:
    return [{"descriptor": one.descriptor, "address": str(one.address)} for one in sockets]
