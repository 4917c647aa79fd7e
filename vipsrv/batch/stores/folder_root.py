"""The folder of a source or a destination: whether it is still there, and still the same."""

import os
from pathlib import Path

from vipsrv.errors import StorageFailed


class FolderRoot:
    """The root folder of a store. It is watched: what is mounted there may go while a batch runs.

    The file system is compared, because a mount point without its mount is a folder, too: images would be
    missing, and results would go to the wrong disk.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser().resolve()
        self._text = str(self.path)
        self._device: int | None = None

    @property
    def url(self) -> str:
        """The path."""
        return self._text

    def exists(self) -> bool:
        """Whether there is a folder. Once one was seen, raises ``StorageFailed`` if it is gone."""
        try:
            found = os.stat(self._text)  # noqa: PTH116 - for each result: a Path takes longer
        except (FileNotFoundError, NotADirectoryError):
            if self._device is not None:
                raise StorageFailed(
                    self.url, "the folder is gone; make it available again, then run the same command again"
                ) from None
            return False
        except OSError as error:
            raise StorageFailed(self.url, f"{error.strerror}") from error
        if self._device is None:
            if not self.path.is_dir():
                raise StorageFailed(self.url, "it is not a folder")
            self._device = found.st_dev
        elif found.st_dev != self._device:
            raise StorageFailed(
                self.url,
                "another file system is there now; mount the first one again, then run the command again",
            )
        return True

    def require(self) -> None:
        """Raise ``StorageFailed`` if there is no folder."""
        if not self.exists():
            raise StorageFailed(self.url, "there is no such folder")

    def make(self) -> None:
        """Make the folder if there was none so far. Raises ``StorageFailed``."""
        if self.exists():
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageFailed(self.url, f"the folder cannot be made: {error.strerror}") from error
        self.require()
