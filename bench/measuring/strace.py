"""Counts the system calls of a process by ``strace``."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

_TOTAL = re.compile(r"^\s*[\d.]+\s+[\d.]+(?:\s+\d+)?\s+(\d+)(?:\s+\d+)?\s+total$", re.MULTILINE)
_ATTACHED = re.compile(r"Process \d+ attached")


class CannotTrace(Exception):
    """``strace`` is not on the path or may not attach; the message says which."""


class Calls:
    """The system calls of the process ``pid`` and its threads while the ``with`` lasts.

    After the ``with``, ``total`` is their number and ``by_name`` the number for each name, from ``strace
    -c``. A traced process is several times slower, so nothing else can be measured at the same time. Entering
    raises ``CannotTrace``.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.total = 0
        self.by_name: dict[str, int] = {}

    def __enter__(self) -> Self:
        program = shutil.which("strace")
        if program is None:
            raise CannotTrace("strace is not on the path")
        with tempfile.NamedTemporaryFile(prefix="vipsrv-bench-", delete=False) as summary:
            self._summary = Path(summary.name)
        self._strace = subprocess.Popen(
            [program, "-f", "-c", "-o", str(self._summary), "-p", str(self._pid)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._strace.stderr is not None
        said = self._strace.stderr.readline()
        if not _ATTACHED.search(said):
            self._strace.communicate()
            self._summary.unlink()
            raise CannotTrace(f"strace cannot attach: {said.strip() or 'it said nothing'}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._strace.terminate()
        self._strace.communicate()
        text = self._summary.read_text()
        self._summary.unlink()
        self.by_name, self.total = parse_summary(text)


def parse_summary(text: str) -> tuple[dict[str, int], int]:
    """Parse the output of ``strace -c`` into the number of calls by name, and of all calls.

    The output is empty if there was no call. Raises ``ValueError`` for a table without a total.
    """
    if not text.strip():
        return {}, 0
    total = _TOTAL.search(text)
    if total is None:
        raise ValueError(f"a summary of strace without a total: {text!r}")
    rows = (line.split() for line in text.splitlines()[2:])
    calls = {
        row[-1]: int(row[3]) for row in rows if len(row) >= 5 and row[0][0].isdigit() and row[-1] != "total"
    }
    return calls, int(total[1])
