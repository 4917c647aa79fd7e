"""The uploads that nobody uses: in which order they go if room is needed, and how much of it they take.

Those whose reply has been sent go first, and of these and of the others the one that has waited longest.
"""

from collections.abc import Iterator

from vipsrv.server.uploads.upload import Upload
from vipsrv.storage.budget import Share

MOST = 4096
"""How many uploads may wait in one process, however small they are."""

MOST_OF_CLIENT = 256
"""How many of one client."""


class IdleUploads:
    """Uploads in the order in which they began to wait; ``memory`` and ``disk`` are their bytes."""

    def __init__(self) -> None:
        self._waiting: dict[Upload, int] = {}  # with the memory that is counted
        self._spent: dict[Upload, int] = {}
        self.memory = 0
        self.disk = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._waiting) + len(self._spent)

    def __iter__(self) -> Iterator[Upload]:
        """Yield those that go first first."""
        yield from self._spent
        yield from self._waiting

    def add(self, upload: Upload) -> None:
        """Count an upload that nobody uses any more."""
        memory = upload.memory
        (self._waiting if upload.replied_at is None else self._spent)[upload] = memory
        self.memory += memory
        self.disk += upload.stored
        upload.share.uploads += 1

    def discard(self, upload: Upload) -> None:
        """Stop counting an upload, if it counts: it is used again, or removed."""
        queue = self._spent if upload in self._spent else self._waiting
        memory = queue.pop(upload, None)
        if memory is not None:
            self.memory -= memory
            self.disk -= upload.stored
            upload.share.uploads -= 1

    def first(self, *, share: Share | None = None, in_memory: bool | None = None) -> Upload | None:
        """Return the one that goes first: of one client only, or only of those in memory or not."""
        for upload in self:
            if share is not None and upload.share is not share:
                continue
            if in_memory is not None and (upload.content is not None) is not in_memory:
                continue
            return upload
        return None
