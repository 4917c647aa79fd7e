"""The files of uploads as a gateway uses them: what fails there becomes a refusal or a line in the log."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from vipsrv.errors import BadRequest
from vipsrv.server.uploads.folder import InUseError, StoredUpload, UploadFolder, UploadInfo
from vipsrv.server.uploads.terms import NOT_OFFERED, in_other_process
from vipsrv.storage.budget import Share
from vipsrv.storage.file_store import FileStore, SpoolFile

Claimed = Callable[[list[StoredUpload]], None]
"""Takes the uploads that this process has to count from now on."""

_log = logging.getLogger(__name__)


class UploadFiles:
    """The files below the folder ``spool``, which count in ``store``.

    No uploads are kept unless this ``works``. All methods raise ``Busy`` while another process has the file,
    and if it cannot be known what is in it.
    """

    def __init__(self, spool: Path, store: FileStore) -> None:
        self.works = True
        self.folder = UploadFolder(spool)
        self._store = store

    def name_of(self, owner: str, upload_id: str) -> str:
        """Return the name of an upload. Raises ``BadRequest`` if no uploads are kept."""
        if self.works:
            try:
                return self.folder.name_of(owner, upload_id)
            except OSError as error:
                self._give_up(error)
        raise BadRequest(NOT_OFFERED)

    def make(self, name: str, info: UploadInfo, share: Share) -> SpoolFile:
        """Create the file of an upload. Raises ``OSError`` as well."""
        try:
            return self.folder.create(name, info, share)
        except InUseError:
            raise in_other_process() from None

    def reopen(self, name: str, share: Share) -> SpoolFile | None:
        """Open the file of an upload again; ``None`` if there is none."""
        try:
            opened = self.folder.reopen(name, share)
        except InUseError:
            raise in_other_process() from None
        except OSError as error:
            _log.error("the file of an upload cannot be opened: %s", error)
            raise in_other_process() from None
        return None if opened is None else opened[0]

    def stored(self, name: str, ttl: float) -> StoredUpload | None:
        """Return what is stored of an upload, unless it is older than ``ttl`` seconds."""
        try:
            found = self.folder.look(name)
        except InUseError:
            raise in_other_process() from None
        except OSError as error:  # what is there is not known, and must not be taken for nothing
            _log.error("the file of an upload cannot be looked at: %s", error)
            raise in_other_process() from None
        return None if found is None or found.changed + ttl < time.time() else found

    def is_here(self, name: str) -> bool:
        """Whether this process still counts a file that waits."""
        try:
            return self.folder.is_counted_here(name)
        except OSError as error:  # then nothing changes
            _log.error("the folder of uploads cannot be read: %s", error)
            return True

    def is_wanted(self, name: str) -> bool:
        """Whether another process wants an upload that this one has open."""
        with suppress(OSError):  # soon asked again
            return self.folder.is_wanted(name)
        return False

    def remove(self, name: str) -> None:
        """Remove the file of an upload; its bytes are freed in a thread."""
        try:
            trash = self.folder.remove(name)
        except OSError as error:
            _log.error("the file of an upload could not be removed: %s", error)
        else:
            if trash is not None:
                self._store.run_aside(partial(self.folder.free, trash))

    def claim(self, ttl: float, claimed: Claimed) -> None:
        """Claim the uploads of processes that have ended, and remove those older than ``ttl`` seconds."""
        if self.folder.exists:
            try:
                found = self.folder.claim(ttl)
            except OSError as error:
                self._give_up(error)
            else:
                claimed(found)

    def claim_aside(self, ttl: float, claimed: Claimed) -> None:
        """Do the same in a thread, because there may be many files; ``claimed`` is called by the loop."""
        if self.works and self.folder.exists:
            self._store.run_aside(partial(self._claim_aside, ttl, claimed, asyncio.get_running_loop()))

    def close(self) -> None:
        """Count no files any more."""
        self.works = False
        self._store.run_aside(self.folder.close)  # after a claim that may be running

    def _claim_aside(self, ttl: float, claimed: Claimed, loop: asyncio.AbstractEventLoop) -> None:
        try:
            found = self.folder.claim(ttl)
        except OSError as error:
            _log.error("the folder of uploads cannot be read: %s", error)
            return
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(claimed, found)

    def _give_up(self, error: OSError) -> None:
        self.works = False
        _log.error("uploads are not kept any more: %s", error)
