"""Requests without a connection."""

from collections.abc import Mapping

from vipsrv.server.access import Session
from vipsrv.server.http.messages import HttpRequest


def request(
    method: str, target: str, fields: Mapping[str, str] | None = None, *, session: Session | None = None
) -> HttpRequest:
    """The head of a request for a target in its origin form."""
    path, _, query = target.partition("?")
    return HttpRequest(
        method=method,
        path=path,
        query=query,
        fields=fields or {},
        body_size=1000 if method == "POST" else 0,
        peer=("192.0.2.1", 4711),
        tls=False,
        session=session,
    )
