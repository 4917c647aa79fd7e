"""A request of HTTP from its head until its reply has been handed over for sending."""

import asyncio
from dataclasses import dataclass

from vipsrv.server.connections.outbox import Inserts
from vipsrv.server.exchange import Exchange
from vipsrv.server.http.bodies import FormBody
from vipsrv.server.http.clients import HttpClient
from vipsrv.server.http.head import Head
from vipsrv.server.http.messages import Headers, HttpStream
from vipsrv.server.http.routes import BodyTask, ImageTask
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.storage.spool import Slot

UNKNOWN = "request"
"""The kind of a request in the log that was refused before it was known what it asks for."""

UPLOAD = "upload"
"""The kind of a request about an upload, whose line has the bytes of its body."""


@dataclass(slots=True, eq=False)
class PendingReply:
    """The bytes of a reply that waits for those before it."""

    head: bytes
    result: Slot | None
    inserts: Inserts
    line: RequestLine | None
    stream: HttpStream | None = None


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request that is not answered yet."""

    number: int
    head: Head | None  # `None` if it could not be parsed
    closes: bool
    kind: str = UNKNOWN
    more_headers: Headers = ()
    client: HttpClient | None = None
    task: ImageTask | None = None
    form: FormBody | None = None  # if its body is a form
    body_task: BodyTask | None = None  # if no image of its own is in the body
    exchange: Exchange | None = None
    answering: "asyncio.Task[None] | None" = None
    waits_to_send: bool = False  # the client sends its body after a 100 (Continue)
    reply: PendingReply | None = None

    @property
    def is_http_1_0(self) -> bool:
        """Whether the client speaks HTTP/1.0, as far as that is known."""
        return self.head is not None and self.head.is_http_1_0

    @property
    def connection_field(self) -> str | None:
        """The value of ``Connection`` in the reply, if that needs the field."""
        if self.closes:
            return "close"
        return "keep-alive" if self.is_http_1_0 else None

    def line(self, connection: int, peer: object, *, tls: bool) -> RequestLine:
        """Return its line for the log, with what is known now; ``connection`` is the number of that."""
        line = RequestLine(
            connection=connection,
            peer=peer,
            identity=None if self.client is None else self.client.identity,
            certified=self.client is not None and self.client.session is None,
            version=None,
            http=True,
            tls=tls,
            kind=self.kind,
            request_id=self.number,
        )
        exchange = self.exchange
        if exchange is not None:
            line.add(exchange.size, exchange.ids, exchange.timeline, exchange.outcome)
            line.received = exchange.received
        elif self.kind == UPLOAD and self.head is not None:
            line.image_size = self.head.body_size or 0
        return line
