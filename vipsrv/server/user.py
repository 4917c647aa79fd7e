"""Change the server from root to an unprivileged user, once it has bound its listeners."""

import os
import pwd

from vipsrv.errors import StartFailed
from vipsrv.workers.process_control import forbid_inspection


def change_user(user: str) -> None:
    """Change this process to ``user``, a name or number, with its groups. Raises ``StartFailed``."""
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        raise StartFailed(f"--user: this system has no user {user}") from None
    if os.getuid() == os.geteuid() == entry.pw_uid:
        return
    try:
        os.initgroups(entry.pw_name, entry.pw_gid)
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    except PermissionError:
        raise StartFailed(f"--user: only root can change to {user}") from None
    forbid_inspection()  # a change of the user may undo it (sysctl fs.suid_dumpable)
