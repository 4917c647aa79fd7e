"""Which errors of a file system are about one file, and which mean that nothing there can be used."""

import errno
import os
from collections.abc import Mapping

from vipsrv.errors import StorageFailed

_ADVICE: Mapping[int, str] = {
    errno.ENOSPC: "make room there, then run the same command again",
    errno.EDQUOT: "make room there or raise the quota, then run the same command again",
    errno.EROFS: "mount it writable or name another destination, then run the same command again",
    errno.ENODEV: "make it available again, then run the same command again",
    errno.ENXIO: "make it available again, then run the same command again",
    errno.ESTALE: "mount it again, then run the same command again",
    errno.ENOTCONN: "mount it again, then run the same command again",
    errno.EHOSTDOWN: "run the same command again when its server answers",
    errno.EHOSTUNREACH: "run the same command again when its server answers",
    errno.ETIMEDOUT: "run the same command again when its server answers",
    errno.EMFILE: "raise the limit of open files (ulimit -n), then run the same command again",
    errno.ENFILE: "raise the system's limit of open files, then run the same command again",
}
"""What to do about an error that every other file would get, too."""

_WHEN_WRITING: Mapping[int, str] = {
    errno.EIO: "check the disk, then run the same command again",
    errno.EACCES: "allow writing there or name another destination, then run the same command again",
    errno.EPERM: "allow writing there or name another destination, then run the same command again",
}
"""When a result is written, these are about the place, too. A single image that cannot be read is a row."""


def storage_failure(place: str, error: OSError, *, writing: bool = False) -> StorageFailed | None:
    """Return what to raise if the ``place`` itself cannot be used, or ``None`` if only one file is."""
    if error.errno is None:
        return None
    advice = _ADVICE.get(error.errno) or (_WHEN_WRITING.get(error.errno) if writing else None)
    if advice is None:
        return None
    return StorageFailed(place, f"{os.strerror(error.errno)}; {advice}")
