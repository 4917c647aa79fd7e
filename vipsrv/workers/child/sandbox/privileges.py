"""Give up privileges: the user of the gateway, set-user-id programs, being traced and dumped."""

import os

from vipsrv.workers.child.sandbox.libc import prctl

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38

_FIRST_OWN_UID = 0x70000000
"""The process id is added. The numbers up to 0x703FFFFF are given to no user and no container
(systemd, docs/UIDS-GIDS.md), and each worker that runs has another one."""


def gain_no_privileges() -> None:
    """Keep this process, and any program that it runs, from gaining privileges (``no_new_privs``)."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def forbid_dumps() -> None:
    """Keep processes of the same user from reading this process through /proc and ptrace."""
    prctl(_PR_SET_DUMPABLE, 0)


def change_user(uid: int) -> int:
    """Change from root to the user and group ``uid``, or to one of this process's own if that is 0.

    Returns the number. A change clears the signal for the parent's death. Raises ``OSError``.
    """
    uid = uid or _FIRST_OWN_UID + os.getpid()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)  # drops all capabilities, too
    return uid
