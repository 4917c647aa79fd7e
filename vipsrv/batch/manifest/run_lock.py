"""The lock of a run: two runs on this machine do not work on one destination at the same time."""

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vipsrv.batch.manifest.file_lock import Locked, lock_file
from vipsrv.errors import BatchError, StorageFailed

_NAME = "lock"

_ATTEMPTS = 5
_PAUSE = 0.02
"""Seconds between two attempts; ``holder`` has the lock for microseconds."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lock: the id of its process on this machine, and the id of its run."""

    pid: int
    run: str


class RunLock:
    """The lock of the folder of journals, held until ``release`` or the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, folder: Path, *, run: str, place: str) -> Self:
        """Take the lock, for the destination ``place``. Raises ``BatchError`` if another run has it."""
        path = folder / _NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StorageFailed(str(folder), error.strerror or str(error)) from None
        try:
            _lock_patiently(descriptor, path)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps({"pid": os.getpid(), "run": run}).encode() + b"\n")
        except Locked:
            other = _holder_of(descriptor)
            os.close(descriptor)
            who = "another process" if other is None else f"process {other.pid} (run {other.run})"
            raise BatchError(
                f"{place}: {who} is at work on this destination: wait until it ends, or stop it"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise StorageFailed(str(path), error.strerror or str(error)) from None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Give the lock up. The file stays: to remove it would let two runs lock two files."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def holder(folder: Path) -> Holder | None:
    """Return who holds the lock at the moment, or ``None``."""
    try:
        descriptor = os.open(folder / _NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        lock_file(descriptor, folder / _NAME)
    except Locked:
        return _holder_of(descriptor) or Holder(0, "")
    finally:
        os.close(descriptor)
    return None


def _lock_patiently(descriptor: int, path: Path) -> None:
    """Lock a file, also if somebody who only looks has locked it for a moment."""
    for _ in range(_ATTEMPTS):
        with suppress(Locked):
            return lock_file(descriptor, path)
        time.sleep(_PAUSE)
    return lock_file(descriptor, path)


def _holder_of(descriptor: int) -> Holder | None:
    try:
        values = json.loads(os.pread(descriptor, 4096, 0))
        return Holder(int(values["pid"]), str(values["run"]))
    except (ValueError, KeyError, TypeError):  # it has taken the lock and not said more yet
        return None
