"""Runs a batch, and gives its rows to a plain ``for`` loop.

::

    caller's thread                     the thread of the run, an event loop
    for row in run(…) ◄── RowQueue ◄── RunLoop
"""

import asyncio
import os
import threading
import weakref
from collections.abc import Coroutine, Iterator, Sequence
from enum import Enum, auto
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from vipsrv.batch.dry_run import DEFAULT_SAMPLE, Estimate, dry_run
from vipsrv.batch.engines.interface import DEFAULT_ATTEMPTS, SHARD_SIZE, Engine, Work
from vipsrv.batch.engines.local import LocalEngine, RunningServer
from vipsrv.batch.engines.ray_engine import RayEngine
from vipsrv.batch.filters import FilteredSource, Filters
from vipsrv.batch.manifest.layout import new_run_id
from vipsrv.batch.manifest.selection import Retry, RetryFailed
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.progress import Progress
from vipsrv.batch.rows import Row
from vipsrv.batch.run_loop import Choices, MakeEngine, RunLoop
from vipsrv.batch.stores.interface import Destination, Source
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.batch.stores.open_store import is_key_list, open_destination, open_source
from vipsrv.client import AsyncClient
from vipsrv.client.tls import FilePath, TlsChoice
from vipsrv.options import ResizeOptions

Place = str | os.PathLike[str]
"""A path or a URL."""


class DryRun(Protocol):
    """Estimates instead of running; ``sample`` is how many images are resized for it."""

    def __call__(self, *, sample: int) -> Coroutine[Any, Any, Estimate]:
        """Return the coroutine that estimates."""
        ...


def run(
    source: Source | Place,
    destination: Destination | Place,
    outputs: Outputs | ResizeOptions | Sequence[ResizeOptions],
    *,
    engine: str | MakeEngine = "local",
    server: str | None = None,
    token: str | None = None,
    tls: TlsChoice = False,
    ca: FilePath | None = None,
    cert: FilePath | None = None,
    key: FilePath | None = None,
    address: str | None = None,
    actors: int | None = None,
    actor_cpus: int | None = None,
    filters: Filters | None = None,
    retry_failed: RetryFailed | bool = False,
    limit: int | None = None,
    max_error_rate: float | None = None,
    shard_size: int = SHARD_SIZE,
    attempts: int = DEFAULT_ATTEMPTS,
    deadline_ms: int | None = None,
) -> "BatchRun":
    """Resize all images of a source that are not done yet, and return an iterator of their rows.

    ``source`` and ``destination`` are paths or URLs, or objects that have such methods. ``outputs`` says what
    is made of each image. What an earlier run has done is skipped: same key, same version, same options.

    ``engine="local"`` starts a server on this machine, or uses the one at ``server``: ``HOST:PORT``,
    ``tls://HOST:PORT`` or ``unix:/path``, with ``token`` and the files for TLS as for ``AsyncClient``.

    ``engine="ray"`` starts a server on each node of the Ray cluster at ``address``, or on this machine; at
    most ``actors`` of them, with ``actor_cpus`` cores each.

    ``filters`` say which images are taken; the default takes all of a list, and of other paths and URLs what
    ends as images do.
    Images that failed in an earlier run are skipped, too, unless ``retry_failed`` is true or has the codes of
    those to try again.

    ``limit`` is the most images to do. If more than ``max_error_rate`` of the images fail (0 to 1, looked at
    from the hundredth on), the run ends with ``TooManyFailures``. ``attempts`` bounds the requests for an
    image, and ``deadline_ms`` the time of each. Up to ``shard_size`` images share one part of the manifest.

    Nothing starts before the first row is asked for, or the ``with`` block is entered. Raises ``ValueError``
    for arguments that cannot be used, and ``StorageFailed`` for places that cannot.
    """
    if attempts < 1:
        raise ValueError(f"attempts: must be from 1, not {attempts}")
    choices = Choices(
        retry_failed=_retry(retry_failed), shard_size=shard_size, limit=limit, max_error_rate=max_error_rate
    )
    made = Outputs.of(outputs)
    running = None
    if server is not None:
        running = RunningServer(address=server, token=token, tls=tls, ca=ca, cert=cert, key=key)
    make_engine = _engine(engine, running, address, actors, actor_cpus)
    if isinstance(destination, (str, os.PathLike)):
        opened_destination = open_destination(destination)
    else:
        opened_destination = destination
    if isinstance(source, (str, os.PathLike)):
        opened_source = open_source(source, destination=opened_destination.url)
        filters = Filters(any_ending=is_key_list(source)) if filters is None else filters
    else:
        opened_source = source
        if source.url.rstrip("/") == opened_destination.url.rstrip("/"):
            raise ValueError(f"{source.url} is the source and the destination; name another destination")
    work = Work(
        source=opened_source if filters is None else FilteredSource(opened_source, filters),
        destination=opened_destination,
        outputs=made,
        run=new_run_id(),
        attempts=attempts,
        deadline_ms=deadline_ms,
    )

    def make_client() -> AsyncClient:
        return AsyncClient.embedded() if running is None else running.client()

    return BatchRun(
        RunLoop(work, make_engine, choices),
        left_out=work.source.left_out,
        dry_run=partial(dry_run, work, choices, make_client),
    )


def _retry(given: RetryFailed | bool) -> RetryFailed:  # noqa: FBT001 - it is passed on
    if isinstance(given, bool):
        return Retry.ALL if given else Retry.NONE
    if isinstance(given, str):
        raise ValueError(f"retry_failed: must be a list of codes, not the text {given!r}")  # noqa: TRY004 - one error type
    return given


def _engine(
    engine: str | MakeEngine,
    server: RunningServer | None,
    address: str | None,
    actors: int | None,
    actor_cpus: int | None,
) -> MakeEngine:
    if engine != "local" and server is not None:
        raise ValueError("server: is for the engine local; the others start their own")
    if engine != "ray" and (address, actors, actor_cpus) != (None, None, None):
        raise ValueError("address, actors, actor_cpus: are for the engine ray")
    if not isinstance(engine, str):
        return engine

    def local(work: Work) -> Engine:
        return LocalEngine(work, server=server)

    def ray(work: Work) -> Engine:
        return RayEngine(work, address=address, actors=actors, actor_cpus=actor_cpus)

    match engine:
        case "local":
            return local
        case "ray":
            return ray
    raise ValueError(f"engine: must be local or ray, not {engine!r}")


class RunState(Enum):
    """The states of a run, in order."""

    NEW = auto()
    """Nothing has started yet."""
    RUNNING = auto()
    """Its thread runs."""
    ENDED = auto()
    """All rows were taken, or the run was left; its thread has ended."""


class BatchRun(Iterator[Row]):
    """A run, as an iterator of rows. A row that was given is safe: a later run does not do its image again.

    What ends the batch early comes out of the iterator after all rows: ``StorageFailed``, ``TooManyFailures``
    and other ``BatchError``, ``Unauthorized``, ``ConnectFailed`` or ``StartFailed``. Leaving the ``with``
    block, or dropping the iterator, lets the images in flight end; the next run goes on.

    The work waits for whoever iterates once some thousand rows wait.
    """

    def __init__(self, loop: RunLoop, *, left_out: LeftOut, dry_run: DryRun) -> None:
        """``dry_run`` makes the coroutine for ``estimate``."""
        self.left_out = left_out
        """What could not be listed, so far."""
        self._loop = loop
        self._dry_run = dry_run
        self._state = RunState.NEW
        # Daemon: an interpreter that ends must not wait for all images. The finalizer waits for those in
        # flight.
        self._thread = threading.Thread(target=_work, args=(loop,), name="vipsrv-batch", daemon=True)
        self._finalizer = weakref.finalize(self, _leave, loop, self._thread)

    @property
    def progress(self) -> Progress:
        """How far the run has come. May be read from any thread."""
        return self._loop.progress

    def estimate(self, *, sample: int = DEFAULT_SAMPLE) -> Estimate:
        """Instead of running, count the images and estimate what they take from a random sample of them.

        Nothing is stored. The sample is resized by a server on this machine, or by the running one, whatever
        the engine. Raises the errors of the iterator, and ``RuntimeError`` for a run that has started.
        """
        if self._state is not RunState.NEW:
            raise RuntimeError("estimate is for a run that has not started")
        self.close()
        return asyncio.run(self._dry_run(sample=sample))

    def stop(self) -> None:
        """Start no further image. The rows of those in flight still come. May be called from any thread."""
        self._loop.stop()

    def close(self) -> None:
        """Stop, wait for the images in flight, and drop their rows. They are in the manifest all the same."""
        if self._state is RunState.NEW:
            self._finalizer.detach()
        else:
            self._finalizer()
        self._state = RunState.ENDED

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row:
        if self._state is RunState.NEW:
            self._start()
        if self._state is RunState.ENDED:
            raise StopIteration
        try:
            row = self._loop.rows.get()
        except KeyboardInterrupt:
            raise  # whoever has asked for rows may ask again, or leave
        except BaseException:
            self.close()
            raise
        if row is None:
            self.close()
            raise StopIteration
        return row

    def __enter__(self) -> Self:
        if self._state is RunState.NEW:
            self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        self._state = RunState.RUNNING
        self._thread.start()


def _work(loop: RunLoop) -> None:
    """The main function of the thread of a run."""
    try:
        asyncio.run(loop.main())
    except BaseException as error:  # noqa: BLE001 - it is raised in the thread that iterates
        loop.rows.end(error)
    else:
        loop.rows.end(None)


def _leave(loop: RunLoop, thread: threading.Thread) -> None:
    """Stop a run and wait until its thread has ended; its rows are dropped."""
    if not thread.is_alive() or thread is threading.current_thread():
        return
    loop.stop()
    loop.rows.drop()
    thread.join()
