"""Keeps what has arrived of uploads, and lends it to the connections and requests that go on with them.

::

    create ──────┐                       ┌── file below the spool folder, found by other processes
    open ◄───────┼── Upload, its state ──┤
    status ──────┘                       └── chunks of the spool's memory
    terminate

An upload in memory is written to a file if too many bytes wait there, and always if other processes have to
find it: beside other gateways, and before this process ends. A file that nobody uses is not open: whoever
is asked for it opens it by its name (``folder.py``). All waiting uploads are within the budgets of the
spool, and go when others need the room (``idle.py``).
"""

import asyncio
import logging
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from vipsrv.errors import BadRequest, Busy, RequestError, UploadConflict
from vipsrv.server.accounts import Account
from vipsrv.server.settings import ServerSettings
from vipsrv.server.uploads.files import UploadFiles
from vipsrv.server.uploads.folder import StoredUpload, UploadInfo
from vipsrv.server.uploads.idle import MOST, MOST_OF_CLIENT, IdleUploads
from vipsrv.server.uploads.states import IDLE, UploadState
from vipsrv.server.uploads.terms import NOT_OFFERED, UploadStatus, in_other_connection
from vipsrv.server.uploads.upload import Upload
from vipsrv.storage.budget import Share
from vipsrv.storage.file_slot import FileSlot
from vipsrv.storage.file_store import SpoolFile, no_room
from vipsrv.storage.kept_slot import KeptSlot
from vipsrv.storage.memory_slot import MemorySlot
from vipsrv.storage.spool import Spool
from vipsrv.worker_config import IN_MEMORY_SIZE

_TURN_SECONDS = 0.04
"""How long the event loop gets to read what has arrived at a connection that cannot do it by itself."""

_PATIENCE_SECONDS = 1.0
"""How long a connection that lets its upload go may still take what has arrived, if the disk is behind."""

_LOOK_SECONDS = 0.5
"""Seconds between two looks whether another process wants an upload that this one has open."""

_LOOKED_AT_ONCE = 64
"""How many files are looked at, each 5 seconds, whether another process has taken them: 2 ms."""

_EXPIRY_SECONDS = 5.0
"""Seconds between two looks for uploads that have expired."""

_CLAIM_SECONDS = 30.0
"""Seconds between two looks for uploads of processes that have ended."""

_SETTLE_SECONDS = 10.0
"""Seconds that writing the last bytes may take when the server stops."""

SPENT_SECONDS = 60.0
"""Seconds for which an upload is kept after a reply about it, in case that was lost. Most large uploads end
so: to keep them longer would fill the disk with what nobody asks for."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class UploadCounts:
    """What has happened since the start."""

    resumed: int = 0
    """Requests that went on with an upload."""
    saved: int = 0
    """Bytes that these did not have to send again."""
    expired: int = 0
    evicted: int = 0
    """Uploads that were removed before they expired, because room was needed."""


class Uploads:
    """The uploads of the clients of ``spool``.

    If they are ``shared``, other processes have to find those that wait at any time.
    """

    def __init__(self, spool: Spool, settings: ServerSettings, *, shared: bool = False) -> None:
        self.counts = UploadCounts()
        self.idle = IdleUploads()
        self._spool = spool
        self._settings = settings
        self._beside_others = shared
        self._shared = shared
        self._files = UploadFiles(settings.spool_dir, spool.files)
        self._known: dict[str, Upload] = {}
        self._leftovers = Share()
        self._look_at = self._expire_at = self._claim_at = 0.0
        self._looked_at = 0  # how many of those that wait, since the first of them
        spool.files.make_room = partial(self._make_room, in_memory=False)
        spool.chunks.make_room = partial(self._make_room, in_memory=True)

    @property
    def offered(self) -> bool:
        """Whether uploads are kept at all."""
        return self._files.works and self._settings.upload_ttl > 0

    @property
    def receiving(self) -> int:
        """How many uploads are being received or worked on."""
        return len(self._known) - len(self.idle)

    @property
    def max_size(self) -> int:
        """Bytes of the largest upload that may wait."""
        settings = self._settings
        return int(min(settings.max_upload, settings.upload_disk, settings.spool_disk))

    def describe(self) -> dict[str, int]:
        """Return what a HELLO reply says about uploads."""
        return {"ttl_s": math.ceil(self._settings.upload_ttl), "max_bytes": self.max_size}

    def start(self) -> None:
        """Find the uploads that earlier processes have left, and remove those that have expired."""
        self._claim_at = time.monotonic() + _CLAIM_SECONDS
        self._files.claim(self._settings.upload_ttl, self._claimed)

    # What connections ask

    def create(self, account: Account, upload_id: str, size: int, metadata: bytes = b"") -> UploadStatus:
        """Begin an upload without bytes. Raises ``RequestError``, also if there is one with this id."""
        name = self._name(account, upload_id)
        if self._find(name) is not None or self._look(name).size is not None:
            raise UploadConflict("there is an upload with this id already")
        upload = Upload(self, name, size, account.share, metadata)
        upload.is_created = True
        upload.changed = time.time()
        upload.content = MemorySlot(self._spool.chunks, account.share.memory, size)
        self._known[name] = upload
        self._settle(upload)
        if upload.state is UploadState.REMOVED:
            raise no_room()
        return self._status_of(upload)

    def status(self, account: Account, upload_id: str) -> UploadStatus:
        """Return how much is held of an upload. The connection that is filling it lets it go.

        Raises ``Busy`` if that takes a moment.
        """
        name = self._name(account, upload_id)
        upload = self._find(name)
        return self._look(name) if upload is None else self._status_of(upload)

    def open(self, account: Account, upload_id: str, size: int, offset: int) -> KeptSlot:
        """Lend an upload, to fill it from ``offset`` on or, if that is all, to work on it.

        An ``offset`` of 0 begins it anew. Raises ``UploadConflict`` if it is not as far as that, ``Busy``.
        """
        name = self._name(account, upload_id)
        upload = self._find(name) or self._adopt(name, account.share)
        if offset == 0 and not (upload is not None and upload.received == 0 and upload.size == size):
            if upload is not None:
                self._remove(upload)
            return self._begin(name, size, account.share)
        if upload is None or upload.size != size or upload.received != offset:
            held = 0 if upload is None else upload.received
            of = "" if upload is None or upload.size == size else f" of {upload.size}"
            raise UploadConflict(
                f"upload: the server holds {held}{of} bytes of this upload, which does not go with an offset "
                f"of {offset} of {size}"
            )
        if upload.share is self._leftovers:
            self._pass_on(upload, account.share)
        if offset:
            self.counts.resumed += 1
            self.counts.saved += offset
        return self._lend(upload)

    def terminate(self, account: Account, upload_id: str) -> bool:
        """Remove an upload; return whether there was one. Raises ``Busy`` if it is in use."""
        name = self._name(account, upload_id)
        upload = self._find(name) or self._adopt(name, account.share)
        if upload is not None:
            self._remove(upload)
        return upload is not None

    # What slots that were lent tell

    def returned(self, upload: Upload, slot: KeptSlot) -> None:
        """Take back what was lent."""
        upload.content = slot.content
        upload.leases.remove(slot)
        if upload.leases:
            return
        if upload.state is UploadState.REMOVED:
            upload.content.close()
            return
        if upload.state is UploadState.RECEIVING:
            upload.changed = time.time()
        upload.wanted_at = None
        upload.enter(UploadState.SETTLING)
        self._settle(upload)

    def replied(self, upload: Upload) -> None:
        """Note that a reply about an upload was sent: it is the first to go if room is needed."""
        is_idle = upload.state in IDLE
        if is_idle:
            self.idle.discard(upload)
        upload.replied_at = time.time()
        if is_idle:
            self.idle.add(upload)

    # What the gateway does

    def change_settings(self, settings: ServerSettings) -> None:
        """Use other settings from now on."""
        self._settings = settings
        self._keep_within_bounds()
        self._expire_at = 0.0

    def watch(self, now: float) -> None:
        """Let go what other processes want, and remove what has expired."""
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            self._let_go_what_is_wanted()
        if now >= self._expire_at:
            self._expire_at = now + _EXPIRY_SECONDS
            self._expire()
            self._forget_what_others_have()
        if now >= self._claim_at:
            self._claim_at = now + _CLAIM_SECONDS
            self._files.claim_aside(self._settings.upload_ttl, self._claimed)

    def share(self, shared: bool) -> None:  # noqa: FBT001 - one of two states
        """Say whether another server accepts the same clients, and has to find their uploads from now on.

        If so, files of all of them exist when this returns; one that is still written is found as busy.
        """
        self._shared = shared or self._beside_others
        if not self._shared:
            return
        for upload in list(self._known.values()):
            if upload.state in IDLE and upload.content is not None:
                self.idle.discard(upload)
                upload.enter(UploadState.SETTLING)
                self._settle(upload)
            elif upload.state is UploadState.RECEIVING and upload.received < upload.size:
                with suppress(Busy):  # it is then found when it waits
                    upload.leases[0].move_to_file()

    async def close(self) -> None:
        """Write what still has to be written; the connections and requests have ended."""
        self.share(True)
        give_up = time.monotonic() + _SETTLE_SECONDS
        while any(one.state is UploadState.SETTLING for one in self._known.values()):
            if time.monotonic() > give_up:
                _log.error("uploads could not be written before the stop")
                break
            await asyncio.sleep(0.01)
        for upload in list(self._known.values()):
            if upload.content is not None:
                self._remove(upload)
        self._known = {}
        self._files.close()

    # How it is done

    def _name(self, account: Account, upload_id: str) -> str:
        """Return the name of an upload. Raises ``BadRequest`` if no uploads are kept."""
        if not self.offered:
            raise BadRequest(NOT_OFFERED)
        return self._files.name_of(account.owner, upload_id)

    def _begin(self, name: str, size: int, share: Share) -> KeptSlot:
        upload = Upload(self, name, size, share)
        slot = self._slot(upload)  # or there is no room, and nothing has changed
        if self._shared:
            with suppress(Busy):  # it then begins in memory, where others do not see it before it waits
                slot.move_to_file()
        upload.leases.append(slot)
        upload.enter(UploadState.RECEIVING)
        self._known[name] = upload
        return slot

    def _lend(self, upload: Upload) -> KeptSlot:
        if upload.present_content is None:
            self._reopen(upload)
        content = upload.present_content
        if isinstance(content, FileSlot):
            if not upload.leases:
                content.reopen(upload.size)
            content.on_progress = upload.progressed
        slot = self._slot(upload)
        self.idle.discard(upload)
        if not upload.leases:
            upload.enter(UploadState.RECEIVING if upload.received < upload.size else UploadState.READING)
        upload.leases.append(slot)
        return slot

    def _slot(self, upload: Upload) -> KeptSlot:
        return KeptSlot(
            self._spool,
            upload.share,
            upload.size,
            keeper=upload,
            make_file=partial(self._make_file, upload),
            content=upload.present_content,
        )

    def _make_file(self, upload: Upload, share: Share) -> SpoolFile:
        """Create the file of an upload. Raises ``OSError``, or ``Busy`` if another process just did."""
        info = UploadInfo(upload.size, upload.metadata, upload.is_created)
        return self._files.make(upload.name, info, share)

    def _pass_on(self, upload: Upload, share: Share) -> None:
        """Count an upload of an earlier process for the client that goes on with it."""
        self.idle.discard(upload)
        self._spool.files.forget(upload.share, upload.stored)
        upload.share = share
        self._spool.files.count(share, upload.stored)
        self.idle.add(upload)

    def _reopen(self, upload: Upload) -> None:
        """Open the file of an upload. Raises ``RequestError`` if it cannot be."""
        files = self._spool.files
        files.check_reopen(upload.share)
        file = self._files.reopen(upload.name, upload.share)
        if file is None:
            self._forget(upload)
            raise UploadConflict("upload: the server holds 0 bytes of this upload")
        self.idle.discard(upload)  # before its size on the disk becomes that of an open file
        upload.stored = 0
        files.reopened(file)
        upload.content = FileSlot(self._spool.chunks, self._spool.files, file, upload.size, upload.progressed)

    def _adopt(self, name: str, share: Share) -> Upload | None:
        """Take an upload that this process does not know from its file. Raises ``Busy``."""
        stored = self._files.stored(name, self._settings.upload_ttl)
        if stored is not None:
            self._count(stored, share)
        return self._known.get(name)  # or there was no room for it

    def _count(self, stored: StoredUpload, share: Share) -> None:
        """Count an upload in a file that nobody has open as one that waits in this process."""
        upload = Upload(self, stored.name, stored.info.size, share, stored.info.metadata)
        upload.is_created = stored.info.is_created
        upload.stored = stored.received
        upload.changed = stored.changed
        self._spool.files.count(share, upload.stored)
        self._known[upload.name] = upload
        self._rest(upload)

    def _look(self, name: str) -> UploadStatus:
        """Return how much is stored of an upload that this process does not know. Raises ``Busy``."""
        stored = self._files.stored(name, self._settings.upload_ttl)
        if stored is None:
            return UploadStatus()
        expires = stored.changed + self._settings.upload_ttl
        return UploadStatus(stored.received, stored.info.size, expires, stored.info.metadata)

    def _status_of(self, upload: Upload) -> UploadStatus:
        # What another connection has begun without a byte is as if it were not there.
        if not upload.received and not upload.is_created:
            return UploadStatus()
        return UploadStatus(upload.received, upload.size, self._expires(upload), upload.metadata)

    def _find(self, name: str) -> Upload | None:
        """Return an upload that this process knows and that nobody fills. Raises ``Busy``."""
        upload = self._known.get(name)
        if upload is None:
            return None
        if upload.is_filled:
            self._let_go(upload)
        if upload.state is UploadState.RECEIVING:
            upload.changed = time.time()
            upload.enter(UploadState.READING)
        if upload.state is UploadState.SETTLING and upload.is_splicing:
            raise in_other_connection()
        if upload.state in IDLE:
            if self._expires(upload) < time.time():
                self.counts.expired += self._remove_unused(upload)
            elif upload.content is None:
                self._refresh(upload)
        return self._known.get(name)

    def _refresh(self, upload: Upload) -> None:
        """Forget an upload whose file another process has taken since. Raises ``Busy``."""
        if not self._files.is_here(upload.name):
            self._forget(upload)

    def _let_go(self, upload: Upload) -> None:
        """Make the connection that fills an upload put in what has arrived, and end. Raises ``Busy``."""
        (slot,) = upload.leases
        now = time.monotonic()
        if upload.wanted_at is None:
            upload.wanted_at = now
        slot.is_wanted = True
        if slot.on_taken is None or upload.is_splicing:
            raise in_other_connection()
        if slot.needs_turn and now < upload.wanted_at + _TURN_SECONDS:
            raise in_other_connection()
        if slot.stalled and now < upload.wanted_at + _PATIENCE_SECONDS:
            raise in_other_connection()
        slot.on_taken()
        if upload.is_filled:
            raise in_other_connection()

    def _settle(self, upload: Upload) -> None:
        """Go on with an upload that nobody uses: write what is to be written, then let it wait."""
        content = upload.content
        if not (upload.received or upload.is_created):
            self._remove(upload)
            return
        if isinstance(content, MemorySlot):
            in_memory = not self._shared and upload.size <= IN_MEMORY_SIZE
            if in_memory and self.idle.memory + content.held <= self._settings.upload_memory:
                self._rest(upload)
                return
            try:
                make_file = partial(self._make_file, upload)
                file = self._spool.files.create(upload.share, upload.received, make_file)
            except Busy:
                self.counts.evicted += 1
                self._remove(upload)
                return
            content = upload.content = FileSlot(
                *(self._spool.chunks, self._spool.files, file, upload.received),
                partial(self._settle, upload),
                memory=content,
            )
        if isinstance(content, FileSlot):
            content.on_progress = partial(self._settle, upload)
            content.end()
            try:
                is_stored = content.complete
            except RequestError:  # the disk has failed
                self._remove(upload)
                return
            if is_stored:
                upload.stored = self._spool.files.park(content.detach())
                upload.content = None
                self._rest(upload)

    def _rest(self, upload: Upload) -> None:
        is_complete = upload.received == upload.size
        upload.enter(UploadState.COMPLETE if is_complete else UploadState.WAITING)
        self.idle.add(upload)
        self._keep_within_bounds(upload.share)

    def _keep_within_bounds(self, share: Share | None = None) -> None:
        """Remove those uploads first that go first, until no budget is exceeded."""
        idle, settings = self.idle, self._settings
        while share is not None and share is not self._leftovers and share.uploads > MOST_OF_CLIENT:
            self._evict(idle.first(share=share))
        while len(idle) > MOST:
            self._evict(idle.first())
        while idle.disk > settings.upload_disk:
            self._evict(idle.first(in_memory=False))
        while idle.memory > settings.upload_memory:
            self._evict(idle.first(in_memory=True))

    def _make_room(self, share: Share | None, *, in_memory: bool) -> bool:
        """Remove an upload that waits, of one client or of any, for one that needs the room now."""
        upload = self.idle.first(share=share, in_memory=in_memory)
        if upload is None:
            return False
        self._evict(upload)
        return True

    def _evict(self, upload: Upload | None) -> None:
        if upload is None:
            raise RuntimeError("no upload waits, but their bytes count")
        self.counts.evicted += self._remove_unused(upload)

    def _remove_unused(self, upload: Upload) -> bool:
        """Remove an upload that waits, unless another process has it now; return whether it is removed."""
        if upload.content is None and not self._files.is_here(upload.name):
            self._forget(upload)
            return False
        self._remove(upload)
        return True

    def _remove(self, upload: Upload) -> None:
        """Remove an upload; requests that work on it keep its bytes."""
        content, stored = upload.present_content, upload.stored
        self.idle.discard(upload)
        upload.enter(UploadState.REMOVED)
        self._known.pop(upload.name, None)
        if not isinstance(content, MemorySlot):
            self._files.remove(upload.name)
        if upload.leases:
            return
        if content is not None:
            content.close()
        else:
            self._spool.files.forget(upload.share, stored)

    def _forget(self, upload: Upload) -> None:
        """Stop counting an upload that waits in a file, which another process has now."""
        self.idle.discard(upload)
        upload.enter(UploadState.REMOVED)
        self._known.pop(upload.name, None)
        self._spool.files.forget(upload.share, upload.stored)

    def _expires(self, upload: Upload) -> float:
        """Return when an upload is removed, in Unix time."""
        expires = (upload.changed or time.time()) + self._settings.upload_ttl
        if upload.replied_at is None or upload.is_created:
            return expires
        return min(expires, upload.replied_at + SPENT_SECONDS)

    def _expire(self) -> None:
        now = time.time()
        for upload in list(self.idle):
            if self._expires(upload) < now:
                self.counts.expired += self._remove_unused(upload)

    def _let_go_what_is_wanted(self) -> None:
        for upload in list(self._known.values()):
            if not (upload.is_filled and isinstance(upload.present_content, FileSlot)):
                continue
            if upload.wanted_at is not None or self._files.is_wanted(upload.name):
                with suppress(Busy):  # soon again
                    self._let_go(upload)

    def _forget_what_others_have(self) -> None:
        """Stop counting files that another process has taken; a few at a time, as each is looked at."""
        waiting = [one for one in self.idle if one.content is None]
        if not waiting:
            return
        self._looked_at %= len(waiting)
        part = waiting[self._looked_at : self._looked_at + _LOOKED_AT_ONCE]
        self._looked_at += _LOOKED_AT_ONCE
        for upload in part:
            if not self._files.is_here(upload.name):
                self._forget(upload)

    def _claimed(self, found: list[StoredUpload]) -> None:
        """Count uploads that are now this process's."""
        for one in found if self._files.works else ():
            if one.name in self._known or not self._files.is_here(one.name):
                continue  # a client has asked for it meanwhile
            self._count(one, self._leftovers)
