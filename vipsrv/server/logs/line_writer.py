"""Writes lines to a descriptor, and knows which of them are lost if they cannot all be written."""

import os
import select
from collections.abc import Sequence


class LineWriter:
    """Writes lines to ``descriptor``. A line that a full disk cuts does not spoil the next one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._cut = False  # whether only a part of the last line was written

    def write(self, lines: Sequence[bytes]) -> int:
        """Write the lines, wait for a reader as long as it takes, and return how many are written whole."""
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
