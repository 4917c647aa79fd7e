"""What a client asks for: the meta of each request, checked before anything is sent."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from vipsrv.options import Fit, Format, Keep, Position, ResizeOptions, ResizeRequest
from vipsrv.protocol import V1_MAX_SIZE, Kind
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
    ``height`` in version 1.
    """

    kind: Kind
    meta: dict[str, Any] = field(default_factory=dict)
    width: int = 0
    height: int = 0


HELLO = Request(kind=Kind.HELLO, meta={"client": f"vipsrv/{__version__}"})
INFO = Request(kind=Kind.INFO)
PING = Request(kind=Kind.PING)


def resize_request(arguments: ResizeArguments, protocol: Protocol) -> Request:
    """The RESIZE for these options.

    Raises ``ValueError`` for an option that is unknown or makes no sense, and for what version 1 cannot say.
    """
    asked = ResizeRequest.from_meta(dict(arguments))
    (output,) = asked.outputs
    width, height = output.width, output.height
    if protocol == 1:
        if width is None or height is None:
            raise ValueError("version 1 of the protocol needs both width and height")
        plain = ResizeRequest(outputs=(ResizeOptions(width=width, height=height),))
        if asked != plain:
            extra = ", ".join(sorted(asked.to_meta().keys() - {"width", "height"}))
            raise ValueError(f"{extra}: version 1 of the protocol has width and height only; use protocol=2")
    return Request(kind=Kind.RESIZE, meta=asked.to_meta(), width=width or 0, height=height or 0)


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
