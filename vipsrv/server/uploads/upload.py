"""One upload: its state, where its bytes are, and who uses them."""

from typing import Protocol

from vipsrv.server.uploads.states import TRANSITIONS, UploadState
from vipsrv.storage.budget import Share
from vipsrv.storage.file_slot import FileSlot
from vipsrv.storage.kept_slot import Content, KeptSlot
from vipsrv.storage.memory_slot import MemorySlot


class UploadKeeper(Protocol):
    """Who keeps all uploads, and is told what happens to one."""

    def returned(self, upload: "Upload", slot: KeptSlot) -> None:
        """Take back what was lent."""

    def replied(self, upload: "Upload") -> None:
        """Note that a reply about it was sent."""


class Upload:
    """``received`` of ``size`` bytes that count towards ``share``; ``name`` is that of its file.

    The bytes are in ``content``, or in a file that is not open if that is ``None``. ``changed`` is when the
    last one arrived, in Unix time. ``leases`` are the slots that are lent; one if the upload is RECEIVING.
    """

    __slots__ = (
        *("_keeper", "changed", "content", "is_created", "leases", "metadata", "name"),
        *("replied_at", "share", "size", "state", "stored", "wanted_at"),
    )

    def __init__(
        self, keeper: UploadKeeper, name: str, size: int, share: Share, metadata: bytes = b""
    ) -> None:
        self._keeper = keeper
        self.name = name
        self.size = size
        self.share = share
        self.metadata = metadata
        self.state = UploadState.SETTLING
        self.content: Content | None = None
        self.stored = 0
        """Bytes in a file that is not open."""
        self.changed = 0.0
        self.leases: list[KeptSlot] = []
        self.is_created = False
        """Whether the client created it by itself, so that it is kept even without a byte."""
        self.replied_at: float | None = None
        """When the last reply about it was sent, in Unix time."""
        self.wanted_at: float | None = None
        """Since when another connection wants to go on with it, in seconds of ``time.monotonic``."""

    @property
    def received(self) -> int:
        """Bytes that have arrived."""
        content = self.present_content
        return self.stored if content is None else content.received

    @property
    def present_content(self) -> Content | None:
        """Where the bytes are, also while they are lent; ``None`` if the file is not open."""
        return self.leases[0].content if self.leases else self.content

    @property
    def is_filled(self) -> bool:
        """Whether a connection fills it: it lacks bytes, or the last ones may be taken back."""
        return self.state is UploadState.RECEIVING and (
            self.received < self.size or self.leases[0].may_be_cut
        )

    @property
    def is_splicing(self) -> bool:
        """Whether a thread reads from the socket of a connection."""
        content = self.present_content
        return isinstance(content, FileSlot) and content.splicing

    @property
    def memory(self) -> int:
        """Bytes of the memory's budget that it takes."""
        content = self.content
        return content.held if isinstance(content, MemorySlot) else 0

    def enter(self, state: UploadState) -> None:
        """Change the state."""
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"an upload that is {self.state.name} cannot become {state.name}")
        self.state = state

    def progressed(self) -> None:
        """Tell those who use it that the disk has caught up or failed."""
        for lease in tuple(self.leases):
            lease.progressed()

    def returned(self, slot: KeptSlot) -> None:
        """Take back the bytes that were lent."""
        self._keeper.returned(self, slot)

    def replied(self, _: KeptSlot) -> None:
        """Note that a reply about it has been sent."""
        self._keeper.replied(self)
