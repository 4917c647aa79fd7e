"""Reads a file that an operator has named, such as one of settings, tokens or certificates.

The event loop reads such files, and a reload reads them again. So it must not wait for a pipe that nobody
writes to, nor read a device without an end.
"""

import errno
import os
import stat
from pathlib import Path


def read_small_file(path: Path, most: int) -> tuple[bytes, int]:
    """Return the content of a file of at most ``most`` bytes, and its mode.

    Raises ``OSError``, also for a pipe and for a file that is larger.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISFIFO(mode):
            raise OSError(errno.ESPIPE, "it is a pipe, which cannot be read again")
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most} bytes")
    return data, mode


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
