"""The file to which the log is appended, open for writing."""

import os
from pathlib import Path

from vipsrv.errors import SettingsError

_MODE = 0o640
"""Of a new file: the lines have addresses of clients, which are not for every user of the machine."""

# Not blocking: a named pipe that nobody reads is refused at once. The thread waits for one that is full.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK


class LogFile:
    """The file at ``path``, which is created if it is missing, until ``close`` or the end of this object.

    A file that root creates is given to the ``owner``, a user and a group id: the user that the server
    changes to opens it again at each reload. Raises ``SettingsError`` if it cannot be opened.
    """

    def __init__(self, path: Path, owner: tuple[int, int] | None = None) -> None:
        self.descriptor = -1
        try:
            try:
                # So that neither a file of before nor the target of a link changes hands.
                self.descriptor = os.open(path, _FLAGS | os.O_EXCL, _MODE)
            except FileExistsError:
                self.descriptor = os.open(path, _FLAGS, _MODE)
            else:
                if owner is not None and not os.geteuid():
                    os.fchown(self.descriptor, *owner)
        except OSError as error:
            raise SettingsError(
                f"log_file: {path} cannot be opened: {error.strerror or error}; name a file in a folder that "
                "the server may write to"
            ) from None

    def close(self) -> None:
        """Close it; further calls have no effect."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        # A file that was opened for a reload that was then refused.
        self.close()
