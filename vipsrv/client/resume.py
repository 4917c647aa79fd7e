"""Uploads that go on where the connection broke: what an attempt sends, and what is known of the server.

::

    call_steps ──► next_attempt ──► HELLO, once for each server     does it keep uploads?
                       │        ──► UPLOAD_STATUS after a failure   how much of this one does it hold?
                       │        ──► RESIZE or INFO with the rest of the image
                       └─ failed     a part has been sent, so the next attempt follows at once;
                                     if UPLOAD_STATUS shows that none of it arrived, that attempt fails

Without input and output; the steps are those of ``calls.py``.
"""

import re
import secrets
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

from vipsrv.client.calls import Outcome, SendRequest, Server, Step
from vipsrv.client.core import PendingRequest
from vipsrv.client.requests import HELLO, ClientRequest
from vipsrv.errors import (
    Busy,
    ClientTimeout,
    ConnectFailed,
    ConnectionLost,
    Draining,
    ProtocolError,
    ReceiveTimeout,
    UploadConflict,
    VipsrvError,
)
from vipsrv.protocol import MAX_META_SIZE, Kind

RESUMABLE_FROM = 8 * 2**20
"""Bytes: images of at least this size are sent so that they can be resumed, where the server offers it.

Below, the question whether it does takes longer than what would have to be sent again.
"""

RESUMABLE_AFTER_A_CUT = 256 * 1024
"""Bytes: the same after an upload to that server was cut, until the client is closed."""

MOST_DROPS = 3
"""How often a server may have dropped an upload of one call before its image is sent without an id."""

UPLOAD_META_SIZE = 128
"""Bytes that ``upload`` adds to the meta of a request at most."""

_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")

UploadId = str | Callable[[], str]
"""The id of an upload, 32 hex digits, or a function that makes one, if making it takes a while: it is called
only if the server keeps uploads.
"""

OnResumed = Callable[[int], None]
"""Called when an upload goes on, with the number of bytes of the image that the server has already."""


def new_upload_id() -> str:
    """Make an id that nobody can guess: 128 random bits as 32 hex digits."""
    return secrets.token_hex(16)


def check_upload_id(name: str, upload_id: object) -> str:
    """Return an id that was given as ``name``. Raises ``ValueError``."""
    if not isinstance(upload_id, str) or not _UPLOAD_ID.fullmatch(upload_id):
        raise ValueError(f"{name}: must be 32 lower-case hex digits (0-9, a-f), not {upload_id!r}")
    return upload_id


def check_resumable_from(size: int | None) -> int | None:
    """Return the ``resumable_from`` of a client. Raises ``ValueError``."""
    if size is not None and (type(size) is not int or size < 0):
        raise ValueError(
            f"resumable_from: must be a number of bytes, or None to resume no upload; not {size!r}"
        )
    return size


class Offer(Enum):
    """Whether a server keeps uploads that can be resumed."""

    UNKNOWN = auto()
    """It has not been asked."""
    MADE = auto()
    """It does."""
    NONE = auto()
    """It does not, or the reply to HELLO makes no sense."""


@dataclass(slots=True)
class ServerUploads:
    """What a client knows of the uploads to one server. ``cut`` is whether one of them was cut."""

    offer: Offer = Offer.UNKNOWN
    max_size: int | None = None
    cut: bool = False

    def learn(self, meta: dict[str, Any]) -> None:
        """Take over what a reply to HELLO says."""
        uploads = meta.get("uploads")
        self.offer = Offer.MADE if isinstance(uploads, dict) else Offer.NONE
        most = uploads.get("max_bytes") if isinstance(uploads, dict) else None
        self.max_size = most if type(most) is int else None

    def takes(self, size: int) -> bool:
        """Whether the server keeps an upload of this size."""
        return self.offer is Offer.MADE and (self.max_size is None or size <= self.max_size)


class ResumableUploads:
    """What all calls of one client share. Several threads may use it.

    ``least`` is the size from which images are sent so that they can be resumed, see ``RESUMABLE_FROM``;
    with ``None``, or if the client sends nothing again, only those are whose id the caller gives.
    """

    def __init__(self, least: int | None = RESUMABLE_FROM, *, sends_again: bool = True) -> None:
        checked = check_resumable_from(least)
        self._least = checked if sends_again else None
        self._smallest = None if self._least is None else min(self._least, RESUMABLE_AFTER_A_CUT)
        self._servers: dict[Server, ServerUploads] = {}

    def upload(
        self,
        request: ClientRequest,
        size: int,
        *,
        upload_id: UploadId | None = None,
        on_resumed: OnResumed | None = None,
    ) -> "ResumableUpload | None":
        """Return the upload of one call, or ``None`` if its image is too small to be resumed.

        Raises ``ValueError`` for an ``upload_id`` that is none.
        """
        if upload_id is None:
            if self._smallest is None or size < self._smallest:
                return None
        elif not callable(upload_id):
            check_upload_id("upload_id", upload_id)
        return ResumableUpload(self, request, size, upload_id, on_resumed)

    def at(self, server: Server) -> ServerUploads:
        """Return what is known of a server."""
        known = self._servers.get(server)
        return known if known is not None else self._servers.setdefault(server, ServerUploads())

    def wanted(self, server: Server, size: int) -> bool:
        """Whether an image of this size is sent to this server so that it can be resumed."""
        if self._least is None:
            return False
        return size >= (self._smallest or 0) if self.at(server).cut else size >= self._least


class PartState(Enum):
    """What is known of the part of an image that a server holds."""

    KNOWN = auto()
    """How many bytes it has."""
    ASK = auto()
    """Bytes may have arrived, or been dropped, since it was known."""


@dataclass(slots=True)
class _Part:
    """The part of the image that one server holds.

    ``offset`` is its size when it was last known, and ``sent`` what it is if all that was sent has arrived.
    ``lost`` is the error of an attempt that may have brought bytes forward: it counts if they turn out not
    to have arrived. ``excused``: that was let pass once.
    """

    state: PartState
    offset: int = 0
    sent: int = 0
    drops: int = 0
    lost: VipsrvError | None = field(default=None, repr=False)
    excused: bool = False


class ResumableUpload:
    """The image of one call, of ``size`` bytes; an ``Upload`` of ``call_steps``.

    A server may hold a part of it already if the caller gives its id.
    """

    __slots__ = (
        "_id",
        "_on_resumed",
        "_parts",
        "_request",
        "_sending",
        "_size",
        "_started",
        "_uploads",
        "brought_forward",
        "resumed",
    )

    def __init__(
        self,
        uploads: ResumableUploads,
        request: ClientRequest,
        size: int,
        upload_id: UploadId | None,
        on_resumed: OnResumed | None,
    ) -> None:
        self._uploads = uploads
        self._request = request
        self._size = size
        self._id = upload_id
        self._started = PartState.KNOWN if upload_id is None else PartState.ASK
        self._on_resumed = on_resumed
        self._parts: dict[Server, _Part] = {}
        self._sending: _Part | None = None  # of the attempt that is being made
        self.resumed = 0
        """Bytes that the last attempt did not have to send, because the server had them already."""
        self.brought_forward = False
        """Whether the question before the last attempt showed that the server holds more than ever."""

    @property
    def holder(self) -> Server | None:
        """The server that holds most of the image, or ``None``: the next attempt had better go there."""
        held = max(self._parts.items(), key=lambda item: item[1].sent, default=None)
        return held[0] if held is not None and held[1].sent else None

    def begins_plainly(self, server: Server) -> bool:
        """Whether the first attempt asks this server nothing before and sends it all, without an id."""
        return self._started is PartState.KNOWN and not self._uploads.wanted(server, self._size)

    def next_attempt(
        self, server: Server, until: float | None
    ) -> Generator[Step, Outcome, SendRequest | VipsrvError]:
        """Return the request of the next attempt at a server, or the error of a question before it."""
        self._sending, self.resumed, self.brought_forward = None, 0, False
        uploads = self._uploads
        if self.begins_plainly(server):
            return SendRequest(server, self._request, 0, until)
        known = uploads.at(server)
        if known.offer is Offer.UNKNOWN:
            outcome = yield SendRequest(server, HELLO, None, until)
            if not isinstance(outcome, PendingRequest) or outcome.reply is None:
                return _error_of(outcome)
            known.learn(outcome.reply.meta)
        part = self._parts.get(server)
        if part is None:
            part = self._parts[server] = _Part(self._started)
        room = len(self._request.packed_meta) + UPLOAD_META_SIZE <= MAX_META_SIZE
        if part.drops > MOST_DROPS or not room or not known.takes(self._size):
            return SendRequest(server, self._request, 0, until)
        if not isinstance(self._id, str):
            self._id = new_upload_id() if self._id is None else check_upload_id("upload_id", self._id())
        if part.state is PartState.ASK:
            status = ClientRequest(kind=Kind.UPLOAD_STATUS, meta={"id": self._id})
            error = self._take(part, (yield SendRequest(server, status, None, until)))
            if error is not None:
                return error
        upload = {"id": self._id, "size": self._size, "offset": part.offset}
        request = replace(self._request, meta={**self._request.meta, "upload": upload})
        self._sending, self.resumed = part, part.offset
        if part.offset and self._on_resumed is not None:
            self._on_resumed(part.offset)
        return SendRequest(server, request, part.offset, until)

    def failed(self, server: Server, outcome: PendingRequest | VipsrvError) -> bool:
        """Note that the attempt failed; return whether it brought a part of the image to the server.

        That is so, for now, if a part was sent: what arrived is asked before the next attempt, and if that
        is nothing, the next attempt fails with the error of this one.
        """
        error = _error_of(outcome)
        if isinstance(error, (ConnectionLost, ClientTimeout, ReceiveTimeout)):
            self._uploads.at(server).cut = True
        part, self._sending = self._sending, None
        if part is None:
            return False  # a question, or an image without an id
        part.state = PartState.ASK
        kept = isinstance(error, (ConnectionLost, ClientTimeout, ReceiveTimeout, Draining, UploadConflict))
        if isinstance(outcome, PendingRequest):
            part.sent = self._size - outcome.unsent
        elif not isinstance(error, ConnectFailed):
            part.sent = self._size  # nobody knows how much
        # A conflict is about what the server holds: to ask it settles that, whether or not bytes were sent.
        if not kept or not (part.sent > part.offset or isinstance(error, UploadConflict)):
            return False
        # The server may have closed an idle connection before it saw the request. Once, that is no failure.
        unseen = isinstance(outcome, PendingRequest) and outcome.may_resend and not part.excused
        part.lost, part.excused = None if unseen else error, part.excused or unseen
        return True

    def _take(self, part: _Part, outcome: Outcome) -> VipsrvError | None:
        """Take over the reply to UPLOAD_STATUS. Return the error if this attempt ends here."""
        if not isinstance(outcome, PendingRequest) or outcome.reply is None:
            return _error_of(outcome)
        received, size = (outcome.reply.meta.get(name) for name in ("received", "size"))
        if type(received) is not int or not 0 <= received <= (self._size if size == self._size else 2**63):
            return ProtocolError(f"the reply to UPLOAD_STATUS is invalid: received is {received!r}")
        if size is not None and size != self._size:
            return UploadConflict(
                f"the server holds an upload of {size!r} bytes with the id {self._id}, and this image has "
                f"{self._size} bytes; use another id"
            )
        lost, before = part.lost, part.offset
        part.lost, part.offset, part.sent, part.state = None, received, received, PartState.KNOWN
        self.brought_forward = received > before
        if self.brought_forward:
            part.excused = False
        if received < before:
            part.drops += 1  # it begins anew, or goes on from less, at once: see MOST_DROPS
        elif lost is not None and received == before:
            part.state = PartState.ASK
            if isinstance(lost, UploadConflict):  # not about the request, so it may be sent again
                return Busy(f"another client sends the upload {self._id}: {lost}", retry_after_ms=1000)
            return lost
        return None


def _error_of(outcome: Outcome) -> VipsrvError:
    error = outcome.error if isinstance(outcome, PendingRequest) else outcome
    if error is None:
        raise RuntimeError("a step ended without an outcome")
    return error
