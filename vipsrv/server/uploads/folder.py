"""The files of uploads, with names: other gateways, a successor and a restarted server find them by those.

::

    vipsrv-uploads-UID/          0700, below the spool folder
        key                      32 random bytes; names are digests with this key
        keeper-TOKEN             locked by a process as long as it lives
        NAME                     the bytes; locked by the process that has it open
        NAME.info                JSON: size, boot id, TOKEN of the process that counts the file
        NAME.wanted              another process wants the upload: let it go

The size of NAME is what has arrived: bytes are written one after another, so a process that is killed leaves
no hole. After a crash of the machine that is not certain, so files of an earlier boot are removed.

The locks are those of ``flock(2)``, which end with the process. A file that nobody has open is counted by one
process, whose TOKEN its info has; the files of a process that has ended are claimed by another one.
"""

import base64
import fcntl
import hashlib
import json
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vipsrv.storage.budget import Share
from vipsrv.storage.file_store import SpoolFile

_INFO = ".info"
_WANTED = ".wanted"
_KEEPER = "keeper-"
_TRASH = "trash-"
_NEW = "new-"
_KEY = "key"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_NAME_BYTES = 16
_KEY_BYTES = 32

_ORPHAN_SECONDS = 60.0
"""Seconds after which a file without its info, or an info without its file, is a remnant of a process that
was killed in between."""


class InUseError(OSError):
    """Another process has the upload open."""


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """What is known of an upload beside its bytes: its ``size``, and the ``metadata`` that a client gave.

    One that ``is_created`` was created before its first byte.
    """

    size: int
    metadata: bytes = b""
    is_created: bool = False


@dataclass(frozen=True, slots=True)
class StoredUpload:
    """An upload that no process has open: ``received`` bytes, the last of them at ``changed`` (Unix time)."""

    name: str
    info: UploadInfo
    received: int
    changed: float


def boot_id() -> str:
    """Return what the kernel calls this run of the machine; empty if it does not say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class UploadFolder:
    """The folder for uploads below ``spool``. It is created for the first file, and anew if it was removed.

    All methods raise ``OSError`` if the folder cannot be used, or is not only this user's.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._token = secrets.token_hex(8)
        self._boot = boot_id()
        self._folder: int | None = None
        self._keeper: int | None = None
        self._key: bytes | None = None
        self._opening = threading.Lock()  # a thread may claim

    @property
    def path(self) -> Path:
        """Where it is. A server may change its user before it uses it."""
        return self._spool / f"vipsrv-uploads-{os.geteuid()}"

    @property
    def exists(self) -> bool:
        """Whether there is such a folder, of this process or an earlier one."""
        return self._folder is not None or os.path.lexists(self.path)

    def name_of(self, owner: str, upload_id: str) -> str:
        """Return the name of an upload. Only who has the key can tell it from the id."""
        self._open()
        key = self._key
        assert key is not None  # noqa: S101 - `_open` has read it
        return hashlib.blake2b(f"{owner}\0{upload_id}".encode(), key=key, digest_size=_NAME_BYTES).hexdigest()

    def create(self, name: str, info: UploadInfo, share: Share) -> SpoolFile:
        """Create the file of an upload, and have it open.

        One that has that name is removed; it has expired, or is of an earlier boot.
        """
        folder = self._open()
        stale = self._lock(name)
        if stale is not None:
            self._remove_now(name)
            os.close(stale)
        with ExitStack() as undo:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            try:
                write_fd = os.open(name, flags, 0o600, dir_fd=folder)
            except FileExistsError:  # another process begins it at the same time
                raise InUseError from None
            undo.callback(os.close, write_fd)
            try:
                fcntl.flock(write_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another process takes it for what an ended one has left, and removes it
                raise InUseError from None
            undo.callback(self._unlink, name)
            read_fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
            undo.callback(os.close, read_fd)
            self._write_info(name, info)
            self._unlink(name + _WANTED)
            undo.pop_all()
        return SpoolFile(write_fd=write_fd, read_fd=read_fd, share=share)

    def reopen(self, name: str, share: Share) -> tuple[SpoolFile, UploadInfo] | None:
        """Open a file again, with all of it reserved; this process counts it from now on.

        Returns ``None`` if there is none. Raises ``InUseError``; the process that has it is then told.
        """
        with ExitStack() as undo:
            locked = self._lock(name)
            if locked is None:
                return None
            undo.callback(os.close, locked)
            read = self._read_info(name)
            if read is None:
                return None
            info, keeper = read
            try:
                read_fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._open())
            except FileNotFoundError:  # another process begins it anew, without the lock
                return None
            undo.callback(os.close, read_fd)
            if keeper != self._token:
                self._write_info(name, info)
            self._unlink(name + _WANTED)
            undo.pop_all()
        size = os.fstat(locked).st_size
        file = SpoolFile(write_fd=locked, read_fd=read_fd, share=share, reserved=size, written=size)
        return file, info

    def look(self, name: str) -> StoredUpload | None:
        """Return what is stored of an upload, if anything. Raises ``InUseError`` as ``reopen``."""
        locked = self._lock(name)
        if locked is None:
            return None
        try:
            read = self._read_info(name)
            if read is None:
                return None
            found = os.fstat(locked)
            return StoredUpload(name, read[0], found.st_size, found.st_mtime)
        finally:
            os.close(locked)

    def _remove_now(self, name: str) -> None:
        trash = self.remove(name)
        if trash is not None:
            self.free(trash)

    def is_wanted(self, name: str) -> bool:
        """Whether another process wants the upload."""
        return self._folder is not None and _exists(name + _WANTED, self._folder)

    def is_counted_here(self, name: str) -> bool:
        """Whether a file that nobody has open is still there and counted by this process."""
        read = self._read_info(name)
        return read is not None and read[1] == self._token and _exists(name, self._open())

    def remove(self, name: str) -> str | None:
        """Remove an upload's name; its bytes are freed by ``free``, which may take long.

        The caller has it open, or knows that nobody has. Returns what ``free`` needs.
        """
        folder = self._open()
        trash = _TRASH + secrets.token_hex(8)
        try:
            os.rename(name, trash, src_dir_fd=folder, dst_dir_fd=folder)
        except FileNotFoundError:
            trash = ""
        self._unlink(name + _INFO)
        self._unlink(name + _WANTED)
        return trash or None

    def free(self, trash: str) -> None:
        """Remove the bytes of an upload."""
        self._unlink(trash)

    def claim(self, ttl: float) -> list[StoredUpload]:
        """Claim the files of processes that have ended; remove those that are older than ``ttl`` seconds.

        Returns what this process has to count from now on, the oldest first. A thread may do it.
        """
        folder = self._open()
        living: dict[str, bool] = {self._token: True}
        found = []
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            with suppress(OSError):
                if name.startswith(_KEEPER):
                    self._lives(name.removeprefix(_KEEPER), living)
                elif name.startswith(_TRASH):
                    self._unlink(name)
                elif name.endswith((_INFO, _WANTED)) or name.startswith(_NEW):
                    self._remove_if_orphan(name, name.partition(".")[0])
                elif len(name) == 2 * _NAME_BYTES:
                    stored = self._claim(name, ttl, living)
                    if stored is not None:
                        found.append(stored)
        return sorted(found, key=lambda one: one.changed)

    def close(self) -> None:
        """Say that this process counts no files any more."""
        if self._keeper is not None:
            self._unlink(_KEEPER + self._token)
        self._close()

    def _close(self) -> None:
        if self._keeper is not None:
            os.close(self._keeper)
            self._keeper = None
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def _open(self) -> int:
        """Return the descriptor of the folder, which is created if need be."""
        folder = self._folder
        if folder is None or not os.fstat(folder).st_nlink:  # removed, by a cleaner of /tmp for example
            with self._opening:
                if self._folder == folder:
                    self._close()
                    self._folder = self._create()
                folder = self._folder
        assert folder is not None  # noqa: S101 - it was opened under the lock
        return folder

    def _create(self) -> int:
        with suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
        with ExitStack() as undo:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            undo.callback(os.close, folder)
            found = os.fstat(folder)
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise PermissionError(f"{self.path} is not a folder that only this user can open")
            self._key = self._read_key(folder)
            self._keeper = self._say_alive(folder)
            undo.pop_all()
        return folder

    def _say_alive(self, folder: int) -> int:
        """Return the descriptor whose lock says that this process lives."""
        while True:
            keeper = os.open(
                _KEEPER + self._token, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder
            )
            with suppress(BlockingIOError):
                fcntl.flock(keeper, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same(_KEEPER + self._token, keeper, folder):
                    return keeper
            os.close(keeper)  # another process took it for the trace of one that has ended

    def _read_key(self, folder: int) -> bytes:
        for _ in range(2):
            with suppress(FileNotFoundError):
                key = _read(_KEY, folder)
                if len(key) == _KEY_BYTES:
                    return key
            temporary = f"{_NEW}{secrets.token_hex(8)}"
            _write(temporary, self._key or secrets.token_bytes(_KEY_BYTES), folder)
            # Of several processes that do this at the same time, one wins.
            with suppress(FileExistsError):
                os.link(temporary, _KEY, src_dir_fd=folder, dst_dir_fd=folder)
            os.unlink(temporary, dir_fd=folder)
        raise OSError(f"{self.path / _KEY} is not a key")

    def _lock(self, name: str, *, want: bool = True) -> int | None:
        """Open and lock a file. Raises ``InUseError`` if another process has locked it."""
        folder = self._open()
        try:
            opened = os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(opened)
            if want:
                _write(name + _WANTED, b"", folder)
            raise InUseError from None
        if not os.fstat(opened).st_nlink or not _same(name, opened, folder):  # removed in between
            os.close(opened)
            return None
        return opened

    def _read_info(self, name: str) -> tuple[UploadInfo, str] | None:
        """Return what the info says, and which process counts the file.

        Returns ``None`` if it is of another boot, damaged, or not there.
        """
        try:
            read: dict[str, Any] = json.loads(_read(name + _INFO, self._open()))
            if read["boot"] != self._boot:
                return None
            info = UploadInfo(read["size"], base64.b64decode(read["metadata"]), read["created"])
            return info, read["keeper"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _write_info(self, name: str, info: UploadInfo) -> None:
        """Write the info with this process as the one that counts the file; all of it or nothing."""
        folder = self._open()
        text = json.dumps(
            {
                "size": info.size,
                "boot": self._boot,
                "keeper": self._token,
                "created": info.is_created,
                "metadata": base64.b64encode(info.metadata).decode(),
            }
        )
        temporary = f"{_NEW}{secrets.token_hex(8)}"
        _write(temporary, text.encode(), folder)
        os.rename(temporary, name + _INFO, src_dir_fd=folder, dst_dir_fd=folder)

    def _claim(self, name: str, ttl: float, living: dict[str, bool]) -> StoredUpload | None:
        read = self._read_info(name)
        if read is not None and self._lives(read[1], living):
            return None
        locked = self._lock(name, want=False)
        if locked is None:
            return None
        try:
            found = os.fstat(locked)
            if time.time() - found.st_mtime > (ttl if read is not None else _ORPHAN_SECONDS):
                self._remove_now(name)
                return None
            if read is None:
                return None
            self._write_info(name, read[0])
            return StoredUpload(name, read[0], found.st_size, found.st_mtime)
        finally:
            os.close(locked)

    def _lives(self, token: str, living: dict[str, bool]) -> bool:
        """Whether the process with this token lives; the trace of one that does not is removed."""
        if token not in living:
            living[token] = False
            try:
                opened = self._lock(_KEEPER + token, want=False)
            except InUseError:
                living[token] = True
            else:
                if opened is not None:
                    self._unlink(_KEEPER + token)
                    os.close(opened)
        return living[token]

    def _remove_if_orphan(self, beside: str, name: str) -> None:
        folder = self._open()
        age = time.time() - os.stat(beside, dir_fd=folder).st_mtime
        if age > _ORPHAN_SECONDS and (name == beside or not _exists(name, folder)):
            self._unlink(beside)

    def _unlink(self, name: str) -> None:
        if self._folder is not None:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)


@contextmanager
def _opened(name: str, flags: int, folder: int) -> Iterator[int]:
    opened = os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    try:
        yield opened
    finally:
        os.close(opened)


def _read(name: str, folder: int) -> bytes:
    with _opened(name, os.O_RDONLY, folder) as opened:
        return os.read(opened, 64 * 1024)


def _write(name: str, data: bytes, folder: int) -> None:
    with _opened(name, os.O_WRONLY | os.O_CREAT, folder) as opened:
        os.write(opened, data)


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _same(name: str, opened: int, folder: int) -> bool:
    """Whether a name is still that of an open file."""
    try:
        named = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(opened))
