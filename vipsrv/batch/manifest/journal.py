"""A journal: the rows of a shard while it runs, a line of JSON each, in a file that its writer has locked.

The first line describes the shard. A row is there once its line has an end, so that a line that was torn off
by the death of its writer counts as none. Whoever can lock a journal knows that its writer is dead.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from vipsrv.batch.manifest.file_lock import Locked, is_same_file, lock_file
from vipsrv.batch.manifest.row_json import row_line, row_of_line
from vipsrv.batch.rows import Row
from vipsrv.batch.stores.os_faults import storage_failure
from vipsrv.errors import BatchError, StorageFailed

ENDING = ".jsonl"
FORMAT = 1
"""The version of the journal's format. A newer one is refused."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """What a journal and a part say about their shard.

    ``options`` is the digest of the ``Outputs``, ``outputs`` is what they are, as JSON, and ``tool`` is the
    version of vipsrv that has done the work.
    """

    shard: str
    run: str
    options: str
    outputs: str
    tool: str


@dataclass(frozen=True, slots=True)
class JournalContent:
    """What a journal holds. ``faults`` are the lines that are no rows, except a torn one at the end."""

    facts: ShardFacts | None
    rows: tuple[Row, ...]
    faults: tuple[str, ...]
    length: int
    """Bytes up to the end of the last whole line."""
    boot: str
    """The ``boot_id`` of the machine that has begun it."""


def read_journal(path: Path) -> JournalContent:
    """Read a journal, whether somebody writes it or not.

    Raises ``FileNotFoundError``, ``StorageFailed``, and ``BatchError`` for one of a newer version of vipsrv.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageFailed(str(path), error.strerror or str(error)) from None
    return parse_journal(data, path.name)


def parse_journal(data: bytes, name: str) -> JournalContent:
    """Return what the bytes of a journal say. Raises ``BatchError`` for one of a newer version of vipsrv."""
    length = data.rfind(b"\n") + 1
    lines = data[:length].split(b"\n")[:-1]
    facts: ShardFacts | None = None
    boot = boot_id()
    rows: list[Row] = []
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            if number == 1:
                facts, boot = _head_of(json.loads(line), name)
            else:
                rows.append(row_of_line(line))
        except (ValueError, RecursionError) as error:
            faults.append(f"{name}, line {number}: {error}")
    return JournalContent(facts, tuple(rows), tuple(faults), length, boot)


def boot_id() -> str:
    """Return what is new with each start of this machine; empty where the system does not tell.

    What was written before its last start may be lost in part, if that was not a clean one.
    """
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _head_of(values: Any, name: str) -> tuple[ShardFacts, str]:
    number = values.get("vipsrv_journal") if isinstance(values, dict) else None
    if not isinstance(number, int):
        raise ValueError("it does not describe a shard")  # noqa: TRY004 - one error for every fault of a line
    if number > FORMAT:
        raise BatchError(
            f"the journal {name} has the format {number}, and this version of vipsrv knows {FORMAT}: use a "
            "newer one"
        )
    known = {name: values[name] for name in ShardFacts.__slots__ if isinstance(values.get(name), str)}
    if len(known) < len(ShardFacts.__slots__):
        raise ValueError("it does not describe a shard")
    return ShardFacts(**known), str(values.get("boot", ""))


class Journal:
    """The journal of a shard that this process runs: open, locked, and appended to.

    ``rows`` are those that a dead process has left in the journal of the same shard; their images need not be
    done again.
    """

    def __init__(self, path: Path, descriptor: int, *, length: int = 0, rows: tuple[Row, ...] = ()) -> None:
        """``descriptor`` is the file, opened and locked; ``length`` is how much of it is whole lines."""
        self.path = path
        self.rows = rows
        self._descriptor = descriptor
        self._length = length
        self._failure: StorageFailed | None = None

    @classmethod
    def begin(cls, folder: Path, facts: ShardFacts) -> Self:
        """Begin the journal of a shard, or go on with one that a dead process has left.

        Raises ``StorageFailed`` if the folder cannot be written to.
        """
        try:
            for path in _paths(folder, facts.shard):
                journal = cls._begin_at(path, facts)
                if journal is not None:
                    return journal
        except OSError as error:
            raise StorageFailed(str(folder), error.strerror or str(error)) from None
        raise AssertionError  # there is no last path

    @classmethod
    def _begin_at(cls, path: Path, facts: ShardFacts) -> Self | None:
        """Return the journal in this file, or ``None`` if another process has it or it is another shard's."""
        descriptor = _open_locked(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        if descriptor is None:
            return None
        with ExitStack() as unless_begun:
            unless_begun.callback(os.close, descriptor)
            left = parse_journal(path.read_bytes(), path.name)
            if left.faults or left.facts not in {None, facts} or left.boot != boot_id():
                return None
            os.ftruncate(descriptor, left.length)  # without the torn line
            journal = cls(path, descriptor, length=left.length, rows=left.rows)
            if left.facts is None:
                head = {"vipsrv_journal": FORMAT, "boot": boot_id()}
                head |= {one: getattr(facts, one) for one in facts.__slots__}
                journal._write(json.dumps(head).encode() + b"\n")
            unless_begun.pop_all()
        return journal

    def append(self, row: Row) -> None:
        """Append a row by one system call: it survives the death of this process from here on.

        Raises ``StorageFailed`` if it cannot be written as a whole; the rows before it stay whole, and the
        journal takes no further ones.
        """
        self._write(row_line(row))

    def _write(self, line: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            self._fail(error)
        if written < len(line):  # as much as the disk had room for
            self._fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        self._length += len(line)

    def _fail(self, error: OSError) -> NoReturn:
        with suppress(OSError):  # readers drop a torn line at the end as well
            os.ftruncate(self._descriptor, self._length)
        place = str(self.path)
        self._failure = storage_failure(place, error, writing=True) or StorageFailed(
            place, error.strerror or str(error)
        )
        raise self._failure from None

    def content(self) -> JournalContent:
        """Read what the journal holds. Raises ``StorageFailed``, also if another program has removed it."""
        try:
            return read_journal(self.path)
        except FileNotFoundError:
            raise StorageFailed(
                str(self.path),
                "another program has removed it, with the rows of a shard; the same command does its images "
                "again",
            ) from None

    def close(self) -> None:
        """Give the journal up: another process may go on with it, or publish it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def set_aside(self) -> None:
        """Rename a damaged journal, so that it is kept and read no more."""
        self.path.rename(self.path.with_name(f"{self.path.name}.damaged"))
        self.close()

    def remove(self) -> None:
        """Remove the file, after its rows are published."""
        self.path.unlink(missing_ok=True)
        self.close()


def claim_left_journal(path: Path) -> int | None:
    """Lock a journal that was left and return its descriptor; ``None`` if its writer lives, or it is gone."""
    try:
        return _open_locked(path, os.O_RDWR)
    except FileNotFoundError:
        return None


def journals_in(folder: Path) -> list[Path]:
    """Return the journals in a folder, which may not exist, in the order of their names."""
    return sorted(folder.glob(f"*{ENDING}"))


def _open_locked(path: Path, flags: int) -> int | None:
    """Open and lock a file; ``None`` if another process has locked it.

    It may be removed between the two steps: then a lock on it would keep nobody from anything, and it is
    opened again.
    """
    while True:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
        try:
            lock_file(descriptor, path)
        except Locked:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        if is_same_file(descriptor, path):
            return descriptor
        os.close(descriptor)


def _paths(folder: Path, shard: str) -> Iterator[Path]:
    """Yield the names that the journal of a shard may have, the usual one first."""
    yield folder / f"{shard}{ENDING}"
    number = 2
    while True:  # another process works on the same shard, or the file is damaged
        yield folder / f"{shard}~{number}{ENDING}"
        number += 1
