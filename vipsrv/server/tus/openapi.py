"""What the OpenAPI document says about uploads."""

from typing import Any

from vipsrv.server.api.openapi_parts import ALWAYS, described_field, problems
from vipsrv.server.tus.headers import ALGORITHMS, CONTENT_TYPE, EXTENSIONS, MAX_METADATA, VERSION
from vipsrv.server.tus.resources import COLLECTION

_BYTES = r"^[0-9]+$"
_SIZE = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
_CHECKSUM = rf"^({'|'.join(ALGORITHMS)}) [A-Za-z0-9+/]+=*$"
_RESUMABLE = {"Tus-Resumable": described_field("The version of tus.", f"^{VERSION.replace('.', '[.]')}$")}
_OFFSET = {"Upload-Offset": described_field("Bytes that are held.", _BYTES)}
_EXPIRES = {"Upload-Expires": described_field("When the upload is removed.", " GMT$")}
_ON_ONE = (404, 412, 423)
_WITH_BODY = (409, 413, 415, 417, 460)

UPLOAD_ID = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
"""The schema of the id of an upload."""


def tus_paths() -> dict[str, Any]:
    """Return the paths of uploads."""
    return {
        COLLECTION: {"options": _options("uploadOptions"), "post": _create()},
        f"{COLLECTION}/{{id}}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": UPLOAD_ID}],
            "options": _options("uploadOptionsOfOne"),
            "head": {
                "operationId": "uploadStatus",
                "summary": "How much of an upload is held",
                "parameters": [_version()],
                "responses": {
                    "200": {
                        "description": "What is held. A connection that is sending the upload is ended.",
                        "headers": {
                            **_RESUMABLE,
                            **_OFFSET,
                            **_EXPIRES,
                            "Upload-Length": described_field("Bytes of the whole upload.", _BYTES),
                        },
                    },
                    **problems(*ALWAYS, *_ON_ONE, has_body=False),
                },
            },
            "patch": _append(),
            "delete": {
                "operationId": "terminateUpload",
                "summary": "Give an upload up",
                "parameters": [_version()],
                "responses": {
                    "204": {"description": "It is removed.", "headers": _RESUMABLE},
                    **problems(*ALWAYS, *_ON_ONE),
                },
            },
        },
    }


def _options(name: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": "What the server can do with uploads (tus 1.0)",
        "security": [{}],
        "responses": {
            "204": {
                "description": "Version, extensions and limits.",
                "headers": {
                    **_RESUMABLE,
                    "Tus-Version": described_field("Versions that are spoken.", r"^1[.]0[.]0$"),
                    "Tus-Extension": described_field("Extensions of tus.", f"^{EXTENSIONS}$"),
                    "Tus-Max-Size": described_field("Bytes of the largest upload.", _BYTES),
                    "Tus-Checksum-Algorithm": described_field("Hashes.", f"^{','.join(ALGORITHMS)}$"),
                },
            },
            **problems(*ALWAYS, 404),
        },
    }


def _create() -> dict[str, Any]:
    return {
        "operationId": "createUpload",
        "summary": "Create an upload that can be resumed (tus 1.0)",
        "parameters": [
            _version(),
            _header("Upload-Length", "Bytes of the whole image.", _SIZE, required=True),
            _header(
                "Upload-Metadata",
                "Keys and values in base64, which a HEAD tells again. The server does not use them.",
                {"type": "string", "maxLength": MAX_METADATA, "pattern": r"^[!-+\--~]+( [A-Za-z0-9+/=]*)?$"},
            ),
            _checksum(),
        ],
        "requestBody": {
            "description": "The first bytes of the image, or nothing.",
            "content": {CONTENT_TYPE: {}},
        },
        "responses": {
            "201": {
                "description": "It is created.",
                "headers": {
                    **_RESUMABLE,
                    **_OFFSET,
                    **_EXPIRES,
                    "Location": described_field("Its URL.", rf"{COLLECTION}/[0-9a-f]{{32}}$"),
                },
            },
            **problems(*ALWAYS, 404, 412, *_WITH_BODY),
        },
    }


def _append() -> dict[str, Any]:
    return {
        "operationId": "appendToUpload",
        "summary": "Send bytes of an upload",
        "parameters": [
            _version(),
            _header("Upload-Offset", "Bytes that are held, as a HEAD tells.", _SIZE, required=True),
            _checksum(),
        ],
        "requestBody": {
            "description": "The bytes that follow. What arrives is kept, also if the connection breaks.",
            "required": True,
            "content": {CONTENT_TYPE: {}},
        },
        "responses": {
            "204": {"description": "They are held.", "headers": {**_RESUMABLE, **_OFFSET, **_EXPIRES}},
            **problems(*ALWAYS, *_ON_ONE, *_WITH_BODY),
        },
    }


def _version() -> dict[str, Any]:
    return _header(
        "Tus-Resumable", "The version of tus.", {"type": "string", "enum": [VERSION]}, required=True
    )


def _checksum() -> dict[str, Any]:
    return _header(
        "Upload-Checksum",
        "An algorithm and the base64 of its hash of the body. Nothing of a body with another hash is kept.",
        {"type": "string", "pattern": _CHECKSUM},
    )


def _header(name: str, description: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": required, "description": description, "schema": schema}
