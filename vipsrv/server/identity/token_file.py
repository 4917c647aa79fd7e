"""The token file: it is read as a whole, and changed under a lock.

Changes keep the rest of the file, comments included: a new token is appended, and a revoked one gets a line.
A change is made under a lock, so that two commands at once lose nothing, and replaces the file as a whole, so
that a reader never sees half of it. ``token_records`` has the format.
"""

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from vipsrv.errors import SettingsError
from vipsrv.printable import printable
from vipsrv.server.identity.token_records import (
    TokenRecord,
    find_header,
    format_record,
    parse_tokens,
    timestamp,
)
from vipsrv.server.small_file import read_small_file

_HEAD = (
    "# Tokens of a vipsrv server: 'vipsrv token new' adds one, 'vipsrv token revoke' revokes one.\n"
    "# Limits may be changed here; 'vipsrv reload' makes a running server read the file again.\n"
)
_MODE = 0o600

MOST_BYTES = 64 * 1024 * 1024
"""A larger file is no token file: one of 100,000 tokens has about 20 MB."""


@dataclass(frozen=True, slots=True)
class TokenFile:
    """The contents of a token file, in its order, and what is wrong with its permissions, if anything is."""

    records: tuple[TokenRecord, ...] = ()
    warning: str | None = field(default=None, compare=False)


def read_token_file(path: Path) -> TokenFile:
    """Read a token file. Raises ``SettingsError`` if it cannot be read or anything in it is not valid."""
    try:
        data, mode = read_small_file(path, MOST_BYTES)
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: there is no such token file; 'vipsrv token new NAME --tokens {path}' creates it"
        ) from None
    except OSError as error:
        raise SettingsError(f"{path}: the token file cannot be read: {error.strerror}") from None
    return TokenFile(parse_tokens(data, path), _warning(path, mode))


def add_token(path: Path, make: Callable[[tuple[TokenRecord, ...]], TokenRecord]) -> TokenRecord:
    """Append the record that ``make`` returns for the present ones; the file is created if missing.

    Raises ``SettingsError``.
    """
    with _locked(path, create=True) as file:
        record = make(file.records)
        text = file.text or _HEAD
        if not text.endswith("\n"):
            text += "\n"
        file.replace(text + "\n" + format_record(record), (*file.records, record))
    return record


def revoke_tokens(path: Path, which: str, now: datetime) -> list[TokenRecord]:
    """Revoke the token with the id ``which``, or all tokens of the identity with that name.

    ``now`` is in whole seconds. Returns those that were not revoked before. Raises ``SettingsError``, also
    if there is no such token.
    """
    with _locked(path, create=False) as file:
        matching = [one for one in file.records if one.id == which] or [
            one for one in file.records if one.name == which
        ]
        if not matching:
            raise SettingsError(f"{path}: no token has the id or the name {printable(which)!r}")
        revoked = [one for one in matching if one.revoked is None]
        text = file.text
        for one in revoked:
            header = find_header(text, one.id)
            if header is None:
                raise SettingsError(
                    f"{path}: the table of {one.id} is not written as [{one.id}]; add 'revoked = "
                    f"{timestamp(now)}' to it by hand"
                )
            text = f"{text[: header.end()]}\nrevoked = {timestamp(now)}{text[header.end() :]}"
        if revoked:
            new = tuple(replace(one, revoked=now) if one in revoked else one for one in file.records)
            file.replace(text, new)
    return revoked


def _warning(path: Path, mode: int) -> str | None:
    if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        who = "others may read or change" if mode & (stat.S_IROTH | stat.S_IWOTH) else "its group may change"
        return f"{path}: {who} the token file (mode {stat.S_IMODE(mode):04o}); 'chmod 600 {path}' closes it"
    return None


class _LockedFile:
    """A token file while no other command may change it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._status = os.fstat(descriptor)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            data = file.read()
        self.records = parse_tokens(data, path)
        self.text = data.decode("utf-8")

    def replace(self, text: str, records: tuple[TokenRecord, ...]) -> None:
        """Replace the file by ``text``, with the same owner and permissions, if it reads as ``records``."""
        data = text.encode("utf-8")
        if parse_tokens(data, self._path) != records:
            raise SettingsError(f"{self._path}: cannot be changed by this command; change it by hand")
        descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                made = os.fstat(descriptor)
                if (made.st_uid, made.st_gid) != (self._status.st_uid, self._status.st_gid):
                    # Otherwise the server's user could no longer read what root has changed.
                    os.fchown(descriptor, self._status.st_uid, self._status.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(self._status.st_mode))
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink()
            raise
        _sync_folder(self._path.parent)


@contextmanager
def _locked(path: Path, *, create: bool) -> Iterator[_LockedFile]:
    """Lock the file for a change, and create it if wanted. Raises ``SettingsError``."""
    real = Path(os.path.realpath(path))
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    try:
        while True:
            descriptor = os.open(real, flags, _MODE)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # Another command may have replaced the file in the meantime.
                if _is_at(descriptor, real):
                    yield _LockedFile(real, descriptor)
                    return
            finally:
                os.close(descriptor)
    except OSError as error:
        raise SettingsError(f"{path}: the token file cannot be changed: {error.strerror}") from None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
