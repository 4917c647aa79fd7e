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
from vipsrv.server.api.problems import HTTP_CODES, MAX_DETAIL, TITLES, http_problem, problem, problem_type
from vipsrv.server.http.messages import HttpResponse

PAGE = Path(__file__).parents[3] / "docs" / "guide" / "http.md"


def members(response: HttpResponse) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.body)
    return found


@pytest.mark.parametrize("error", REQUEST_ERRORS.values())
def test_each_error_of_the_wire_is_a_problem(error: type[RequestError]) -> None:
    response = problem(error("so it is"))
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
    assert header(problem(Unauthorized("no")), "WWW-Authenticate") == 'Bearer realm="vipsrv"'
    assert "www-authenticate" not in {name.lower() for name, _ in problem(BadRequest("no")).headers}


def test_what_only_the_log_may_know_is_left_out() -> None:
    response = problem(InternalError("a bug", where="secret.py:7"))
    assert b"secret" not in response.body


def test_a_long_text_is_cut() -> None:
    assert members(problem(BadRequest("x" * 5000)))["detail"] == "x" * MAX_DETAIL


@pytest.mark.parametrize("status", HTTP_CODES)
def test_refusals_of_http_have_the_same_form(status: int) -> None:
    response = http_problem(status, "so it is", (("Allow", "POST"),))
    assert response.status == status
    assert header(response, "Allow") == "POST"
    assert members(response) == {
        "type": problem_type(HTTP_CODES[status]),
        "title": TITLES[HTTP_CODES[status]],
        "status": status,
        "detail": "so it is",
        "code": HTTP_CODES[status],
        "retryable": status in {408, 503},
        "retry_after_ms": None,
    }


def test_each_code_has_a_title() -> None:
    assert set(TITLES) == {error.code for error in REQUEST_ERRORS.values()} | set(HTTP_CODES.values())
    assert len(set(TITLES.values())) == len(TITLES)


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside the tests")
def test_each_type_is_an_anchor_of_the_documentation() -> None:
    text = PAGE.read_text()
    for code in TITLES:
        anchor = problem_type(code).partition("#")[2]
        assert f'<a id="{anchor}"></a>`{code}`' in text
