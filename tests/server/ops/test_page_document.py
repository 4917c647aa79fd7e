"""The page as one document: what it contains, and what its policy allows."""

import base64
import hashlib
import re
from importlib.resources import files

import pytest

from vipsrv.server.http.messages import HttpRequest
from vipsrv.server.ops.page import document
from vipsrv.server.ops.page.document import SCRIPTS, STYLES, WORKER, answer_page, page_document

REQUEST = HttpRequest(method="GET", path="/", query="", fields={}, body_size=0, peer=None, tls=False)


def hashed(content: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() + "'"


def test_the_policy_allows_what_is_in_the_document_and_nothing_else() -> None:
    html, policy = page_document()
    text = html.decode()
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["frame-ancestors"] == "'none'"
    assert rules["style-src"] == hashed(style)
    assert rules["script-src"] == hashed(script)
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_document_names_no_outside_address() -> None:
    text = page_document()[0].decode()
    # The names of the namespaces of SVG are no addresses that a browser fetches.
    assert set(re.findall(r"https?://[^\s\"'<>`]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(?:link|script|img)[^>]+(?:src|href)=[\"'](?!data:)", text)


def test_nothing_is_allowed_by_attribute() -> None:
    text = (files(document.__package__) / "page.html").read_text("utf-8")
    assert not re.search(r"\s(?:style|on[a-z]+)=", text)


def test_every_file_of_the_page_is_in_it() -> None:
    found = {one.name for one in files(document.__package__).iterdir() if one.name.endswith((".js", ".css"))}
    assert found == {*SCRIPTS, *STYLES, WORKER}


@pytest.mark.parametrize(
    "word", ["localStorage", "sessionStorage", "indexedDB", "document.cookie", "innerHTML"]
)
def test_the_scripts_store_nothing_and_make_no_markup(word: str) -> None:
    assert word not in page_document()[0].decode()


def test_the_headers_of_the_page() -> None:
    response = answer_page(REQUEST)
    headers = dict(response.headers)
    assert response.status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Security-Policy"] == page_document()[1]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
