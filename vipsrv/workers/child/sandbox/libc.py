"""System calls that Python does not offer, by ctypes."""

import ctypes
import os
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
if hasattr(_libc, "syscall"):
    _libc.syscall.restype = ctypes.c_long


def syscall(number: int, *arguments: "int | ctypes._Pointer[Any] | None") -> int:
    """Make a system call by its number. Raises ``OSError``."""
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
