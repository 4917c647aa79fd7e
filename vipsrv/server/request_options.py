"""The meta of requests, read and checked; what this server does not offer is refused in so many words."""

import json
from functools import lru_cache
from typing import Any

from vipsrv.errors import BadRequest
from vipsrv.options import ResizeRequest
from vipsrv.workers.channel import MAX_OUTPUTS

_CACHED_REQUESTS = 1024


def parse_resize(meta: dict[str, Any]) -> tuple[bytes, int | None]:
    """The meta of a RESIZE as options for a worker (JSON), and its ``deadline_ms``. Raises ``BadRequest``."""
    values = tuple(meta.values())
    try:
        # The types are part of the key because 1, 1.0 and True are equal, and only one of them is a width.
        return _parse_cached(tuple(meta), values, tuple(map(type, values)))
    except TypeError:  # a value that cannot be a key: a list or an object
        return _parse(meta)


def refuse_hello_token(meta: dict[str, Any]) -> None:
    """Raise ``BadRequest`` for a token: this server has none to compare it with."""
    if meta.get("token") is not None:
        raise BadRequest("token: tokens are not offered by this server; say HELLO without one")


@lru_cache(_CACHED_REQUESTS)
def _parse_cached(
    names: tuple[str, ...], values: tuple[Any, ...], _types: tuple[type, ...]
) -> tuple[bytes, int | None]:
    return _parse(dict(zip(names, values, strict=True)))


def _parse(meta: dict[str, Any]) -> tuple[bytes, int | None]:
    try:
        request = ResizeRequest.from_meta(meta)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    if request.upload is not None:
        raise BadRequest("upload: resumable uploads are not offered by this server")
    if len(request.outputs) > MAX_OUTPUTS:
        raise BadRequest(f"outputs: {len(request.outputs)} are more than the {MAX_OUTPUTS} of one request")
    options = ResizeRequest(outputs=request.outputs).to_meta()
    return json.dumps(options, separators=(",", ":")).encode(), request.deadline_ms
