"""What a client asks for: the meta of each request, checked before anything is sent."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from vipsrv.options import Fit, Format, Keep, Position, ResizeOptions, ResizeRequest
from vipsrv.protocol import MAX_META_SIZE, V1_MAX_SIZE, Kind
from vipsrv.version import __version__

Protocol = Literal[1, 2]


class ResizeArguments(TypedDict, total=False):
    """The options of ``resize``, each left out for its default; the meaning of each is in ``ResizeOptions``.

    ``deadline_ms``: milliseconds from the arrival of the request within which the answer is of use; the
    server gives up after them with ``DeadlineExceeded``. Without it the server's own ``--deadline`` holds.
    """

    width: int | None
    height: int | None
    fit: Fit | str
    position: Position | str
    format: Format | str
    quality: int | None
    lossless: bool
    max_bytes: int | None
    background: str
    keep: Keep | str
    page: int
    enlarge: bool
    deadline_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request without its body: ``meta`` is what goes over the wire in version 2, ``width`` and
    ``height`` in version 1. ``results`` is how many a RESIZE asks for.
    """

    kind: Kind
    meta: dict[str, Any] = field(default_factory=dict)
    width: int = 0
    height: int = 0
    results: int = 1


HELLO = Request(kind=Kind.HELLO, meta={"client": f"vipsrv/{__version__}"})
INFO = Request(kind=Kind.INFO)
PING = Request(kind=Kind.PING)


def resize_request(arguments: ResizeArguments, protocol: Protocol) -> Request:
    """The RESIZE for these options.

    Raises ``ValueError`` for an option that is unknown or makes no sense, and for what version 1 cannot say.
    """
    options: dict[str, Any] = dict(arguments)
    if "outputs" in options:
        raise ValueError("outputs: several results are what resize_all asks for")
    deadline_ms = options.pop("deadline_ms", None)
    return _resize((ResizeOptions.from_meta(options),), deadline_ms, protocol)


def resize_all_request(
    outputs: Sequence[ResizeOptions], deadline_ms: int | None, protocol: Protocol
) -> Request:
    """The RESIZE for several results.

    Raises ``ValueError`` where there are none or more than a request can carry, and for what version 1 cannot
    say; ``TypeError`` for what is no ``ResizeOptions``.
    """
    asked = tuple(outputs)
    for output in asked:
        if not isinstance(output, ResizeOptions):
            raise TypeError(f"outputs: must be ResizeOptions each, not {type(output).__name__}")
    if protocol == 1 and len(asked) > 1:
        raise ValueError("outputs: version 1 of the protocol has one result a request; use protocol=2")
    request = _resize(asked, deadline_ms, protocol)
    size = len(json.dumps(request.meta, separators=(",", ":")))
    if size > MAX_META_SIZE:
        raise ValueError(
            f"outputs: the options of {len(asked)} come to {size} bytes, over the {MAX_META_SIZE} "
            "that a request can carry; send the image twice"
        )
    return request


def check_size(size: int, protocol: Protocol) -> None:
    """Raises ``ValueError`` for an image of more bytes than the version can announce."""
    if protocol == 1 and size > V1_MAX_SIZE:
        raise ValueError(
            f"the image has {size} bytes; version 1 of the protocol carries at most {V1_MAX_SIZE}"
        )


def needs_version_2(what: str, protocol: Protocol) -> None:
    """Raises ``ValueError`` if the protocol is version 1."""
    if protocol == 1:
        raise ValueError(f"version 1 of the protocol has no {what}; use protocol=2")


def _resize(outputs: tuple[ResizeOptions, ...], deadline_ms: int | None, protocol: Protocol) -> Request:
    asked = ResizeRequest(outputs=outputs, deadline_ms=deadline_ms)
    width, height = outputs[0].width, outputs[0].height
    if protocol == 1:
        if width is None or height is None:
            raise ValueError("version 1 of the protocol needs both width and height")
        plain = ResizeRequest(outputs=(ResizeOptions(width=width, height=height),))
        if asked != plain:
            extra = ", ".join(sorted(asked.to_meta().keys() - {"width", "height"}))
            raise ValueError(f"{extra}: version 1 of the protocol has width and height only; use protocol=2")
    return Request(
        kind=Kind.RESIZE,
        meta=asked.to_meta(),
        width=width or 0,
        height=height or 0,
        results=len(outputs),
    )
