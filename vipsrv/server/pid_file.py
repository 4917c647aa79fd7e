"""The file with the process id of a server, by which ``vipsrv reload`` finds it.

The server holds a lock on the file as long as it runs. A file without a lock is a leftover, so its process
id, which may belong to another process by now, is never used. Beside it, a file whose name ends in
``.reload`` holds how the last reload went.
"""

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vipsrv.errors import StartFailed, VipsrvError

_MODE = 0o644
_MOST_DIGITS = 32
"""Bytes of a pid file that are read."""

_NEXT = ".next"
"""What the name of the file ends in while the server is taking the place of another one."""

_LOCK_TRIES, _LOCK_PAUSE = 10, 0.02
"""How often locking is tried, and the seconds between two tries: ``find_server`` locks for a moment, too."""

_MOST_LINES, _MOST_LENGTH = 50, 500
"""Of the lines of a reload, and the characters of each: the file that holds them stays small."""


class NoServer(VipsrvError):
    """No server can be found by a pid file."""


@dataclass(frozen=True, slots=True)
class LastReload:
    """How the last reload of a server went; ``began`` is a time of ``time.monotonic``."""

    began: float
    taken_over: bool
    lines: tuple[str, ...]


class PidFile:
    """The pid file of this process, from ``create`` to ``remove``."""

    def __init__(self, path: Path, final_path: Path, descriptor: int, reloads: int) -> None:
        self._path = path  # where it is now
        self._final_path = final_path  # where it is after `publish`
        self._descriptor = descriptor
        self._reloads = reloads  # opened at once: the server may change to a user that may not later

    @classmethod
    def create(cls, path: Path, *, take_over: bool = False) -> Self:
        """Write the file. Raises ``StartFailed`` if another server has it, or if it is no pid file.

        With ``take_over`` this process is about to replace another server: the file has another name until
        ``publish``, and that of the other server stays as it is.
        """
        final_path = path
        try:
            path, descriptor = _open_locked(path, take_over=take_over)
            try:
                reloads_path = reloads_of(path)
                reloads_path.unlink(missing_ok=True)
                reloads = os.open(reloads_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            raise StartFailed(f"--pid-file: {path} cannot be written: {error.strerror}") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(path, final_path, descriptor, reloads)

    def check_published(self) -> None:
        """Raise ``StartFailed`` if another server has the file, because there is no hand-over from that."""
        if self._path != self._final_path:
            raise StartFailed(
                f"--pid-file: another server runs with {self._final_path}, and this one does not replace it"
            )

    def publish(self) -> None:
        """Take the place of the file of the server that was taken over. Raises ``OSError``."""
        if self._path != self._final_path:
            reloads_of(self._path).replace(reloads_of(self._final_path))
            self._path = self._path.replace(self._final_path)

    def note_reload(self, reload: LastReload) -> None:
        """Write how a reload went."""
        lines = [line[:_MOST_LENGTH] for line in reload.lines[:_MOST_LINES]]
        text = json.dumps({"began": reload.began, "taken_over": reload.taken_over, "lines": lines})
        # What is left of a longer text before is in further lines, which nobody reads.
        os.pwrite(self._reloads, f"{text}\n".encode(), 0)

    def remove(self) -> None:
        """Remove both files, but none that another server has put in their place, and release the lock."""
        for path, descriptor in ((reloads_of(self._path), self._reloads), (self._path, self._descriptor)):
            with suppress(OSError):  # the server may have changed to a user that may not remove it
                os.ftruncate(descriptor, 0)
                if _is_at(path, descriptor):
                    path.unlink()
            os.close(descriptor)


def reloads_of(path: Path) -> Path:
    """Return the file beside a pid file that holds how the last reload went."""
    return path.with_name(f"{path.name}.reload")


def find_server(path: Path) -> int:
    """Return the process id of the server that has this pid file. Raises ``NoServer``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NoServer(f"no server runs with the pid file {path}") from None
    except OSError as error:
        raise NoServer(f"the pid file {path} cannot be read: {error.strerror}") from None
    try:
        if _lock(descriptor, fcntl.LOCK_SH):
            raise NoServer(f"no server runs with the pid file {path}; it was left by one that was killed")
        text = os.pread(descriptor, _MOST_DIGITS, 0).strip()
    finally:
        os.close(descriptor)
    if not text.isdigit() or not _is_vipsrv(int(text)):
        # Another program has locked the file, or the number is of another container.
        raise NoServer(f"the pid file {path} names no process of vipsrv here")
    return int(text)


def read_last_reload(path: Path) -> LastReload | None:
    """Return how the last reload went of the server that has this pid file, if there was one."""
    try:
        line = reloads_of(path).read_bytes().partition(b"\n")[0]
        content: dict[str, Any] = json.loads(line)
        return LastReload(content["began"], content["taken_over"], tuple(content["lines"]))
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or it is being written
        return None


def _open_locked(path: Path, *, take_over: bool) -> tuple[Path, int]:
    """Open the file, or with ``take_over`` the next one if another server has it, and lock it.

    Return its path and descriptor. Raises ``OSError`` or ``StartFailed``.
    """
    text = b""
    for _ in range(_LOCK_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        text = os.pread(descriptor, _MOST_DIGITS, 0).strip()
        if text and not text.isdigit():
            os.close(descriptor)
            raise StartFailed(f"--pid-file: {path} is no pid file, so it is left as it is")
        locked = _lock(descriptor, fcntl.LOCK_EX)
        # Another server may have removed it between opening and locking.
        if locked and _is_at(path, descriptor):
            return path, descriptor
        os.close(descriptor)
        if not locked and take_over:
            return _open_locked(path.with_name(path.name + _NEXT), take_over=False)
        time.sleep(_LOCK_PAUSE)
    raise StartFailed(f"--pid-file: another server runs with {path} (process {text.decode() or 'unknown'})")


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one at ``path``."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    return False


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_vipsrv(pid: int) -> bool:
    """Whether a process may be a server, by its command line where the system shows it."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return not Path("/proc/self/cmdline").exists()
    # `bin/vipsrv serve`, or `python -m vipsrv serve`; the folder of the interpreter says nothing.
    return any(argument.rpartition(b"/")[2] == b"vipsrv" for argument in arguments)
