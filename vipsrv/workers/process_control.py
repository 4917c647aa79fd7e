"""What a process of the server asks of the kernel for itself (``prctl``, Linux only)."""

import ctypes
import os
import sys
from typing import Any

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


def forbid_inspection() -> None:
    """Close this process to others of the same user (``PR_SET_DUMPABLE`` 0).

    They cannot read or write its memory, trace it, or take its descriptors. It leaves no core dump either.
    Raises ``OSError``.
    """
    if sys.platform == "linux":
        prctl(_PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Become the parent of every process whose parent among our descendants has ended. Raises ``OSError``."""
    if sys.platform == "linux":
        prctl(_PR_SET_CHILD_SUBREAPER, 1)


def adopts_orphans() -> bool:
    """Whether ``adopt_orphans`` was called, or this is the first process of its container."""
    if sys.platform != "linux":
        return False
    answer = ctypes.c_int()
    try:
        prctl(_PR_GET_CHILD_SUBREAPER, ctypes.pointer(answer))
    except OSError:  # refused: then it was to ``adopt_orphans``, too, which is logged
        answer.value = 0
    return bool(answer.value) or os.getpid() == 1


def prctl(option: int, argument: "int | ctypes._Pointer[Any]") -> None:
    """Set or get an attribute of this process (man 2 prctl). Raises ``OSError``."""
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    word = ctypes.c_ulong(argument) if isinstance(argument, int) else argument
    if libc.prctl(option, word, zero, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
