"""What answers the requests for a path: at once, or with the work on an image.

::

    path ─┬─► Page        answer(request) ─► response, or a stream of events
          ├─► ImageRoute  begin(request)  ─► ImageTask: the body is the image of an Exchange
          │                                      └── reply(exchange) ─► response
          ├─► BodyRoute   begin(request, answer) ─► BodyTask: takes the body, and answers by itself
          └─► Resource    one of the above for each method
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from vipsrv.errors import RequestError
from vipsrv.server.connections.inbox import BodyRoom
from vipsrv.server.exchange import Exchange
from vipsrv.server.http.messages import HttpRequest, HttpResponse, HttpStream
from vipsrv.workers.channel import Digest, Operation

Answer: TypeAlias = HttpResponse | HttpStream


@dataclass(frozen=True, slots=True)
class Page:
    """Answers a GET, and so a HEAD, without an image. ``answer`` may raise ``RequestError``.

    A ``public`` page needs no token.
    """

    answer: Callable[[HttpRequest], Answer | Awaitable[Answer]]
    methods: tuple[str, ...] = ("GET", "HEAD")
    public: bool = False
    kind: str = "page"
    """The kind of its requests in the log."""

    def for_method(self, request: HttpRequest) -> "Page | None":
        """Return what answers this request, ``None`` if its method is none of this path."""
        return self if request.method in self.methods else None


class ImageTask(ABC):
    """The work that one request with an image asks for.

    ``meta`` is that of a RESIZE or INFO message of the binary protocol. With ``form_boundary`` the body is
    ``multipart/form-data``, one part of which is the image.
    """

    operation: Operation
    meta: dict[str, Any]
    form_boundary: bytes | None = None
    digest: Digest | None = None
    """What ``Exchange.accept`` is to ask the worker about the bytes of the results."""

    @abstractmethod
    def form_field(self, name: str, value: str) -> None:
        """Take a field of the form that came before the image. Raises ``RequestError``."""

    @abstractmethod
    def reply(self, exchange: Exchange) -> HttpResponse:
        """Return the reply to a request that has succeeded, whose outcome was taken; it owns the result.

        May raise ``RequestError``; the result is closed then.
        """


@dataclass(frozen=True, slots=True)
class ImageRoute:
    """Answers a POST with an image. ``begin`` raises ``RequestError``."""

    begin: Callable[[HttpRequest], ImageTask]
    methods: tuple[str, ...] = ("POST",)

    def for_method(self, request: HttpRequest) -> "ImageRoute | None":
        """Return what answers this request, ``None`` if its method is none of this path."""
        return self if request.method in self.methods else None


class BodyTask(ABC):
    """Takes the body of one request, and calls back once with the answer, unless it is abandoned."""

    room: BodyRoom | None = None
    """Where the bytes of the body go; ``None`` if they are discarded."""
    take_arrived: Callable[[], None] | None = None
    """Reads into ``room`` what the socket still has, before the body is refused."""

    @abstractmethod
    def feed(self, data: memoryview) -> None:
        """Take bytes that are not read straight into ``room``. Raises ``RequestError``."""

    @abstractmethod
    def body_ended(self) -> None:
        """Answer now, or later: the body is complete."""

    @abstractmethod
    def refuse(self, error: RequestError) -> None:
        """Answer with an error, before the body is complete."""

    @abstractmethod
    def abandon(self) -> None:
        """Do without an answer: nobody waits for it any more."""


BodyAnswer: TypeAlias = Callable[[HttpResponse | RequestError], None]


@dataclass(frozen=True, slots=True)
class BodyRoute:
    """Answers a request by its body. ``begin`` raises ``RequestError``."""

    begin: Callable[[HttpRequest, BodyAnswer], BodyTask]
    kind: str
    """The kind of its requests in the log."""
    methods: tuple[str, ...] = ("POST",)

    def for_method(self, request: HttpRequest) -> "BodyRoute | None":
        """Return what answers this request, ``None`` if its method is none of this path."""
        return self if request.method in self.methods else None


Handler: TypeAlias = Page | ImageRoute | BodyRoute
"""What answers one method of a path."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What answers each method of one path; a POST may stand for another method.

    The field ``X-HTTP-Method-Override`` of the POST names it, for clients that can send nothing else.
    """

    by_method: Mapping[str, Handler]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that it takes."""
        return tuple(self.by_method)

    def for_method(self, request: HttpRequest) -> Handler | None:
        """Return what answers this request, ``None`` if its method is none of this path."""
        method = request.method
        if method == "POST":
            method = request.fields.get("x-http-method-override", method)
        return self.by_method.get(method)


Route: TypeAlias = Handler | Resource
"""What is at one path."""

Problem: TypeAlias = Callable[[RequestError], HttpResponse]
"""Makes the reply to a request that is refused or has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """All routes of a listener by their paths, and how a refusal is told.

    A path that ends with ``/*`` stands for all that have one more part in its place.
    """

    routes: Mapping[str, Route]
    problem: Problem
    more_headers: Callable[[HttpRequest], tuple[tuple[str, str], ...]] = field(default=lambda _: ())
    """The headers that every reply gets, for example those of CORS."""

    def find(self, path: str) -> Route | None:
        """Return what is at a path."""
        route = self.routes.get(path)
        if route is None and not path.endswith("*"):
            route = self.routes.get(f"{path[: path.rfind('/') + 1]}*")
        return route
