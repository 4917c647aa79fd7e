"""Requests that other web sites make a browser send to the ops listener."""

from typing import cast

import pytest

from vipsrv.errors import BadRequest
from vipsrv.server.http.messages import HttpRequest, HttpResponse
from vipsrv.server.http.routes import ImageRoute, ImageTask, Page
from vipsrv.server.ops.guard import guarded

OK = HttpResponse(status=200)
TASK = cast("ImageTask", object())
ROUTES: dict[str, Page | ImageRoute] = {
    **{path: Page(lambda _: OK) for path in ("/", "/events", "/metrics", "/livez", "/readyz")},
    "/resize": ImageRoute(lambda _: TASK),
}


def ask(path: str, method: str = "GET", *, at: str = "loopback", **fields: str) -> object:
    """What the route answers; ``sec_fetch_site`` is the field ``sec-fetch-site``."""
    request = HttpRequest(
        method=method,
        path=path,
        query="",
        fields={name.replace("_", "-"): value for name, value in fields.items()},
        body_size=0,
        peer=None,
        tls=False,
    )
    route = guarded(ROUTES, names_are_known=at == "loopback")[path]
    if isinstance(route, Page):
        return route.answer(request)
    assert isinstance(route, ImageRoute)
    return route.begin(request)


@pytest.mark.parametrize(
    "host", ["localhost:9464", "127.0.0.1:9464", "[::1]:9464", "LOCALHOST", "10.0.0.7", ""]
)
@pytest.mark.parametrize("fields", [{}, {"sec_fetch_site": "same-origin"}, {"sec_fetch_site": "none"}])
def test_the_operator_is_answered(host: str, fields: dict[str, str]) -> None:
    assert ask("/", host=host, **fields) is OK
    assert ask("/events", host=host, **fields) is OK
    if host:
        assert ask("/resize", "POST", host=host, origin=f"http://{host.lower()}", **fields) is TASK


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_other_sites_are_refused(site: str) -> None:
    for path, method in (("/events", "GET"), ("/", "GET"), ("/resize", "POST"), ("/metrics", "POST")):
        with pytest.raises(BadRequest, match="Sec-Fetch-Site"):
            ask(path, method, host="localhost:9464", sec_fetch_site=site)


@pytest.mark.parametrize(
    "origin", ["https://example.com", "http://localhost:3000", "http://localhost", "null", "", "http://["]
)
def test_other_origins_are_refused(origin: str) -> None:
    for path, method in (("/events", "GET"), ("/resize", "POST")):
        with pytest.raises(BadRequest, match="Origin"):
            ask(path, method, host="localhost:9464", origin=origin)


def test_a_proxy_with_tls_may_be_in_front() -> None:
    fields = {"host": "ops.example.com", "origin": "https://ops.example.com"}
    assert ask("/resize", "POST", at="a network", **fields) is TASK


def test_a_link_to_the_page_may_be_followed() -> None:
    fields = {"host": "localhost:9464", "sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert ask("/", **fields) is OK
    for path, method in (("/events", "GET"), ("/", "POST")):
        with pytest.raises(BadRequest):
            ask(path, method, **fields)


@pytest.mark.parametrize(
    "host", ["rebound.example.com:9464", "localhost.example.com", "127.0.0.1.nip.io", "["]
)
def test_a_name_that_points_here_is_refused_on_the_loopback_interface(host: str) -> None:
    for path, method in (("/", "GET"), ("/events", "GET"), ("/resize", "POST")):
        with pytest.raises(BadRequest, match="loopback interface"):
            ask(path, method, host=host, origin=f"http://{host}")
    assert ask("/", at="a network", host="vipsrv.internal:9464") is OK


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_probes_are_answered_in_any_case(path: str, method: str) -> None:
    fields = {"host": "example.com", "origin": "https://example.com", "sec_fetch_site": "cross-site"}
    assert ask(path, method, **fields) is OK
