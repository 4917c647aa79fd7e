"""Give up privileges: the user of the gateway, and set-user-id programs."""

import os

from vipsrv.workers.process_control import prctl

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h

_FIRST_OWN_UID = 0x70000000
"""The process id is added. The numbers up to 0x703FFFFF are given to no user and no container
(systemd, docs/UIDS-GIDS.md), and each worker that runs has another one."""


def gain_no_privileges() -> None:
    """Keep this process, and any program that it runs, from gaining privileges (``no_new_privs``)."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def change_user(uid: int) -> int:
    """Change from root to the user and group ``uid``, or to one of this process's own if that is 0.

    Returns the number. A change clears the signal for the parent's death. Raises ``OSError``.
    """
    uid = uid or _FIRST_OWN_UID + os.getpid()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)  # drops all capabilities, too
    return uid
