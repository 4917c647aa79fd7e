"""Parts that the descriptions of several paths share in the OpenAPI document."""

from typing import Any

from vipsrv.errors import REQUEST_ERRORS, Busy, Draining, Unauthorized
from vipsrv.server.api.problems import HTTP_REFUSALS, PROBLEM_TYPE, TITLES
from vipsrv.server.http.refusals import Locked

ALWAYS = (400, 401, 408, 429, 431, 500, 503)
"""Statuses with which each path may answer."""

ERRORS = {error.status: error for error in (*HTTP_REFUSALS, *REQUEST_ERRORS.values())}
"""The class for each status of a problem."""


def described_field(description: str, pattern: str) -> dict[str, Any]:
    """Return the description of a header field that a reply always has."""
    return {
        "description": description,
        "required": True,
        "schema": {"type": "string", "pattern": pattern},
    }


def problems(*statuses: int, has_body: bool = True) -> dict[str, Any]:
    """Return the replies with these statuses; those to a HEAD have no body."""
    return {str(status): _problem(status, has_body=has_body) for status in sorted(statuses)}


def json_content(schema: str) -> dict[str, Any]:
    """Return the content of a reply that is JSON with the schema of this name."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _problem(status: int, *, has_body: bool) -> dict[str, Any]:
    described: dict[str, Any] = {"description": f"{TITLES[ERRORS[status].code]}."}
    if has_body:
        described["content"] = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    if status in (Busy.status, Draining.status, Locked.status):
        seconds = {"type": "string", "pattern": "^[0-9]+$"}
        described["headers"] = {
            "Retry-After": {"description": "Seconds to wait.", "required": True, "schema": seconds}
        }
    if status == Unauthorized.status:
        described["headers"] = {"WWW-Authenticate": described_field("What is needed.", "^Bearer ")}
    return described
