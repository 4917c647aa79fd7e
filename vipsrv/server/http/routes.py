"""What answers the requests for a path: at once, or with the work on an image.

::

    path ─┬─► Page        answer(request) ─► response, or a stream of events
          └─► ImageRoute  begin(request)  ─► ImageTask: the body is the image of an Exchange
                                                 └── reply(exchange) ─► response
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from vipsrv.errors import RequestError
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


Problem: TypeAlias = Callable[[RequestError], HttpResponse]
"""Makes the reply to a request that is refused or has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """All routes of a listener by their paths, and how a refusal is told."""

    routes: Mapping[str, Page | ImageRoute]
    problem: Problem
    more_headers: Callable[[HttpRequest], tuple[tuple[str, str], ...]] = field(default=lambda _: ())
    """The headers that every reply gets, for example those of CORS."""
