"""The page as one document: the style and the scripts of this folder in the HTML, allowed by their hashes.

Nothing is fetched from elsewhere, and the Content-Security-Policy (CSP level 3) lets nothing else run: the
hash of each element's content is in it. The program of the worker, which compares images, is data in the
document; the page makes a ``blob:`` of it.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from vipsrv.server.http.messages import HttpRequest, HttpResponse
from vipsrv.server.http.routes import Page
from vipsrv.server.ops.live_events import LiveEvents
from vipsrv.server.ops.snapshots import Snapshots

STYLES = ("tokens.css", "layout.css", "dashboard.css", "lab.css")
"""The style, in order: values of the design, the page, the charts, the place to try an image."""

SCRIPTS = (
    "format.js",
    "elements.js",
    "chart.js",
    "stream.js",
    "dashboard.js",
    "commands.js",
    "compare.js",
    "lab.js",
    "main.js",
)
"""The scripts, in order: each may use what those before it define."""

WORKER = "ssim.js"


def page_routes(snapshots: Snapshots) -> dict[str, Page]:
    """Return the routes of the page and of its stream of events, by their paths."""
    events = LiveEvents(snapshots)
    return {"/": Page(answer=answer_page), "/events": Page(answer=events.answer, methods=("GET",))}


def answer_page(_request: HttpRequest) -> HttpResponse:
    """Return the page."""
    document, policy = page_document()
    headers = (
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-cache"),
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    )
    return HttpResponse(status=200, headers=headers, body=document)


@cache
def page_document() -> tuple[bytes, str]:
    """Return the document and its Content-Security-Policy."""
    style = "\n".join(map(_read, STYLES))
    script = "\n".join(map(_read, SCRIPTS))
    document = _read("page.html")
    for place, content in (("/* style */", style), ("/* worker */", _read(WORKER)), ("/* script */", script)):
        if document.count(place) != 1:
            raise ValueError(f"page.html needs the place {place!r} once")
        document = document.replace(place, content)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "worker-src blob:",
            "connect-src 'self'",
            "img-src blob: data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return document.encode(), policy


def _read(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")


def _hash(content: str) -> str:
    """Return the hash of an element's content as a source expression."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
