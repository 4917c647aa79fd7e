"""seccomp: a filter of system calls for all threads of this process, made from ``system_calls.py``.

::

    another architecture's call (32-bit, x32) ──► the process is killed
    allowed ──► the kernel;  allowed with conditions ──► the kernel or EPERM
    an attack and nothing else ──► the process is killed
    any other ──► EPERM
"""

import ctypes
import errno
import os
import platform
import struct

from vipsrv.workers.child.sandbox.libc import syscall
from vipsrv.workers.child.sandbox.system_calls import (
    ALLOWED,
    ANSWERED,
    CONDITIONS,
    DEADLY,
    OWN_PROCESS,
    Architecture,
    Condition,
    architecture,
)

_SET_MODE_FILTER = 1  # linux/seccomp.h
_GET_ACTION_AVAIL = 2
_FLAG_TSYNC = 1
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_ALLOW = 0x7FFF0000

_LOAD, _JUMP_EQUAL, _JUMP_FROM, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06  # linux/filter.h
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32_BIT = 0x40000000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def available() -> bool:
    """Whether this kernel and this architecture have the filter."""
    calls = architecture()
    if calls is None:
        return False
    action = ctypes.c_uint32(_KILL_PROCESS)
    try:
        syscall(calls.seccomp, _GET_ACTION_AVAIL, 0, ctypes.pointer(action))
    except OSError:
        return False
    return True


def restrict() -> None:
    """Filter the system calls of all threads from now on. Needs ``no_new_privs``. Raises ``OSError``."""
    calls = architecture()
    if calls is None:
        raise OSError(errno.ENOSYS, f"there is no list of system calls for {platform.machine()}")
    code = program(calls, os.getpid())
    filter_ = _Program(len(code) // 8, code)
    unsynchronized = syscall(calls.seccomp, _SET_MODE_FILTER, _FLAG_TSYNC, ctypes.pointer(filter_))
    if unsynchronized:
        raise OSError(errno.EBUSY, f"thread {unsynchronized} has a filter of its own")


def program(calls: Architecture, pid: int) -> bytes:
    """Return the filter as a BPF program for ``calls``; ``pid`` is the process that may signal itself."""
    code = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JUMP_EQUAL, calls.audit, 1, 0),
        _step(_RETURN, _KILL_PROCESS),
        _step(_LOAD, _NUMBER),
        _step(_JUMP_FROM, _X32_BIT, 0, 1),
        _step(_RETURN, _KILL_PROCESS),
    ]
    for name in ALLOWED:  # in this order, because the steps are taken one after another
        code += _if_call(calls, name, [*_tests(CONDITIONS.get(name, ()), pid), _step(_RETURN, _ALLOW)])
    for name, number in ANSWERED.items():
        code += _if_call(calls, name, [_step(_RETURN, _ERRNO | number)])
    for name in DEADLY:
        code += _if_call(calls, name, [_step(_RETURN, _KILL_PROCESS)])
    return b"".join([*code, _step(_RETURN, _ERRNO | errno.EPERM)])


def _if_call(calls: Architecture, name: str, then: list[bytes]) -> list[bytes]:
    number = calls.numbers.get(name)
    return [] if number is None else [_step(_JUMP_EQUAL, number, 0, len(then)), *then]


def _tests(conditions: tuple[Condition, ...], pid: int) -> list[bytes]:
    """Return EPERM unless all conditions hold. Only the lower half of an argument is tested."""
    code = []
    for one in conditions:
        code += [
            _step(_LOAD, _ARGUMENTS + 8 * one.argument),
            _step(_AND, one.mask),
            _step(_JUMP_EQUAL, pid if one.value is OWN_PROCESS else one.value, one.equal, not one.equal),
            _step(_RETURN, _ERRNO | errno.EPERM),
        ]
    return code


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, if_true, if_false, value)
