"""The work for one image: read it, have it resized, store its results, and say what became of it.

::

    open ─► read ─► place in the window ─► resize_all ─► names ─► digests ─► write ─► row
      ▲                                        │                       ▲        │
      └── attempts, unless the image is at fault ┘                     └────────┘
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial

from vipsrv.batch.engines.interface import Work
from vipsrv.batch.images import ListedImage
from vipsrv.batch.problems import (
    LOSSES,
    ImageFailed,
    Problem,
    reading_failed,
    request_failed,
    storing_failed,
)
from vipsrv.batch.room import Seat
from vipsrv.batch.rows import OK, OutputRow, Row
from vipsrv.batch.server_link import ServerLink
from vipsrv.batch.stores.open_store import images_in_destination
from vipsrv.batch.turns import Turns
from vipsrv.client import AsyncClient, ImageSource, ResizedImage, ResizeResults
from vipsrv.client.window import Window
from vipsrv.errors import (
    Busy,
    ClientTimeout,
    ConnectFailed,
    Draining,
    RequestError,
    ServerLost,
    TlsFailed,
    Unauthorized,
    VipsrvError,
    WorkerDied,
)

ATTEMPTS_OF_WORKER_DIED = 2
"""The protocol's advice: an image that has ended a worker is sent once more at most."""

DIGEST_IN_LOOP = 2**20
"""Bytes: the digest of a result up to this takes the event loop less time than a switch to a thread."""

BUSY_PATIENCE = 600.0
"""Seconds for which a server may refuse each image as busy, and answer none, before the batch stops."""

_FIRST_PAUSE = 0.2
"""Seconds before the second attempt; they double with each further one."""

_WHOLE = (bytes, bytearray, memoryview, str, os.PathLike)
"""Images that can be sent again as they are, unlike files that are read on."""


class Stopped(Exception):
    """The batch was stopped before this image was sent: it gets no row, and a later run does it."""


@dataclass(slots=True)
class _Tally:
    """What has been done for an image so far. ``losses`` are the failures by a broken connection."""

    size: int
    requests: int = 0
    failures: int = 0
    losses: int = 0


class ImageWork:
    """Does images, several at a time, over one client.

    A request that the server refused as ``Busy`` is no attempt: the window gets smaller. Once ``stopped`` is
    true, no image is sent any more.

    A connection that breaks fails all images in flight, though one of them may be the cause each time. So the
    last attempt for an image that was among them is made alone: only the cause gets a row that says so.
    """

    def __init__(
        self,
        work: Work,
        client: AsyncClient,
        window: Window,
        *,
        stopped: Callable[[], bool],
    ) -> None:
        self._source = work.source
        self._destination = work.destination
        self._outputs = work.outputs
        self._run = work.run
        self._attempts = work.attempts
        self._deadline_ms = work.deadline_ms
        self._client = client
        self._window = window
        self._stopped = stopped
        self._link = ServerLink(client)
        self._turns = Turns()
        self._images_in_destination = images_in_destination(work.source.url, work.destination.url)

    async def row(self, image: ListedImage, seat: Seat) -> Row:
        """Do an image and return its row; the row is not written anywhere yet.

        Raises ``Stopped``, and the errors in ``problems.STOPS`` that end the whole batch.
        """
        started = time.perf_counter()
        tally = _Tally(image.size or 0)
        outputs: tuple[OutputRow, ...] = ()
        status, code, message = 200, OK, ""
        try:
            outputs = await self._results(image, tally, seat)
        except ImageFailed as failure:
            status, code, message = failure.status, failure.code, failure.message
        return Row(
            key=image.key,
            version=image.version,
            options=self._outputs.digest,
            bytes=tally.size,
            outputs=outputs,
            status=status,
            code=code,
            message=message,
            attempts=tally.requests,
            ms=round((time.perf_counter() - started) * 1000, 2),
            ended=time.time_ns() // 1_000_000,
            run=self._run,
        )

    async def _results(self, image: ListedImage, tally: _Tally, seat: Seat) -> tuple[OutputRow, ...]:
        results = await self._made(image, tally, seat)
        seat.holds(sum(len(one.data) for one in results))
        keys = self._outputs.keys(image.key, results)
        self._spare_images(image, keys)
        rows = tuple([await _output_row(key, result) for key, result in zip(keys, results, strict=True)])
        if len(results) == 1:
            await self._store(keys[0], results[0].data)
        else:
            await _all(*(self._store(key, one.data) for key, one in zip(keys, results, strict=True)))
        return rows

    def _spare_images(self, image: ListedImage, keys: Sequence[str]) -> None:
        """Raise ``ImageFailed`` if a result would be stored where the source has images."""
        prefix = self._images_in_destination
        if prefix is None:
            return
        own = prefix + image.key if image.location is None else None
        for key in keys:
            if key == own or (prefix and key.startswith(prefix)):
                raise ImageFailed.by(
                    Problem.NAME_CONFLICT,
                    f"its result {key} would replace an image of the source, or be one: name another "
                    "destination, or put a folder into the template of the names",
                )

    async def _made(self, image: ListedImage, tally: _Tally, seat: Seat) -> tuple[ResizedImage, ...]:
        """Have an image resized, in several attempts if it must be."""
        while True:
            try:
                return await self._attempt(image, tally, seat)
            except ImageFailed as failure:
                await self._pause_after(failure, tally)

    async def _pause_after(self, failure: ImageFailed, tally: _Tally) -> None:
        """Wait before the next attempt, or raise the failure again if there is to be none."""
        tally.failures += 1
        most = self._attempts
        if failure.code == WorkerDied.code:
            most = min(most, ATTEMPTS_OF_WORKER_DIED)
        if not failure.retryable or tally.failures >= most:
            raise failure
        if self._stopped():
            raise Stopped
        await asyncio.sleep(_FIRST_PAUSE * 2 ** (tally.failures - 1))

    async def _attempt(self, image: ListedImage, tally: _Tally, seat: Seat) -> tuple[ResizedImage, ...]:
        """Open an image and have it resized; a source reads a small one before its turn comes."""
        if self._stopped():
            raise Stopped
        try:
            async with self._source.open(image) as body:
                if isinstance(body, (bytes, bytearray, memoryview)):
                    tally.size = len(body)
                    seat.holds(tally.size)
                return await self._resized(body, tally)
        except (OSError, ValueError) as error:
            raise reading_failed(error) from error

    async def _resized(self, body: ImageSource, tally: _Tally) -> tuple[ResizedImage, ...]:
        """Send an image until the server has answered it. Raises ``ImageFailed``, or what ends the batch."""
        start = None if isinstance(body, _WHOLE) else body.tell()
        alone = tally.losses > 0 and tally.failures >= self._attempts - 1

        async def request() -> ResizeResults:
            if self._stopped():
                raise Stopped
            if not isinstance(body, _WHOLE):
                body.seek(start or 0, os.SEEK_SET)  # an earlier request has read it
            return await self._client.resize_all(body, self._outputs.options, deadline_ms=self._deadline_ms)

        send = partial(self._turns.take, request, alone=alone)
        while True:
            try:
                results = await self._window.ask(tally.size, send, patience=BUSY_PATIENCE)
            except (TlsFailed, Unauthorized):
                raise
            except Busy as error:
                raise ServerLost(
                    f"the server refuses every image, since {BUSY_PATIENCE:g} s: {error}"
                ) from error
            except (Draining, ConnectFailed) as error:
                await self._link.restored(error, stopped=self._stopped)
            except (RequestError, ClientTimeout, *LOSSES) as error:
                tally.requests += 1
                tally.losses += isinstance(error, LOSSES)
                await self._note(error)
                raise request_failed(error, alone=alone) from error
            else:
                tally.requests += 1
                self._link.succeeded()
                tally.size = results.source.size
                return results.outputs

    async def _note(self, error: VipsrvError) -> None:
        """Wait for the server if an error says that the connection to it was lost."""
        if isinstance(error, LOSSES):
            await self._link.restored(error, stopped=self._stopped)
        else:
            self._link.succeeded()

    async def _store(self, key: str, data: bytes) -> None:
        failures = 0
        while True:
            try:
                await self._destination.write(key, data)
            except (OSError, ValueError) as error:
                failure = storing_failed(error, key)
                failures += 1
                if not failure.retryable or failures >= self._attempts:
                    raise failure from error
                await asyncio.sleep(_FIRST_PAUSE * 2 ** (failures - 1))
            else:
                return


async def _all(*steps: Coroutine[None, None, None]) -> None:
    """Run all steps to their ends; then raise an error that ends the batch, or else that of the first."""
    errors = [one for one in await asyncio.gather(*steps, return_exceptions=True) if one is not None]
    if errors:
        raise next((one for one in errors if not isinstance(one, ImageFailed)), errors[0])


async def _output_row(key: str, result: ResizedImage) -> OutputRow:
    data = result.data
    if len(data) <= DIGEST_IN_LOOP:
        digest = hashlib.sha256(data).hexdigest()
    else:
        digest = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
    return OutputRow(
        key=key,
        width=result.width,
        height=result.height,
        format=result.format,
        bytes=len(data),
        sha256=digest,
    )
