"""The OpenAPI 3.1 document of the server, made from the parameters, the facts of replies and the errors."""

from dataclasses import fields
from typing import Any

from vipsrv.options import MAX_REQUEST_ID, Fit, ImageInfo, Placeholder
from vipsrv.server.api.negotiation import MIXED, ZIP
from vipsrv.server.api.openapi_parts import ALWAYS, ERRORS, described_field, json_content, problems
from vipsrv.server.api.parameters import PARAMETERS, PLACEHOLDER, Parameter
from vipsrv.server.api.problems import DOCUMENTATION, TITLES, problem_type
from vipsrv.server.api.reply_headers import MEDIA_TYPES
from vipsrv.server.tus.openapi import UPLOAD_ID, tus_paths
from vipsrv.server.tus.upload_of import PARAMETER
from vipsrv.version import __version__

_TYPES: dict[Any, dict[str, Any]] = {
    int: {"type": "integer", "minimum": 0},
    str: {"type": "string"},
    bool: {"type": "boolean"},
}

_EMPTY = {"type": "string", "maxLength": 0, "description": "Left out."}

_WITH_IMAGE = (404, 409, 413, 415, 417, 422, 423, 499, 502, 504)
"""Further statuses of a path that takes an image."""


_UPLOAD = {"$ref": "#/components/parameters/upload"}


def openapi_document() -> dict[str, Any]:
    """Return the document as a JSON object."""
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "vipsrv",
            "version": __version__,
            "description": "Resizes and compresses the image in the body of a request.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "externalDocs": {"url": DOCUMENTATION},
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": {
            "/resize": {"post": _resize()},
            "/info": {"post": _info()},
            "/formats": {"get": _formats()},
            "/openapi.json": {"get": _document()},
            **tus_paths(),
        },
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Needed if the server has tokens; see `vipsrv token`.",
                }
            },
            "parameters": {
                "upload": {
                    "name": PARAMETER,
                    "in": "query",
                    "description": "The id of a complete upload, which is the image; there is no body then.",
                    "schema": UPLOAD_ID,
                },
                "request_id": {
                    "name": "X-Request-Id",
                    "in": "header",
                    "description": "What the client calls its request: in the server's log and in the reply.",
                    "schema": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": MAX_REQUEST_ID,
                        "pattern": "^[!-~]([ -~]*[!-~])?$",
                    },
                },
                "traceparent": {
                    "name": "traceparent",
                    "in": "header",
                    "description": "W3C Trace Context; what is not valid is ignored.",
                    "schema": {"type": "string"},
                },
                "tracestate": {
                    "name": "tracestate",
                    "in": "header",
                    "description": "W3C Trace Context: what goes with the traceparent.",
                    "schema": {"type": "string"},
                },
            },
            "schemas": {
                "Problem": _problem_schema(),
                "Source": _source_schema(),
                "Formats": _formats_schema(),
                "Form": _form_schema(),
            },
        },
    }


_RESULT = r"[a-z]+(;[a-z]+=[0-9]+(\.[0-9]+)?)+"


def _resize() -> dict[str, Any]:
    images: dict[str, Any] = {media_type: {} for media_type in MEDIA_TYPES.values()}
    return {
        "operationId": "resize",
        "summary": "Resize an image",
        "parameters": [
            *map(_in_query, PARAMETERS.values()),
            _UPLOAD,
            *_ids(),
        ],
        "requestBody": _image_body("Form"),
        "responses": {
            "200": {
                "description": "The result, or all of them.",
                "headers": {
                    "ETag": described_field("Identifies the bytes of the body.", r'^"[0-9a-f]{32}"$'),
                    "Vipsrv-Source": described_field(
                        "What the header of the image states; a structured field (RFC 9651).",
                        r"^[a-z0-9-]+(;[a-z_]+=\??[0-9]+)+$",
                    ),
                    "Vipsrv-Result": described_field(
                        "Format, size and quality of each result, its `frames` if the image has several "
                        "pages, and its `ssim` if that was asked; a structured field.",
                        rf"^{_RESULT}(, {_RESULT})*$",
                    ),
                    "Vipsrv-Ratio": described_field(
                        "The image's bytes divided by those of all results.", r"^[0-9]+\.[0-9]{3}$"
                    ),
                    "Vipsrv-Placeholder": {
                        "description": "What the parameter `placeholder` asked for; a structured field.",
                        "schema": {"type": "string"},
                    },
                    **_timing(),
                },
                "content": {**images, MIXED: {}, ZIP: {}},
            },
            **problems(*ALWAYS, *_WITH_IMAGE),
        },
    }


def _in_query(one: Parameter) -> dict[str, Any]:
    also = f" Also called {', '.join(one.aliases)}." if one.aliases else ""
    return {"name": one.name, "in": "query", "description": one.description + also, "schema": one.schema}


def _info() -> dict[str, Any]:
    return {
        "operationId": "info",
        "summary": "Read the header of an image",
        "parameters": [_in_query(PLACEHOLDER), _UPLOAD, *_ids()],
        "requestBody": _image_body("Form"),
        "responses": {
            "200": {
                "description": "What the header states, and what stands for the image if that was asked.",
                "headers": _timing(),
                "content": json_content("Source"),
            },
            **problems(*ALWAYS, *_WITH_IMAGE),
        },
    }


def _formats() -> dict[str, Any]:
    return {
        "operationId": "formats",
        "summary": "Formats, limits and fits of the server",
        "responses": {
            "200": {"description": "What holds for this client.", "content": json_content("Formats")},
            **problems(*ALWAYS),
        },
    }


def _document() -> dict[str, Any]:
    return {
        "operationId": "openapi",
        "summary": "This document",
        "security": [{}],
        "responses": {
            "200": {
                "description": "The document.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            **problems(*ALWAYS),
        },
    }


def _ids() -> list[dict[str, Any]]:
    return [
        {"$ref": f"#/components/parameters/{name}"} for name in ("request_id", "traceparent", "tracestate")
    ]


def _image_body(form: str) -> dict[str, Any]:
    return {
        "description": "The image, whatever its type is called; or a form whose only file is the image. "
        "It is left out if the image is an upload.",
        "content": {
            "application/octet-stream": {},
            "image/*": {},
            "multipart/form-data": {"schema": {"$ref": f"#/components/schemas/{form}"}},
        },
    }


def _timing() -> dict[str, Any]:
    stage = r"[a-z]+;dur=[0-9]+\.[0-9]{3}"
    return {"Server-Timing": described_field("Milliseconds of each stage.", f"^{stage}(, {stage})*$")}


def _problem_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "retryable", "retry_after_ms"],
        "properties": {
            "type": {"type": "string", "enum": [problem_type(code) for code in TITLES]},
            "title": {"type": "string", "enum": list(TITLES.values())},
            "status": {"type": "integer", "enum": sorted(ERRORS)},
            "detail": {"type": "string"},
            "code": {"type": "string", "enum": list(TITLES)},
            "retryable": {"type": "boolean"},
            "retry_after_ms": {"type": ["integer", "null"], "minimum": 0},
        },
    }


def _source_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["source"],
        "properties": {
            "source": {
                "type": "object",
                "required": [one.name for one in fields(ImageInfo)],
                "properties": {one.name: _TYPES[one.type] for one in fields(ImageInfo)},
            },
            "placeholder": {
                "type": "object",
                "properties": {one.value: {"type": "string"} for one in Placeholder},
            },
        },
    }


def _formats_schema() -> dict[str, Any]:
    names = {"type": "array", "items": {"type": "string"}}
    limits = ("max_upload", "max_pixels", "max_output_pixels", "deadline_ms", "workers", "queue_per_client")
    return {
        "type": "object",
        "required": ["server", "limits", "formats", "libraries", "fits"],
        "properties": {
            "server": {"type": "string"},
            "limits": {
                "type": "object",
                "required": list(limits),
                "properties": {
                    name: {"type": "integer", "minimum": int(name != "queue_per_client")} for name in limits
                },
            },
            "formats": {
                "type": "object",
                "required": ["in", "out"],
                "properties": {"in": names, "out": names},
            },
            "libraries": {"type": "object", "additionalProperties": {"type": "string"}},
            "fits": {"type": "array", "items": {"type": "string", "enum": list(Fit)}},
            "watermarks": names,
            "identity": {"type": "string"},
            "identity_limits": {"type": "object"},
        },
    }


def _form_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["image"],
        "properties": {
            **{name: {"anyOf": [one.schema, _EMPTY]} for name, one in PARAMETERS.items()},
            "image": {
                "type": "string",
                "contentMediaType": "application/octet-stream",
                "description": "The file. It is the last part of the form; its name does not matter.",
            },
        },
        "additionalProperties": False,
    }
