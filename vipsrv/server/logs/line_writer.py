"""Writes lines to a descriptor, and knows which of them are lost if they cannot all be written.

Several processes may write to the same descriptor. The kernel appends each write to a file as a whole, but to
a pipe only up to ``PIPE_BUF`` bytes. So lines for a pipe are written in groups of at most that size.
"""

import os
import select
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress


class LineWriter:
    """Writes lines to ``descriptor``. A line that a full disk cuts does not spoil the next one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_pipe = False
        with suppress(OSError):  # closed: writing will fail, too
            self._is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        self._cut = False  # whether only a part of the last line was written

    def write(self, lines: Sequence[bytes]) -> int:
        """Write the lines, wait for a reader as long as it takes, and return how many are written whole."""
        whole = 0
        for group in _groups(lines) if self._is_pipe else [lines]:
            written = self._write_group(group)
            whole += written
            if written < len(group):
                break
        return whole

    def _write_group(self, lines: Sequence[bytes]) -> int:
        data = b"".join(lines)
        missing = len(self._write(b"\n" + data if self._cut else data))
        whole = len(lines)
        while missing > 0 and whole:
            whole -= 1
            missing -= len(lines[whole])
        # Below 0 a line is written in part, and at 1 the break after an earlier one is still missing.
        self._cut = missing != 0
        return whole

    def _write(self, data: bytes) -> bytes:
        """Write as much as possible, and return the rest."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # another process has made the pipe or terminal non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError:  # closed, or a full disk
                break
        return data


def _groups(lines: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Divide lines into groups that a pipe takes as a whole; a longer line is a group of its own."""
    first, size = 0, 0
    for index, line in enumerate(lines):
        if size and size + len(line) > select.PIPE_BUF:
            yield lines[first:index]
            first, size = index, 0
        size += len(line)
    yield lines[first:]
