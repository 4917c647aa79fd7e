"""Waits for a server whose connection was lost, once for all the images that were in flight."""

import asyncio
import time
from collections.abc import Callable

from vipsrv.client import AsyncClient
from vipsrv.errors import (
    Busy,
    ClientTimeout,
    ConnectFailed,
    ConnectionLost,
    Draining,
    ProtocolError,
    ServerLost,
    TlsFailed,
    VipsrvError,
)

PATIENCE = 30.0
"""Seconds for which a server may be away: longer than the restart of one takes."""

MOST_LOSSES = 10
"""Connections lost one after another without a single image done: then it is no accident."""

_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)

AWAY = (ConnectFailed, ConnectionLost, ClientTimeout, ProtocolError, Draining, Busy)
"""What a PING raises while a server restarts."""


class ServerLink:
    """The state of the connection to the server of a batch.

    An embedded server that has ended is started again by the client's next request, which is the PING that is
    sent here.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._attempt: asyncio.Task[None] | None = None
        self._losses = 0  # since the last success

    def succeeded(self) -> None:
        """Note that the server has answered a request."""
        self._losses = 0

    async def restored(self, loss: VipsrvError, *, stopped: Callable[[], bool]) -> None:
        """Return when the server answers again.

        Raises ``ServerLost`` if it does not in time or if connections are lost again and again, and the
        errors that no waiting helps against, ``Unauthorized`` and ``TlsFailed``. ``stopped`` ends the wait.
        """
        if self._attempt is None:
            self._losses += 1
            if self._losses > MOST_LOSSES:
                raise ServerLost(
                    f"{MOST_LOSSES} connections to the server were lost one after another: {loss}"
                )
            self._attempt = asyncio.create_task(self._wait(loss, stopped))
            self._attempt.add_done_callback(self._end_attempt)
        await asyncio.shield(self._attempt)

    async def _wait(self, loss: VipsrvError, stopped: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        tries = 0
        while not stopped():
            pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
            tries += 1
            if time.monotonic() + pause > deadline:
                raise ServerLost(f"the server has not been reached for {PATIENCE:g} s: {loss}")
            await asyncio.sleep(pause)
            try:
                await self._client.ping()
            except TlsFailed:
                raise
            except AWAY as error:
                loss = error
            else:
                return

    def _end_attempt(self, attempt: "asyncio.Task[None]") -> None:
        self._attempt = None
        if not attempt.cancelled():
            attempt.exception()  # marks it as retrieved: perhaps nobody waits any more
