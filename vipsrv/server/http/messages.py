"""A request and a reply of HTTP as a route sees them: without sockets, and without the bytes of an image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from vipsrv.server.access import Session
from vipsrv.server.accounts import Account
from vipsrv.storage.spool import Slot

Headers: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values of the fields of a reply, in order."""


@dataclass(slots=True, kw_only=True)  # not frozen: that takes three times as long, for each request
class HttpRequest:
    """The head of a request. Only the connection changes it: when it knows ``session`` and ``account``.

    ``path`` is decoded (RFC 3986, 2.1) and has no query; ``query`` is what follows the ``?``, as it was
    sent. The names in ``fields`` are in lower case; several lines of one name are joined with ``", "``
    (RFC 9110, 5.3). ``body_size`` is bytes: 0 without a body, ``None`` for a chunked one. ``peer`` is the
    client's ``peername``. ``session`` is that of the client's token, ``None`` if it has shown none, and
    ``account`` is to whom the request counts, ``None`` before that is known.
    """

    method: str
    path: str
    query: str
    fields: Mapping[str, str]
    body_size: int | None
    peer: object
    tls: bool
    session: Session | None = None
    account: Account | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """A reply whose content is ``body``, or all of ``result`` with ``inserts`` between.

    Each of ``inserts`` is bytes that are sent before the byte of ``result`` at its offset; an offset equal
    to the size of the result is its end. The connection adds ``Date``, ``Content-Length`` and
    ``Connection``, and closes ``result`` when it has been sent.
    """

    status: int
    headers: Headers = ()
    body: bytes = b""
    result: Slot | None = None
    inserts: tuple[tuple[int, bytes], ...] = ()

    @property
    def content_size(self) -> int:
        """Bytes of the content."""
        result = 0 if self.result is None else self.result.size
        return len(self.body) + result + sum(len(inserted) for _, inserted in self.inserts)


Send: TypeAlias = Callable[[bytes], bool]
"""Sends bytes to a client, or returns ``False`` and drops them because the client does not keep up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpStream:
    """A reply without an end, for example server-sent events.

    ``subscribe`` is called with the function that sends; it returns what ends the subscription, which the
    connection calls when the client has disconnected or the server stops.
    """

    headers: Headers
    subscribe: Callable[[Send], Callable[[], None]]
