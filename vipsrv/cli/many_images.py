"""Resizes many images over one connection, and saves their results.

::

    paths ──► feed ──► tasks ──► window ──► AsyncClient ──► files
                        each: read ─► wait for a place ─► request ─► save ─► outcome

More tasks run than requests are in flight, so that images are read and results are saved while the server
works. Memory is bounded: each task has at most one image that is small, and only a few save results at a
time. A request keeps its place in the window until its results may be saved.
"""

import asyncio
import errno
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path

from vipsrv.cli.image_paths import FoundImage, PathProblem
from vipsrv.cli.many_report import Ending, ImageOutcome, SavedResult
from vipsrv.cli.output_files import OutputFile
from vipsrv.cli.result_index import ExistingResults, ResultIndex
from vipsrv.cli.result_names import NameTemplate
from vipsrv.cli.upload import UploadImage, open_upload
from vipsrv.client import AsyncClient, ResizeResults, SeekableReader
from vipsrv.client.resume import RESUMABLE_FROM, new_upload_id
from vipsrv.client.timeouts import MAX_SECONDS, has_passed
from vipsrv.client.window import Window
from vipsrv.errors import (
    Busy,
    ClientTimeout,
    ConnectFailed,
    ConnectionLost,
    Draining,
    Unauthorized,
    VipsrvError,
    WorkerDied,
)

MOST_BYTES = 2**30
"""Bytes of the images in flight. They are not held here: larger files are read while they are sent."""

READ_AT_ONCE = 2**20
"""Bytes: a file of at most this size is read as a whole before its turn to be sent."""

TASKS_BESIDE = 4
"""Images that are read while as many as possible are in flight, and as many whose results are saved."""

LISTED_AT_ONCE = 64
"""Paths that are listed together, in a thread."""

RECONNECT_SECONDS = 10.0
"""How long a server that was there may be away, while it is restarted for example."""

RECONNECT_PAUSE = 0.25
"""Seconds between two attempts to connect."""

MOST_TIMEOUTS = 10
"""Requests in a row without an answer in time; after them the server counts as gone."""

Found = FoundImage | PathProblem


class RunState(Enum):
    """Whether further images are taken."""

    RUNNING = auto()
    STOPPING = auto()
    """Those in flight are finished."""


class _NotStarted(Exception):
    """The run ends, and this image has not been sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyOptions:
    """What is done with each image. ``names`` has the options of its results.

    ``retries`` is how often it is sent again because its connection was lost or its server hangs. ``seconds``
    is the time for all attempts, from the first one on.
    """

    names: NameTemplate
    deadline_ms: int | None = None
    skip_existing: bool = False
    retries: int = 0
    seconds: float = MAX_SECONDS


@dataclass(frozen=True, slots=True)
class _Opened:
    """An image that is ready to be sent. ``paths`` are those of its results, if they are known already."""

    upload: UploadImage
    content: bytes | Path | SeekableReader
    paths: list[Path] | None
    results_exist: bool = False


class ManyImages:
    """One run over many images with a client whose server is there.

    ``on_outcome`` is called for each image that has ended. ``run`` raises what makes it useless to go on;
    what was in flight has ended then.
    """

    def __init__(
        self,
        client: AsyncClient,
        window: Window,
        options: ManyOptions,
        on_outcome: Callable[[ImageOutcome], None],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._window = window
        self._options = options
        self._on_outcome = on_outcome
        self._sleep = sleep
        self._index = ResultIndex()
        self._existing = ExistingResults()
        self._savers = asyncio.Semaphore(TASKS_BESIDE)
        self._timeouts = 0  # in a row
        self._state = RunState.RUNNING
        self._fatal: Exception | None = None

    def stop(self) -> None:
        """Take no further image; ``run`` ends after those in flight."""
        self._state = RunState.STOPPING

    async def run(self, images: Iterator[Found]) -> None:
        """Do all images. Raises the error after which it is useless to go on."""
        feed = _Feed(images)
        count = self._window.most + TASKS_BESIDE
        tasks = [asyncio.create_task(self._work(feed)) for _ in range(count)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._index.close()
        if self._fatal is not None:
            raise self._fatal

    async def _work(self, feed: "_Feed") -> None:
        while self._state is RunState.RUNNING:
            found = await feed.next()
            if found is None:
                return
            try:
                outcome = await self._do(found)
                if outcome is not None:
                    self._on_outcome(outcome)
            except _NotStarted:
                return
            except OSError as error:  # of the report: those of the image are outcomes
                self._end(error)

    def _end(self, error: Exception) -> None:
        self._fatal = self._fatal or error
        self.stop()

    async def _do(self, found: Found) -> ImageOutcome | None:
        """Return what became of an image, or ``None`` for one that this run has met before."""
        if isinstance(found, PathProblem):
            return ImageOutcome(image=found.path, ending=Ending.FAILED, error=found.error)
        if not self._index.take_image(found.path):
            return None
        one = _OneImage(found, ImageOutcome(image=found.path, ending=Ending.DONE))
        started = time.monotonic()
        with ExitStack() as stack:
            try:
                outcome = await self._resize(one, stack)
            except (VipsrvError, OSError, ValueError) as error:
                if self._is_fatal(error):
                    self._end(error)
                outcome = replace(one.outcome, ending=Ending.FAILED, error=error)
        return replace(outcome, attempts=one.attempts, seconds=time.monotonic() - started)

    async def _resize(self, one: "_OneImage", stack: ExitStack) -> ImageOutcome:
        opened = await asyncio.to_thread(self._open, one.found, stack)
        one.outcome = replace(one.outcome, size=opened.upload.size)
        if opened.results_exist:
            return replace(one.outcome, ending=Ending.SKIPPED)
        if opened.paths is not None:
            self._index.take_results(opened.paths, one.found.path)
        answer = await self._request(one, opened)
        try:
            paths = opened.paths
            if paths is None:
                names = self._options.names
                paths = names.paths(opened.upload.named, one.found.folder, answer.outputs)
                self._index.take_results(paths, one.found.path)
            saved = await asyncio.to_thread(_save, opened.upload, paths, answer)
        finally:
            self._savers.release()
        return replace(one.outcome, results=saved, source=answer.source, timings=answer.timings)

    def _open(self, found: FoundImage, stack: ExitStack) -> _Opened:
        """Open an image and find out about its results; runs in a thread. Raises ``OSError``."""
        upload = stack.enter_context(open_upload(found.path))
        names = self._options.names
        paths = names.known(upload.named, found.folder)
        if self._options.skip_existing and self._existing.exist(names.patterns(upload.named, found.folder)):
            return _Opened(upload, b"", paths, results_exist=True)
        content: bytes | Path | SeekableReader = upload.content
        if isinstance(content, Path) and upload.size <= READ_AT_ONCE:
            content = content.read_bytes()
        return _Opened(upload, content, paths)

    async def _request(self, one: "_OneImage", opened: _Opened) -> ResizeResults:
        """Send an image, again where that may help and there is time: after lost connections and servers that
        hang, and once after a dead worker.

        Whoever gets the answer is one of those who may save, until it releases ``_savers``.
        """
        retries = self._options.retries
        lost = 0
        died = retries == 0
        away_since: float | None = None
        while True:
            try:
                return await self._window.ask(opened.upload.size, lambda: self._send(one, opened))
            except WorkerDied:
                if died:
                    raise
                died = True
            except (ConnectionLost, ClientTimeout):
                if lost == retries or one.is_late:
                    raise
                lost += 1
            except (ConnectFailed, Draining):
                now = time.monotonic()
                away_since = now if away_since is None else away_since
                patient = retries > 0 and not one.is_late and now - away_since < RECONNECT_SECONDS
                if not patient or self._state is RunState.STOPPING:
                    raise
                await self._sleep(RECONNECT_PAUSE)

    async def _send(self, one: "_OneImage", opened: _Opened) -> ResizeResults:
        if self._state is RunState.STOPPING:
            raise _NotStarted
        one.attempts += 1
        content = opened.content
        if not isinstance(content, bytes | Path):
            content.seek(0, 0)
        if one.upload_id is None and opened.upload.size >= RESUMABLE_FROM:
            one.upload_id = new_upload_id()  # the next attempt goes on with what has arrived by this one
        if one.until is None:
            one.until = time.monotonic() + self._options.seconds
        # The client ends the first attempt itself, and says better what it was waiting for.
        limit = asyncio.timeout_at(one.until if one.attempts > 1 else None)
        try:
            async with limit:
                answer = await self._client.resize_all(
                    content,
                    self._options.names.options,
                    deadline_ms=self._options.deadline_ms,
                    upload_id=one.upload_id,
                )
        except Busy:
            one.until = None  # the server has not begun with it
            raise
        except TimeoutError:
            if not limit.expired():
                raise  # of the image's file
            text = f"the image took longer than its {self._options.seconds:g} s, in {one.attempts} attempts"
            raise ClientTimeout(text) from None
        self._timeouts = 0
        await self._savers.acquire()
        return answer

    def _is_fatal(self, error: Exception) -> bool:
        """Whether all further images would fail in the same way."""
        match error:
            case OSError():
                return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
            case ClientTimeout():
                self._timeouts += 1
                return self._timeouts >= MOST_TIMEOUTS
            case _:
                return isinstance(error, Unauthorized | ConnectFailed | Draining | Busy)


@dataclass(slots=True)
class _OneImage:
    """An image that is being done, and what is known of its outcome. ``until`` is when it has to be done."""

    found: FoundImage
    outcome: ImageOutcome
    attempts: int = 0
    upload_id: str | None = None
    until: float | None = None

    @property
    def is_late(self) -> bool:
        """Whether it has no time for another attempt."""
        return has_passed(self.until)


class _Feed:
    """Gives the images to the tasks. They are listed in a thread, some at a time."""

    def __init__(self, images: Iterator[Found]) -> None:
        self._images = images
        self._listed: deque[Found] = deque()
        self._turn = asyncio.Lock()

    async def next(self) -> Found | None:
        """Return the next image; ``None`` after the last one."""
        async with self._turn:
            if not self._listed:
                self._listed.extend(await asyncio.to_thread(self._list))
            return self._listed.popleft() if self._listed else None

    def _list(self) -> list[Found]:
        return list(itertools.islice(self._images, LISTED_AT_ONCE))


def _save(upload: UploadImage, paths: list[Path], answer: ResizeResults) -> tuple[SavedResult, ...]:
    """Save the results of an image; runs in a thread. Raises ``OSError``, or ``ValueError`` for the image."""
    saved = []
    for path, result in zip(paths, answer.outputs, strict=True):
        file = OutputFile(path, given=False)
        file.check(upload.origin)
        try:
            file.save(result)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            file.save(result)
        saved.append(SavedResult.of(result, path))
    return tuple(saved)
