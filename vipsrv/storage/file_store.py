"""Files for large uploads and results: the disk's budget, and the threads that write and close.

A file is new for each slot, because a worker may keep the descriptor that it received. It has no name, unless
its bytes are to be found again later: then it may be parked, which closes it and leaves it on the disk.
"""

import asyncio
import errno
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vipsrv.errors import Busy, Limit, StartFailed
from vipsrv.storage.budget import Budget, MakeRoom, Share, no_more_room
from vipsrv.storage.splice import Moved, Splicer

FULL_RETRY_MS = 1000
"""Milliseconds after which a client that found the spool or the server full may try again."""

MakeFile = Callable[[Share], "SpoolFile"]
"""Creates a file with a name for a client. Raises ``OSError``."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class SpoolFile:
    """A file. It counts towards ``share``, with ``reserved`` bytes; ``written`` bytes have been passed to a
    thread for writing.
    """

    write_fd: int
    read_fd: int
    share: Share
    reserved: int = 0
    written: int = 0

    @classmethod
    def create(cls, folder: Path, share: Share) -> "SpoolFile":
        """Create a file in ``folder`` and remove its name. Raises ``OSError``."""
        write_fd, path = tempfile.mkstemp(prefix="vipsrv-", dir=folder)
        with ExitStack() as undo:
            undo.callback(os.close, write_fd)
            try:
                read_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                undo.callback(os.close, read_fd)
            finally:
                Path(path).unlink()
            undo.pop_all()
        return cls(write_fd=write_fd, read_fd=read_fd, share=share)

    def read(self, offset: int, size: int) -> bytes:
        """Read 1 to ``size`` bytes from ``offset``. Raises ``OSError``, also if the file ends there."""
        data = os.pread(self.read_fd, size, offset)
        if not data:
            raise OSError(errno.EIO, f"a file of the spool ends at {offset} bytes or before")
        return data

    def close(self) -> None:
        """Close both descriptors. Raises ``OSError``."""
        try:
            os.close(self.write_fd)
        finally:
            os.close(self.read_fd)


class FileStore:
    """Creates, fills and frees at most ``files`` files in ``directory``, of ``budget`` bytes together.

    Raises ``StartFailed`` if its threads cannot be started.
    """

    def __init__(self, directory: Path, budget: int, files: int) -> None:
        self.directory = directory
        self._budget = Budget(budget)
        self._files = Budget(files)
        self._splicer = Splicer()
        self.make_room: MakeRoom = no_more_room
        """Frees some disk: something that is parked, of one client or of any; returns whether it has."""
        self._writers = _started_threads(2, "spool")
        self._closers = _started_threads(1, "spool-close")
        self._closed = False

    @property
    def budget_left(self) -> int:
        """Bytes that files may still reserve; those of a removed file count again once it is freed."""
        return self._budget.left

    @property
    def budget(self) -> int:
        """Bytes that files may reserve altogether."""
        return self._budget.size

    @property
    def open_files(self) -> int:
        """The number of files, with those that are being removed."""
        return self._files.size - self._files.left

    def resize(self, budget: int, files: int) -> None:
        """Change how many bytes the files may have, and how many files there may be."""
        self._budget.resize(budget)
        self._files.resize(files)

    def create(self, share: Share, size: int, make: MakeFile | None = None) -> SpoolFile:
        """Return a new file for ``size`` bytes, none of them reserved yet; ``make`` may give it a name.

        Raises ``Busy``.
        """
        self._check_budget(share, size, own=0)
        self._check_files(share)
        try:
            file = SpoolFile.create(self.directory, share) if make is None else make(share)
        except OSError as error:
            _log.error("no file can be created in the spool folder: %s", error)
            raise no_room() from None
        self._files.take(share.files, 1)
        return file

    def park(self, file: SpoolFile) -> int:
        """Close a file with a name; return its size, which goes on to count until ``forget``."""
        size = file.written
        self._budget.take(file.share.disk, size - file.reserved)
        self._files.give_back(file.share.files, 1)
        try:
            file.close()
        except OSError as error:
            _log.error("a file of the spool could not be closed: %s", error)
        return size

    def check_reopen(self, share: Share) -> None:
        """Raise ``Busy`` if no parked file of this client may be opened now."""
        self._check_files(share)

    def reopened(self, file: SpoolFile) -> None:
        """Count an open file that was parked; its ``reserved`` bytes count already."""
        self._files.take(file.share.files, 1)

    def count(self, share: Share, size: int) -> None:
        """Count a parked file, even if that is more than is allowed."""
        self._budget.take(share.disk, size)

    def forget(self, share: Share, size: int) -> None:
        """Stop counting a parked file."""
        self._budget.give_back(share.disk, size)

    def run_aside(self, call: Callable[[], None]) -> None:
        """Call something in the thread that closes files, because it may take long."""
        if self._closed:
            call()
        else:
            self._closers.submit(call)

    def reserve(self, file: SpoolFile, size: int) -> None:
        """Raise the bytes that ``file`` reserves to ``size``. Raises ``Busy``."""
        more = size - file.reserved
        self._check_budget(file.share, more, own=file.reserved)
        self._budget.take(file.share.disk, more)
        file.reserved = size

    def write(self, file: SpoolFile, views: list[memoryview]) -> "asyncio.Future[None]":
        """Append to a file in a thread, so that a slow disk does not block the event loop."""
        offset = file.written
        file.written += sum(map(len, views))
        return asyncio.get_running_loop().run_in_executor(
            self._writers, _write_all, file.write_fd, views, offset
        )

    def cut(self, file: SpoolFile, size: int) -> "asyncio.Future[None]":
        """Cut a file off after ``size`` bytes in a thread, because to free many takes long."""
        file.written = size
        return asyncio.get_running_loop().run_in_executor(self._writers, os.ftruncate, file.write_fd, size)

    def write_and_splice(
        self, file: SpoolFile, views: list[memoryview], source: int, most: int
    ) -> "asyncio.Future[Moved]":
        """Append ``views`` to a file in a thread, and after them up to ``most`` bytes from a socket.

        ``source`` is the socket's descriptor. The bytes that came from it are not counted as ``written``; the
        caller adds them. Raises ``OSError``, with nothing done, if no descriptor is left.
        """
        own = os.dup(source)  # so that it remains this socket even if the connection is closed meanwhile
        offset = file.written
        file.written += sum(map(len, views))
        done = asyncio.get_running_loop().run_in_executor(
            self._writers, self._write_and_splice, file.write_fd, views, offset, own, most
        )
        done.add_done_callback(lambda _: os.close(own))
        return done

    def remove(self, file: SpoolFile) -> None:
        """Close a file's descriptors, which frees it, in a thread.

        The kernel takes 0.1 s to free 1 GB, and seconds while the disk is behind.
        """
        if self._closed:
            self._give_back(file)
            file.close()
            return
        closing = asyncio.get_running_loop().run_in_executor(self._closers, file.close)
        closing.add_done_callback(partial(self._removed, file))

    def close(self) -> None:
        """End the threads and close the pipes; the files must have been removed."""
        self._closed = True
        self._writers.shutdown(wait=True, cancel_futures=True)
        self._closers.shutdown(wait=True)
        self._splicer.close()

    def _check_budget(self, share: Share, size: int, *, own: int) -> None:
        holding = share.disk
        while not self._budget.allows(holding, size, own=own):
            if not self.make_room(None if self._budget.left < size else share):
                raise Busy(
                    f"the spool has {self._budget.left} bytes left, this client holds {holding.size} and "
                    f"needs {size} more: try again later",
                    retry_after_ms=FULL_RETRY_MS,
                    limit=Limit.SPOOL_DISK,
                )

    def _check_files(self, share: Share) -> None:
        if not self._files.allows(share.files, 1, own=0):
            raise Busy(
                f"the spool has room for {self._files.left} more files, and this client has "
                f"{share.files.size}: try again later",
                retry_after_ms=FULL_RETRY_MS,
                limit=Limit.SPOOL_FILES,
            )

    def _removed(self, file: SpoolFile, closing: "asyncio.Future[None]") -> None:
        self._give_back(file)
        error = closing.exception()
        if error is not None:
            _log.error("a file of the spool could not be closed: %s", error)

    def _give_back(self, file: SpoolFile) -> None:
        self._budget.give_back(file.share.disk, file.reserved)
        self._files.give_back(file.share.files, 1)

    def _write_and_splice(
        self, fd: int, views: list[memoryview], offset: int, source: int, most: int
    ) -> Moved:
        end = offset + sum(map(len, views))
        _write_all(fd, views, offset)
        return self._splicer.move(source, fd, end, most)


def _started_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Return an executor whose threads run already.

    One that cannot start a thread later raises an error, but keeps the call and may make it at any time: on
    descriptors that are closed by then, or belong to others.
    """
    executor = ThreadPoolExecutor(max_workers=count, thread_name_prefix=name)
    all_run = threading.Barrier(count)
    try:
        for _ in range(count):
            executor.submit(all_run.wait)
    except RuntimeError as error:
        all_run.abort()
        executor.shutdown(wait=False, cancel_futures=True)
        raise StartFailed(f"a thread of the spool cannot be started: {error}") from None
    return executor


def no_room() -> Busy:
    """Return the error for a client whose bytes do not fit into the spool folder."""
    return Busy(
        "the server's spool has no room: try again later",
        retry_after_ms=FULL_RETRY_MS,
        limit=Limit.SPOOL_DISK,
    )


def _write_all(fd: int, views: list[memoryview], offset: int) -> None:
    while views:
        written = os.pwritev(fd, views, offset)
        offset += written
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]
