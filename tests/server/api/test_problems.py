"""Refusals as problem details."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.server.api.bodies import header
from vipsrv.errors import (
    REQUEST_ERRORS,
    BadRequest,
    Busy,
    Draining,
    InternalError,
    RequestError,
    Unauthorized,
)
from vipsrv.server.api.problems import HTTP_REFUSALS, MAX_DETAIL, TITLES, problem, problem_type
from vipsrv.server.http import refusals
from vipsrv.server.http.messages import HttpResponse
from vipsrv.server.identity import TokenRefused

EVERY_ERROR = (*REQUEST_ERRORS.values(), *HTTP_REFUSALS)
PAGE = Path(__file__).parents[3] / "docs" / "guide" / "http.md"


def members(response: HttpResponse) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.body)
    return found


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_each_error_is_a_problem(kind: type[RequestError]) -> None:
    error = (
        refusals.MethodNotAllowed("so it is", "GET")
        if kind is refusals.MethodNotAllowed
        else kind("so it is")
    )
    response = problem(error)
    assert response.status == error.status
    assert header(response, "Content-Type") == "application/problem+json"
    assert header(response, "Cache-Control") == "no-store"
    assert members(response) == {
        "type": problem_type(error.code),
        "title": TITLES[error.code],
        "status": error.status,
        "detail": "so it is",
        "code": error.code,
        "retryable": error.retryable,
        "retry_after_ms": None,
    }


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Busy("full"), "1"),
        (Busy("full", retry_after_ms=1), "1"),
        (Busy("full", retry_after_ms=1000), "1"),
        (Busy("full", retry_after_ms=1001), "2"),
        (Draining("stops"), "1"),
    ],
)
def test_when_to_try_again(error: RequestError, seconds: str) -> None:
    response = problem(error)
    assert header(response, "Retry-After") == seconds
    assert members(response)["retry_after_ms"] == error.retry_after_ms


def test_a_token_is_asked_for() -> None:
    missing = problem(Unauthorized("send one"))
    assert header(missing, "WWW-Authenticate") == 'Bearer realm="vipsrv"'
    wrong = problem(TokenRefused("no such token"))
    assert header(wrong, "WWW-Authenticate") == 'Bearer realm="vipsrv", error="invalid_token"'
    assert "www-authenticate" not in {name.lower() for name, _ in problem(BadRequest("no")).headers}


def test_what_only_the_log_may_know_is_left_out() -> None:
    response = problem(InternalError("a bug", where="secret.py:7"))
    assert b"secret" not in response.body


def test_a_long_text_is_cut() -> None:
    assert members(problem(BadRequest("x" * 5000)))["detail"] == "x" * MAX_DETAIL


def test_each_code_has_a_title() -> None:
    assert set(TITLES) == {error.code for error in EVERY_ERROR}
    assert len(set(TITLES.values())) == len(TITLES)


def test_all_refusals_of_http_are_known() -> None:
    defined = {one for one in vars(refusals).values() if isinstance(one, type) and one is not BadRequest}
    # It has the code of the wire.
    assert defined - set(HTTP_REFUSALS) == {refusals.ContentTooLarge}


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside the tests")
def test_each_type_is_an_anchor_of_the_documentation() -> None:
    text = PAGE.read_text()
    for code in TITLES:
        anchor = problem_type(code).partition("#")[2]
        assert f'<a id="{anchor}"></a>`{code}`' in text
