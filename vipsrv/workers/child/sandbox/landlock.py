"""Landlock: no files, no TCP, and no signals or abstract sockets to processes outside (Linux 5.13 and later).

A domain holds for the thread that enters it and for all threads that this one starts; it can only be made
narrower. What each version of the interface (ABI) covers: man 7 landlock.
"""

import ctypes
import os

from vipsrv.workers.child.sandbox.libc import syscall

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_ASK_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3

NETWORK_ABI = 4
"""The first version that can deny TCP."""

SCOPE_ABI = 6
"""The first version that can deny signals and abstract unix sockets."""

_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
"""Rights on files that each version added: 13 at first, then REFER, TRUNCATE, IOCTL_DEV."""

_BIND_AND_CONNECT = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def version() -> int:
    """Return the version of the kernel's Landlock interface, 0 if there is none."""
    try:
        return syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    except OSError:  # ENOSYS, EOPNOTSUPP (not enabled at boot), EPERM (an outer filter)
        return 0


def restrict(*, may_read: bool = False) -> int:
    """Enter a domain that denies everything that this kernel's Landlock can, and return its version.

    ``may_read`` leaves reading of files. Needs ``no_new_privs``. Raises ``OSError``.
    """
    abi = version()
    files = sum(bits for first, bits in _FILES.items() if first <= abi)
    ruleset = _Ruleset(
        files,
        _BIND_AND_CONNECT if abi >= NETWORK_ABI else 0,
        _ABSTRACT_SOCKETS_AND_SIGNALS if abi >= SCOPE_ABI else 0,
    )
    # An older kernel does not know the later fields; they are zero and may be left away.
    size = 8 if abi < NETWORK_ABI else 16 if abi < SCOPE_ABI else 24
    descriptor = syscall(_CREATE_RULESET, ctypes.pointer(ruleset), size, 0)
    try:
        if may_read:
            _allow_reading(descriptor)
        syscall(_RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)
    return abi


def _allow_reading(ruleset: int) -> None:
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(_EXECUTE | _READ_FILE | _READ_DIR, root)
        syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.pointer(rule), 0)
    finally:
        os.close(root)
