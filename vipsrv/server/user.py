"""Change the server from root to an unprivileged user, once it has bound its listeners."""

import os
import pwd

from vipsrv.errors import StartFailed
from vipsrv.workers.process_control import forbid_inspection


def ids_of(user: str) -> tuple[int, int] | None:
    """Return the user and group id of a user, a name or number; ``None`` if the system has none."""
    entry = _entry_of(user)
    return None if entry is None else (entry.pw_uid, entry.pw_gid)


def _entry_of(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        return None


def change_user(user: str) -> None:
    """Change this process to ``user``, a name or number, with its groups. Raises ``StartFailed``."""
    entry = _entry_of(user)
    if entry is None:
        raise StartFailed(f"--user: this system has no user {user}")
    if os.getuid() == os.geteuid() == entry.pw_uid:
        return
    try:
        os.initgroups(entry.pw_name, entry.pw_gid)
        # For root, these set the saved ids as well. macOS has no setresuid.
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except OSError as error:
        reason = error.strerror or error
        raise StartFailed(
            f"--user: cannot change to {user}: {reason}; it needs root with SETUID and SETGID"
        ) from None
    forbid_inspection()  # a change of the user may undo it (sysctl fs.suid_dumpable)
