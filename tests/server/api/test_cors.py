"""Pages of other origins."""

import pytest

from tests.server.api.requests import request
from vipsrv.server.api.cors import cors_headers
from vipsrv.server.api.origins import check_origin

ORIGIN = "https://example.com"


def headers(allowed: tuple[str, ...], method: str = "POST", **fields: str) -> dict[str, str]:
    found = cors_headers(
        allowed, request(method, "/resize", {name.replace("_", "-"): value for name, value in fields.items()})
    )
    assert len(dict(found)) == len(found)
    return dict(found)


def test_it_is_off_by_default() -> None:
    assert headers((), origin=ORIGIN) == {}
    assert headers((), "OPTIONS", origin=ORIGIN, access_control_request_method="POST") == {}


def test_a_page_of_an_allowed_origin_may_read_the_reply() -> None:
    found = headers((ORIGIN, "http://localhost:3000"), origin=ORIGIN)
    assert found["Access-Control-Allow-Origin"] == ORIGIN
    assert found["Timing-Allow-Origin"] == ORIGIN
    assert found["Vary"] == "Origin"
    assert "ETag" in found["Access-Control-Expose-Headers"].split(", ")
    assert "Access-Control-Allow-Credentials" not in found


def test_all_origins() -> None:
    found = headers(("*",), origin=ORIGIN)
    assert found["Access-Control-Allow-Origin"] == "*"
    assert "Vary" not in found
    assert headers(("*",)) == {}


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "", "*", "https://example.com:443", "http://example.com", "https://example.com.evil.org"),
        *("https://EXAMPLE.com", "https://sub.example.com", "https://example.com/", "https://example.com, x"),
    ],
)
def test_another_origin_gets_nothing(origin: str) -> None:
    assert headers((ORIGIN,), origin=origin) == {"Vary": "Origin"}
    assert headers((ORIGIN,)) == {"Vary": "Origin"}


def test_a_preflight() -> None:
    found = headers((ORIGIN,), "OPTIONS", origin=ORIGIN, access_control_request_method="POST")
    assert found["Access-Control-Allow-Methods"] == "GET, HEAD, POST"
    names = {"Authorization", "Content-Type", "Traceparent", "Tracestate", "X-Request-Id"}
    assert set(found["Access-Control-Allow-Headers"].split(", ")) == names
    assert found["Access-Control-Max-Age"] == "600"
    assert "Access-Control-Expose-Headers" not in found
    assert "Access-Control-Max-Age" not in headers((ORIGIN,), "OPTIONS", origin=ORIGIN)


@pytest.mark.parametrize(
    "origin", ["*", ORIGIN, "http://localhost:3000", "http://[::1]:8080", "http://127.0.0.1:8080"]
)
def test_origins_that_may_be_set(origin: str) -> None:
    check_origin(origin)


@pytest.mark.parametrize(
    "origin",
    [
        *("", "null", "example.com", "https://example.com/", "https://Example.com", "https://a.b:443"),
        *("http://a.b:80", "https://a.b:0", "ftp://a.b", "https://", "https://a b", "https://*.example.com"),
    ],
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match=r"origin|port"):
        check_origin(origin)


def test_a_preflight_of_an_upload() -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "PATCH"}
    found = dict(cors_headers((ORIGIN,), request("OPTIONS", "/files/" + 32 * "0", asked)))
    assert {"PATCH", "DELETE", "HEAD", "POST"} < set(found["Access-Control-Allow-Methods"].split(", "))
    # What tus-js-client and Uppy send.
    sent = {"Tus-Resumable", "Upload-Length", "Upload-Metadata", "Upload-Offset", "Content-Type"}
    assert sent | {"Authorization", "X-HTTP-Method-Override", "X-Request-Id"} < set(
        found["Access-Control-Allow-Headers"].split(", ")
    )


def test_the_headers_of_an_upload_may_be_read() -> None:
    found = dict(cors_headers(("*",), request("POST", "/files", {"origin": ORIGIN})))
    exposed = set(found["Access-Control-Expose-Headers"].split(", "))
    assert {"Location", "Upload-Offset", "Upload-Length", "Upload-Expires", "Tus-Resumable"} < exposed
