"""The documents that describe the server: ``GET /formats`` and ``GET /openapi.json``."""

import json
from typing import Any

from vipsrv.errors import BadRequest
from vipsrv.server.api.image_tasks import described_for
from vipsrv.server.api.openapi import openapi_document
from vipsrv.server.context import ServerContext
from vipsrv.server.http.messages import HttpRequest, HttpResponse
from vipsrv.server.http.routes import Page


def formats_page(context: ServerContext) -> Page:
    """Return the page with what a HELLO reply says: limits, formats, libraries and fits for this client."""

    def answer(request: HttpRequest) -> HttpResponse:
        return _json(request, described_for(context, request), "private, no-cache")

    return Page(answer, public=False)


def openapi_page() -> Page:
    """Return the page with the OpenAPI document. It needs no token: it is the same for everybody."""
    document = openapi_document()

    def answer(request: HttpRequest) -> HttpResponse:
        return _json(request, document, "no-cache")

    return Page(answer, public=True)


def _json(request: HttpRequest, value: dict[str, Any], cache_control: str) -> HttpResponse:
    if request.query:
        raise BadRequest(f"{request.path} has no parameters")
    return HttpResponse(
        status=200,
        headers=(
            ("Content-Type", "application/json"),
            ("Cache-Control", cache_control),
            ("X-Content-Type-Options", "nosniff"),
        ),
        body=json.dumps(value, indent=2).encode() + b"\n",
    )
