"""The OpenAPI document is valid, and says what the code does."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.server.api.requests import request
from tests.server.fakes import FakeWorkers, make_context
from vipsrv.errors import REQUEST_ERRORS, RequestError
from vipsrv.options import ImageInfo, OutputInfo, ResizeRequest
from vipsrv.server.api.image_routes import image_routes
from vipsrv.server.api.openapi import openapi_document
from vipsrv.server.api.parameters import PARAMETERS, ResizeParameters
from vipsrv.server.api.problems import problem
from vipsrv.server.api.reply_headers import result_field
from vipsrv.server.http.messages import HttpResponse
from vipsrv.server.http.routes import Page, Resource

DOCUMENT = openapi_document()


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    found: Any = schema
    while "$ref" in found:
        part: Any = DOCUMENT
        for step in found["$ref"].removeprefix("#/").split("/"):
            part = part[step]
        found = part
    assert isinstance(found, dict)
    return found


def test_the_document_is_valid() -> None:
    validator = pytest.importorskip(
        "openapi_spec_validator", reason="openapi-spec-validator checks the document"
    )
    validator.validate(DOCUMENT)


def test_every_path_and_method_is_described(tmp_path: Path) -> None:
    context = make_context(tmp_path, FakeWorkers())
    routes = dict(image_routes(context).routes)
    context.spool.close()
    del routes["/files/"]  # the same as without the slash
    described = {path.replace("{id}", "*"): item for path, item in DOCUMENT["paths"].items()}
    assert set(described) == set(routes)
    for path, route in routes.items():
        if isinstance(route, Resource):
            expected = {method.lower(): handler for method, handler in route.by_method.items()}
        else:
            expected = {"get" if isinstance(route, Page) else "post": route}
        assert set(described[path]) - {"parameters"} == set(expected)
        for method, handler in expected.items():
            public = isinstance(handler, Page) and handler.public
            assert (described[path][method].get("security") == [{}]) is public


def test_every_parameter_is_described() -> None:
    described = [
        one for one in DOCUMENT["paths"]["/resize"]["post"]["parameters"] if one.get("in") == "query"
    ]
    assert [one["name"] for one in described] == list(PARAMETERS)
    assert {one["name"]: one["schema"] for one in described} == {
        name: one.schema for name, one in PARAMETERS.items()
    }


def test_defaults_are_those_of_a_resize() -> None:
    defaults = {name: one.schema["default"] for name, one in PARAMETERS.items() if "default" in one.schema}
    given = ResizeParameters()
    for name, value in {**defaults, "width": 8}.items():
        if name != "withoutEnlargement":
            given.add(name, str(value).lower())
    plain = ResizeParameters()
    plain.add("width", "8")
    assert ResizeRequest.from_meta(given.meta(None)) == ResizeRequest.from_meta(plain.meta(None))


@pytest.mark.parametrize("error", REQUEST_ERRORS.values())
def test_every_error_fits_its_schema(error: type[RequestError]) -> None:
    response = problem(error("why", retry_after_ms=7))
    schema = resolve({"$ref": "#/components/schemas/Problem"})
    Draft202012Validator(schema).validate(json.loads(response.body))
    headers = dict(response.headers)
    described = DOCUMENT["paths"]["/resize"]["post"]["responses"][str(error.status)]
    assert headers["Content-Type"] in described["content"]
    for name, field in described.get("headers", {}).items():
        Draft202012Validator(field["schema"]).validate(headers[name])


def test_facts_of_an_image_fit_their_schema() -> None:
    facts = ImageInfo(format="png", width=4, height=3, pages=1, has_alpha=True, orientation=1, size=10)
    schema = resolve({"$ref": "#/components/schemas/Source"})
    Draft202012Validator(schema).validate(
        {"source": {name: getattr(facts, name) for name in facts.__slots__}}
    )


def test_facts_of_results_fit_their_schema() -> None:
    plain = OutputInfo(width=4, height=3, format="jpeg", quality=85, size=10)
    field = DOCUMENT["paths"]["/resize"]["post"]["responses"]["200"]["headers"]["Vipsrv-Result"]
    for outputs in ([plain], [plain, replace(plain, frames=8, ssim=0.9712)]):
        _, value = result_field(outputs)
        Draft202012Validator(field["schema"]).validate(value)


def test_the_document_is_served(tmp_path: Path) -> None:
    context = make_context(tmp_path, FakeWorkers())
    page = image_routes(context).routes["/openapi.json"]
    context.spool.close()
    assert isinstance(page, Page)
    response = page.answer(request("GET", "/openapi.json"))
    assert isinstance(response, HttpResponse)
    assert json.loads(response.body) == json.loads(json.dumps(DOCUMENT))
