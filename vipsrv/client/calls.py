"""One call of a client as a sequence of steps, without I/O: which request goes where, and when again.

::

    Client, AsyncClient ──► BlockingCaller, AsyncCaller    do the I/O of each step and send back its outcome
                                  │ drive
                                  ▼
                            call_steps                     yields SendRequest, Pause …; returns an Answer
                              ├─ Servers                   which server the next attempt goes to
                              ├─ Attempts (attempts.py)    whether there is a next attempt, and when
                              └─ Upload                    what the attempt sends, if the image is resumable

A caller closes the generator if an exception, such as a ctrl-C or the cancellation of a task, ends a step.
It may make the first attempt of a plain call before it starts the steps, see ``answer_at_once``.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from vipsrv.address import Address
from vipsrv.client.attempts import Attempts, Retries, with_attempts
from vipsrv.client.core import PendingRequest
from vipsrv.client.embedded import EmbeddedServer
from vipsrv.client.requests import PING, ClientRequest
from vipsrv.client.server_names import Answers
from vipsrv.client.sources import CannotRewind
from vipsrv.errors import ClientTimeout, ConnectionLost, Draining, VipsrvError

Server = Address | EmbeddedServer
"""One server, and the key of its pool of connections."""


class SendRequest(NamedTuple):
    """Send a request to a server and wait until it ends.

    The image of the call follows it from ``offset`` on; ``None`` stands for a request without an image. The
    outcome is the ``PendingRequest`` that has ended, or the ``VipsrvError`` because of which there is none.
    ``until`` is the deadline of the call by ``time.monotonic``.

    A tuple, like ``Answer``, since most attempts make one: a frozen dataclass takes 0.5 µs longer.
    """

    server: Server
    request: ClientRequest
    offset: int | None = 0
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Connect:
    """Have a connection to a server. The outcome is ``None`` or the error."""

    server: Server
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for a time, or until the client is closed. The outcome is ``None``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Resolve:
    """Resolve the host names of these servers and give ``done`` the answers, now or in the background.

    The outcome is ``None``, also where ``wait`` ended at the deadline ``until``.
    """

    names: tuple[Address, ...]
    done: Callable[[Answers], None]
    wait: bool
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask a server in the background whether it takes requests, and tell ``done``.

    The outcome is ``None``.
    """

    server: Address
    done: Callable[[VipsrvError | None], None]


Step = SendRequest | Connect | Pause | Resolve | Probe
Outcome = PendingRequest | VipsrvError | None


class Servers(Protocol):
    """The servers of a call. ``choose`` is followed by one of the other methods, for each attempt."""

    def choose(
        self, until: float | None, preferred: Server | None = None
    ) -> Generator[Step, Outcome, Server]:
        """Return the server for the next attempt, which is in flight there from now on. May yield steps.

        It is the ``preferred`` one, if that seems well.
        """
        ...

    def succeeded(self, server: Server) -> None:
        """Note that an attempt succeeded."""
        ...

    def failed(self, server: Server, error: VipsrvError) -> bool:
        """Note that an attempt failed; return whether another server can take the next one at once."""
        ...

    def abandoned(self, server: Server) -> None:
        """Note that an attempt has ended with the call, which was cancelled for example."""
        ...

    def explain(self, error: VipsrvError) -> VipsrvError:
        """Return the error to raise for a call that has failed."""
        ...


class ClientServers(Protocol):
    """The servers of a client, for all its calls."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those that are known now."""
        ...

    @property
    def only(self) -> Server | None:
        """The server, if there is just one, of which nothing is noted."""
        ...

    def for_call(self) -> Servers:
        """Return what one call sees of them."""
        ...

    def forget(self) -> None:
        """In a forked child: take new locks."""
        ...


class Upload(Protocol):
    """The image of one call, kept by the server while it arrives, so that an attempt goes on with it."""

    @property
    def resumed(self) -> int:
        """Bytes that did not have to be sent again."""
        ...

    @property
    def brought_forward(self) -> bool:
        """Whether the question before the last attempt showed that the server holds more than ever."""
        ...

    @property
    def holder(self) -> Server | None:
        """The server that holds most of the image, where the next attempt had better go."""
        ...

    def begins_plainly(self, server: Server) -> bool:
        """Whether the first attempt asks this server nothing before and sends it all, without an id."""
        ...

    def next_attempt(
        self, server: Server, until: float | None
    ) -> Generator[Step, Outcome, SendRequest | VipsrvError]:
        """Return the request of the next attempt at a server, or the error of a question before it.

        Yields the questions to the server that it needs before, as ``SendRequest``s without an image.
        """
        ...

    def failed(self, server: Server, outcome: PendingRequest | VipsrvError) -> bool:
        """Note that the attempt failed; return whether it may have brought a part of the image to the server.

        Then the next attempt asks first, and fails with this error if nothing has arrived.
        """
        ...


class Answer(NamedTuple):
    """The end of a call that succeeded. ``offset`` is where the last attempt began with the image."""

    pending: PendingRequest
    attempts: int
    offset: int = 0
    resumed: int = 0


class OneServer:
    """The servers of a client that has one: as ``ClientServers`` and as the ``Servers`` of each call."""

    def __init__(self, server: Server) -> None:
        self.only = server

    @property
    def addresses(self) -> tuple[str, ...]:
        """The address of the server."""
        return (str(self.only),)

    def for_call(self) -> "OneServer":
        """Return this, as nothing is noted."""
        return self

    def forget(self) -> None:
        """Nothing is held."""

    def choose(
        self,
        until: float | None,  # noqa: ARG002 - of the protocol
        preferred: Server | None = None,  # noqa: ARG002 - of the protocol
    ) -> Generator[Step, Outcome, Server]:
        """Return the server."""
        yield from ()
        return self.only

    def succeeded(self, server: Server) -> None:
        """Nothing is noted."""

    def failed(self, server: Server, error: VipsrvError) -> bool:  # noqa: ARG002 - of the protocol
        """Return that there is no other server."""
        return False

    def abandoned(self, server: Server) -> None:
        """Nothing is noted."""

    def explain(self, error: VipsrvError) -> VipsrvError:
        """Return the error as it is."""
        return error


def call_steps(
    request: ClientRequest,
    servers: Servers,
    retries: Retries,
    *,
    until: float | None = None,
    upload: Upload | None = None,
    first: PendingRequest | VipsrvError | None = None,
) -> Generator[Step, Outcome, Answer]:
    """The steps of a call with this request. Raises the error of its last attempt.

    ``first`` is the outcome of the first attempt if that has been made already, see ``answer_at_once``.
    """
    attempts = Attempts(retries, until)
    before: VipsrvError | None = None
    while True:
        server = yield from servers.choose(until, None if upload is None else upload.holder)
        attempts.made += 1
        sent: SendRequest | VipsrvError = SendRequest(server, request, 0, until)
        outcome: Outcome = first
        try:
            if upload is not None and first is None:
                sent = yield from upload.next_attempt(server, until)
                if upload.brought_forward:
                    attempts.begin_anew()
            if first is None:
                outcome = (yield sent) if isinstance(sent, SendRequest) else sent
            first = None
        except BaseException:
            servers.abandoned(server)
            raise
        error = _error_of(outcome)
        if error is None and isinstance(outcome, PendingRequest):
            if outcome.hedged:
                servers.abandoned(server)  # another one was faster
                attempts.made += 1
            elif outcome.says_closing:
                servers.failed(server, Draining("the server is about to stop"))  # other calls go elsewhere
            else:
                servers.succeeded(server)
            retries.succeeded()
            offset = sent.offset if isinstance(sent, SendRequest) else 0
            resumed = 0 if upload is None else upload.resumed
            return Answer(outcome, attempts.made, offset or 0, resumed)
        yield from _failed(servers, server, retries, attempts, outcome, before, upload)
        before = error


def answer_at_once(first: PendingRequest | VipsrvError, retries: Retries) -> Answer | None:
    """Return the end of a call whose first attempt has succeeded; ``None`` if it goes on with ``call_steps``.

    Only for a call of a client with one server (``ClientServers.only``) whose upload, if it has one,
    ``begins_plainly``. Its first step is known, so it can be done without ``call_steps``, which would return
    this answer then. Nearly all calls are like that, and this saves a tenth of what they cost the client.
    """
    if isinstance(first, PendingRequest) and first.error is None:
        retries.succeeded()
        return Answer(first, 1)
    return None


def _failed(
    servers: Servers,
    server: Server,
    retries: Retries,
    attempts: Attempts,
    outcome: Outcome,
    before: VipsrvError | None,
    upload: Upload | None,
) -> Generator[Step, Outcome, None]:
    """Pause until the next attempt, or raise the error if there is to be none."""
    error = _error_of(outcome)
    if error is None or outcome is None:
        raise RuntimeError("a step ended without an outcome")
    if isinstance(error, CannotRewind):
        servers.abandoned(server)
        raise with_attempts(before or error, attempts.made - 1) from error
    forward = upload is not None and upload.failed(server, outcome)
    elsewhere = False
    if forward and not isinstance(error, ClientTimeout):
        servers.abandoned(server)  # a cut says nothing about it: it is asked at once
    else:
        elsewhere = servers.failed(server, error)
    lost = outcome if isinstance(outcome, PendingRequest) else None
    pause = attempts.pause_after(
        error,
        loss=lost and lost.loss,
        unseen=lost is not None and lost.may_resend,
        elsewhere=elsewhere,
        forward=forward,
    )
    if pause is None:
        says_more = isinstance(error, ClientTimeout) and attempts.past_deadline()
        raise servers.explain(with_attempts(error, attempts.made, before if says_more else None))
    if pause and not retries.closed:
        yield Pause(pause)
    if retries.closed:
        if not isinstance(error, ConnectionLost):
            error = ConnectionLost(f"the client was closed before a request was sent again: {error}")
        raise with_attempts(error, attempts.made)


def ping_steps(
    servers: Servers, retries: Retries, *, until: float | None = None
) -> Generator[Step, Outcome, float]:
    """The steps of a ping: return the seconds of a round trip, without the time to connect.

    It measures one attempt, so it is not made again, except over a new connection if the server had closed
    the idle one.
    """
    for last in (False, True):
        server = yield from servers.choose(until)
        try:
            error = yield Connect(server, until)
            started = retries.clock()
            outcome = error if error is not None else (yield SendRequest(server, PING, None, until))
            seconds = retries.clock() - started
        except BaseException:
            servers.abandoned(server)
            raise
        error = _error_of(outcome)
        if error is None:
            servers.succeeded(server)
            retries.succeeded()
            return seconds
        servers.failed(server, error)
        if last or not (isinstance(outcome, PendingRequest) and outcome.may_resend):
            raise error
    raise RuntimeError("a ping has at most two attempts")


def _error_of(outcome: Outcome) -> VipsrvError | None:
    return outcome.error if isinstance(outcome, PendingRequest) else outcome
