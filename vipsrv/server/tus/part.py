"""The body of one request that goes on with an upload, on its way into the upload's slot.

::

    RECEIVING ── body_ended, the checksum is right, or there is none ──► DONE
        │ ── refuse, abandon, and there is no checksum ────────────────► DONE     what arrived is kept
        └─── the checksum is wrong, or cannot be known ──► TAKING_BACK ──► DONE   nothing of the body is kept
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from vipsrv.errors import RequestError, UploadConflict
from vipsrv.server.connections.inbox import BodyRoom
from vipsrv.server.http.bodies import store
from vipsrv.server.http.messages import HttpResponse
from vipsrv.server.http.refusals import ChecksumMismatch, ContentTooLarge
from vipsrv.server.http.routes import BodyAnswer, BodyTask
from vipsrv.server.tus.headers import Checksum
from vipsrv.storage.kept_slot import KeptSlot


class PartState(StrEnum):  # not Enum, whose hash is a Python function
    """The states of a part; see the diagram above."""

    RECEIVING = "receiving"
    TAKING_BACK = "taking back"
    """A thread writes bytes of the body to the disk that are not to be kept."""
    DONE = "done"


TRANSITIONS: dict[PartState, tuple[PartState, ...]] = {
    PartState.RECEIVING: (PartState.TAKING_BACK, PartState.DONE),
    PartState.TAKING_BACK: (PartState.DONE,),
    PartState.DONE: (),
}
"""The states that may follow each state."""


_discarded = memoryview(bytearray(64 * 1024))
"""Holds bytes that nobody reads."""


class PartRoom:
    """The room in ``slot`` for the next bytes of an upload, at most ``size``; may put them into a hash."""

    __slots__ = ("_hash", "_may_splice", "_room", "_slot", "received", "size")

    def __init__(self, slot: KeptSlot, size: int, hash_: Any = None) -> None:
        self.size = size
        self.received = 0
        self._slot: KeptSlot | None = slot  # `None` if the bytes are discarded
        self._hash = hash_
        self._room = memoryview(b"")
        # A thread that reads from the socket ends with the slot, not with the part; and it makes no hash.
        self._may_splice = hash_ is None and slot.received + size == slot.size

    @property
    def stalled(self) -> bool:
        """Whether the disk is behind."""
        return self._slot is not None and self._slot.stalled

    @property
    def on_ready(self) -> Callable[[], None] | None:
        """Called once, when the disk may have caught up or has failed."""
        return None if self._slot is None else self._slot.on_ready

    @on_ready.setter
    def on_ready(self, call: Callable[[], None] | None) -> None:
        if self._slot is not None:
            self._slot.on_ready = call

    def room(self) -> memoryview:
        """Return the buffer for the next bytes, which ends with the part. Raises ``RequestError``."""
        room = _discarded if self._slot is None else self._slot.room()
        self._room = room[: self.size - self.received]
        return self._room

    def filled(self, size: int, source: int | None = None) -> None:
        """Count bytes that were put into the last ``room``."""
        self.received += size
        if self._slot is not None:
            if self._hash is not None:
                self._hash.update(self._room[:size])
            self._slot.filled(size, source if self._may_splice else None)

    def take_spliced(self) -> int:
        """Return the number of bytes that were read from the source since the last call."""
        spliced = 0 if self._slot is None else self._slot.take_spliced()
        self.received += spliced
        return spliced

    def discard(self) -> None:
        """Put no more bytes into the slot."""
        slot, self._slot = self._slot, None
        if slot is not None and slot.on_ready is not None:
            call, slot.on_ready = slot.on_ready, None
            call()


class NoPart(BodyTask):
    """Answers with ``response`` when the body has ended; of that, at most ``most`` bytes may be discarded."""

    def __init__(self, response: HttpResponse, answer: BodyAnswer, *, most: int | None = None) -> None:
        self._response = response
        self._answer = answer
        self._left = most

    def feed(self, data: memoryview) -> None:
        """Discard bytes. Raises ``RequestError``."""
        if self._left is not None and len(data) > self._left:
            raise ContentTooLarge("the upload is complete; there is no room for the body")

    def body_ended(self) -> None:
        """Answer."""
        self._answer(self._response)

    def refuse(self, error: RequestError) -> None:
        """Answer with an error."""
        self._answer(error)

    def abandon(self) -> None:
        """Do without an answer."""


class UploadPart(BodyTask):
    """Appends a body of at most ``size`` bytes to the upload in ``slot``, and closes that.

    ``succeeded`` makes the answer when the body is complete. A body with a ``checksum`` is kept only if that
    could be compared.
    """

    def __init__(
        self,
        slot: KeptSlot,
        size: int,
        checksum: Checksum | None,
        *,
        succeeded: Callable[[int], HttpResponse],
        answer: BodyAnswer,
        ended: Callable[[int], None],
    ) -> None:
        self._slot = slot
        self._begin = slot.received
        self._checksum = checksum
        self._hash = None if checksum is None else checksum.new_hash()
        self._succeeded = succeeded
        self._answer: BodyAnswer | None = answer
        self._ended = ended
        self._state = PartState.RECEIVING
        self._part = PartRoom(slot, size, self._hash)
        self.room: BodyRoom | None = self._part
        slot.may_be_cut = checksum is not None
        slot.on_taken = self._taken

    @property
    def state(self) -> PartState:
        """The current state."""
        return self._state

    def feed(self, data: memoryview) -> None:
        """Take bytes of a body whose size was not stated. Raises ``RequestError``."""
        most = self._part.size - self._part.received
        store(data[:most], self._part)
        if len(data) > most:
            raise ContentTooLarge(f"the body goes beyond the end of the upload, after {most} bytes of it")

    def body_ended(self) -> None:
        """Answer: the body is complete."""
        if self._state is not PartState.RECEIVING:
            return
        if self._checksum is None or self._hash is None or self._hash.digest() == self._checksum.digest:
            self._keep(self._succeeded(self._slot.received))
        else:
            self._take_back(
                ChecksumMismatch(
                    f"the {self._checksum.algorithm} of the body is another; the upload has "
                    f"{self._begin} bytes, as before"
                )
            )

    def refuse(self, error: RequestError) -> None:
        """Answer with an error, before the body is complete."""
        if self._checksum is None:
            self._keep(error)
        else:
            self._take_back(error)

    def abandon(self) -> None:
        """Do without an answer: the connection is lost."""
        self._answer = None
        if self._state is PartState.RECEIVING:
            if self._checksum is None:
                self._keep(None)
            else:
                self._take_back(None)

    def _taken(self) -> None:
        """End, because another connection of this client goes on with the upload."""
        if self._state is PartState.RECEIVING and self.take_arrived is not None:
            self.take_arrived()
        if self._state is PartState.RECEIVING:
            self.refuse(UploadConflict("another connection goes on with this upload"))

    def _keep(self, answer: HttpResponse | RequestError | None) -> None:
        self._enter(PartState.DONE)
        self._end(answer)

    def _take_back(self, answer: RequestError | None) -> None:
        self._enter(PartState.TAKING_BACK)
        self._part.discard()
        self._try_to_take_back(answer)

    def _try_to_take_back(self, answer: RequestError | None) -> None:
        if self._slot.cut(self._begin):
            self._enter(PartState.DONE)
            self._end(answer)
        else:
            self._slot.on_ready = lambda: self._try_to_take_back(answer)

    def _end(self, answer: HttpResponse | RequestError | None) -> None:
        received = self._part.received
        self._part.discard()
        self._slot.close()
        self._ended(received)
        call, self._answer = self._answer, None
        if call is not None and answer is not None:
            call(answer)

    def _enter(self, state: PartState) -> None:
        if state not in TRANSITIONS[self._state]:
            raise RuntimeError(f"a part that is {self._state.value} cannot become {state.value}")
        self._state = state
