"""Parse the meta of requests, and refuse options that this server does not offer."""

import json
from functools import lru_cache
from typing import Any

from vipsrv.errors import BadRequest
from vipsrv.options import Format, ResizeRequest, read_placeholders
from vipsrv.workers.channel import MAX_OUTPUTS

_CACHED_REQUESTS = 1024


def parse_resize(meta: dict[str, Any]) -> tuple[bytes, int | None]:
    """Return the options of a RESIZE as JSON for a worker, and its ``deadline_ms``. Raises ``BadRequest``."""
    values = tuple(meta.values())
    try:
        # The types are part of the key because 1, 1.0 and True are equal, but only 1 is a valid width.
        return _parse_cached(tuple(meta), values, tuple(map(type, values)))
    except TypeError:  # a list or an object, which cannot be part of a key
        return _parse(meta)


def parse_info(meta: dict[str, Any]) -> bytes:
    """Return the options of an INFO as JSON for a worker, or nothing. Raises ``BadRequest``."""
    asked = meta.get("placeholder")
    if asked is None:
        return b""
    try:
        names = [one.value for one in read_placeholders(asked)]
    except ValueError as error:
        raise BadRequest(str(error)) from None
    return json.dumps({"placeholder": names}, separators=(",", ":")).encode() if names else b""


@lru_cache(_CACHED_REQUESTS)
def formats_of_results(options: bytes) -> frozenset[str]:
    """Return the formats, ``auto`` among them, that the options of ``parse_resize`` name."""
    meta = json.loads(options)
    return frozenset(output.get("format", Format.JPEG.value) for output in meta.get("outputs", [meta]))


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
    if len(request.outputs) > MAX_OUTPUTS:
        raise BadRequest(f"outputs: {len(request.outputs)} results are requested; {MAX_OUTPUTS} are allowed")
    options = ResizeRequest(outputs=request.outputs, placeholder=request.placeholder).to_meta()
    return json.dumps(options, separators=(",", ":")).encode(), request.deadline_ms
