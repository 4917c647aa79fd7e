"""A slot whose bytes stay with the one who opened it when it is closed, so that they can be lent again."""

from collections.abc import Callable
from typing import Protocol

from vipsrv.storage.budget import Share
from vipsrv.storage.file_slot import FileSlot
from vipsrv.storage.file_store import MakeFile
from vipsrv.storage.memory_slot import MemorySlot
from vipsrv.storage.spool import Slot, Spool

Content = MemorySlot | FileSlot
"""Where the bytes are."""


class Keeper(Protocol):
    """Who keeps the bytes of a slot."""

    def returned(self, slot: "KeptSlot") -> None:
        """Take back the ``content`` of a slot that is closed."""

    def replied(self, slot: "KeptSlot") -> None:
        """Note that the reply about these bytes has been sent."""


class KeptSlot(Slot):
    """Lends ``content`` to a connection or a request, until it is closed; without one, begins with nothing.

    A file for it is made by ``make_file``. The one who fills the slot sets ``on_taken``: it is called if
    someone else shall go on, and has to put in what has arrived, and close the slot.
    """

    __slots__ = ("_keeper", "began", "is_wanted", "may_be_cut", "needs_turn", "on_taken")

    def __init__(
        self,
        spool: Spool,
        share: Share,
        size: int,
        *,
        keeper: Keeper,
        make_file: MakeFile,
        content: Content | None = None,
    ) -> None:
        super().__init__(spool.chunks, spool.files, share, size, content=content, make_file=make_file)
        self._keeper = keeper
        self.began = self.received
        """Bytes that had arrived before it was lent."""
        self.on_taken: Callable[[], None] | None = None
        self.needs_turn = False
        """Whether ``on_taken`` cannot put in what has arrived: the event loop has to read it before."""
        self.is_wanted = False
        """Whether someone else wants to go on: then no thread begins to read from the socket."""

        self.may_be_cut = False
        """Whether the one who fills it may still ``cut`` what has arrived, so that it is for nobody else."""

    @property
    def content(self) -> Content:
        """Where the bytes are at the moment."""
        return self._content

    def progressed(self) -> None:
        """Tell the owner that the disk has caught up or failed."""
        self._progressed()

    def filled(self, size: int, source: int | None = None) -> None:
        """Count ``size`` bytes that were put into the last ``room``; see ``Slot``."""
        super().filled(size, None if self.is_wanted else source)

    def move_to_file(self) -> None:
        """Keep the bytes in a file from now on. Raises ``Busy``, with nothing changed."""
        if isinstance(self._content, MemorySlot):
            self._move_to_file(self._content)

    def replied(self) -> None:
        """Tell that the reply about these bytes has been sent; the slot may be closed by then."""
        self._keeper.replied(self)

    def close(self) -> None:
        """Give the bytes back to their keeper, all that have arrived."""
        if not self._closed:
            self._closed = True
            self.on_ready = self.on_taken = None
            self._keeper.returned(self)
