"""Refuses what web sites of others make an operator's browser send to the ops listener.

The listener asks for no password, because it is on the loopback interface: so a page from anywhere that the
operator has open must not use it through the browser. Two ways are closed:

- **A request from another site** (or another port), which the browser marks by ``Sec-Fetch-Site`` and
  ``Origin``. A link to the page ``/`` may be followed.
- **A name of another site that points here** (DNS rebinding): the browser then takes the listener for that
  site. On the loopback interface ``Host`` has to be ``localhost`` or a numeric address. A listener that
  other machines can reach has names that are not known here, so it takes any.

A GET of ``/metrics``, ``/livez`` and ``/readyz`` is answered in any case: probes and Prometheus send what
they like, and no browser shows the reply to another site.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from vipsrv.errors import BadRequest
from vipsrv.server.http.messages import HttpRequest
from vipsrv.server.http.routes import (
    BodyAnswer,
    BodyTask,
    Handler,
    ImageRoute,
    Page,
    Resource,
    Route,
)

OPEN_TO_ALL = frozenset({"/metrics", "/livez", "/readyz"})

_SAME = frozenset({"same-origin", "none"})
"""``Sec-Fetch-Site`` of what the page itself sends, and of an address that the operator has typed."""

_Answer = TypeVar("_Answer")

Check = Callable[[HttpRequest], None]
"""Raises ``BadRequest`` for a request that is refused."""


def guarded(routes: Mapping[str, Route], *, names_are_known: bool) -> dict[str, Route]:
    """Return routes that refuse requests from other web sites.

    ``names_are_known`` is whether clients can only name the listener ``localhost`` or by its address.
    """
    check = partial(check_request, names_are_known=names_are_known)
    return {path: _guard(route, check) for path, route in routes.items()}


def check_request(request: HttpRequest, *, names_are_known: bool) -> None:
    """Raise ``BadRequest`` for a request that another web site has made a browser send."""
    is_read = request.method in ("GET", "HEAD")
    if is_read and request.path in OPEN_TO_ALL:
        return
    fields = request.fields
    host = fields.get("host", "")
    if names_are_known and not _is_own_name(host):
        raise BadRequest(
            f"the name {host!r} is none of this listener, which is on the loopback interface: use localhost "
            "or its address"
        )
    origin = fields.get("origin")
    if origin is not None and _host_of(origin) != host.lower():
        raise BadRequest("requests from other web sites are refused here (Origin)")
    follows_link = is_read and request.path == "/" and fields.get("sec-fetch-mode") == "navigate"
    if fields.get("sec-fetch-site", "none") not in _SAME and not follows_link:
        raise BadRequest("requests from other web sites are refused here (Sec-Fetch-Site)")


def _guard(route: Route, check: Check) -> Route:
    if isinstance(route, Resource):
        return Resource({method: _guard_handler(one, check) for method, one in route.by_method.items()})
    return _guard_handler(route, check)


def _guard_handler(handler: Handler, check: Check) -> Handler:
    if isinstance(handler, Page):
        return replace(handler, answer=_after(check, handler.answer))
    if isinstance(handler, ImageRoute):
        return replace(handler, begin=_after(check, handler.begin))
    begin = handler.begin

    def checked(request: HttpRequest, answer: BodyAnswer) -> BodyTask:
        check(request)
        return begin(request, answer)

    return replace(handler, begin=checked)


def _after(check: Check, answer: Callable[[HttpRequest], _Answer]) -> Callable[[HttpRequest], _Answer]:
    def checked(request: HttpRequest) -> _Answer:
        check(request)
        return answer(request)

    return checked


def _host_of(origin: str) -> str | None:
    """Return host and port of an origin; ``None`` for the origin ``null``, and for what is none.

    The scheme does not count: a proxy with TLS may be in front of the listener.
    """
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _is_own_name(host: str) -> bool:
    """Whether ``Host`` is ``localhost`` or a numeric address, with or without a port, or missing."""
    if not host:
        return True
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
