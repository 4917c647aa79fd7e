"""The requests of a client: the meta of each, checked before anything is sent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vipsrv.options import (
    MOST_BYTES_BESIDE_PIXELS,
    MOST_BYTES_PER_PIXEL,
    Fit,
    Keep,
    Placeholder,
    PlaceholderName,
    ResizeArguments,
    ResizeOptions,
    ResizeRequest,
    default_fit,
    read_placeholders,
)
from vipsrv.protocol import MAX_META_SIZE, V1_MAX_SIZE, Kind, pack_meta
from vipsrv.version import __version__

ProtocolVersion = Literal[1, 2]

DEFAULT_MAX_REPLY_SIZE = 2**30
"""Bytes: the largest body of a reply that a client accepts by default, because it is held in memory.

The 100 megapixels that a server allows by default take less than half of it as RGBA.
"""

UNLIMITED = 2**63 - 1
"""Bytes: the bound of a result whose size does not follow from its options."""

_BLOCK = 16
"""Pixels: the formats encode blocks whose sides are at most this, so that the sides are rounded up to it."""


def _max_size(output: ResizeOptions) -> int:
    """The most bytes that a result can have; ``UNLIMITED`` if the options do not limit it."""
    if output.max_bytes is not None:
        return output.max_bytes
    if (
        output.width is None
        or output.height is None
        or output.fit is Fit.OUTSIDE
        or output.keep is not Keep.NONE
        or output.pages is not None
    ):
        # One side and the number of frames follow from the image; metadata that is kept may be of any size.
        return UNLIMITED
    top, right, bottom, left = output.pad or (0, 0, 0, 0)
    sides = (output.width + left + right, output.height + top + bottom)
    width, height = (side + -side % _BLOCK for side in sides)
    return width * height * MOST_BYTES_PER_PIXEL + MOST_BYTES_BESIDE_PIXELS


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRequest:
    """A request without its body.

    Version 2 sends ``kind`` and ``meta``; version 1 sends ``width`` and ``height``. ``outputs`` are the
    results that a RESIZE asks for. ``packed_meta`` is the JSON of ``meta``. ``max_body`` is the most bytes of
    results that a server can send as an answer, by what was asked.
    """

    kind: Kind
    meta: dict[str, Any] = field(default_factory=dict)
    width: int = 0
    height: int = 0
    outputs: tuple[ResizeOptions, ...] = ()
    packed_meta: bytes = field(init=False, repr=False)
    max_body: int = field(init=False)

    def __post_init__(self) -> None:
        # The class is frozen, so not by assignment.
        object.__setattr__(self, "packed_meta", pack_meta(self.meta) if self.meta else b"")
        object.__setattr__(self, "max_body", sum(map(_max_size, self.outputs)))


class ResizeAllRequests:
    """Makes the requests of ``resize_all``, and the same one again for the same options.

    Many images are resized to the same sizes, one after another: to check and encode the options each time
    takes longer than all else that is done for a request. May be used by several threads.
    """

    def __init__(self) -> None:
        self._last: tuple[Sequence[ResizeOptions], int | None, ClientRequest] | None = None

    def request(
        self,
        outputs: Sequence[ResizeOptions],
        *,
        deadline_ms: int | None,
        request_id: str | None,
        traceparent: str | None,
        placeholder: Iterable[Placeholder | PlaceholderName] = (),
    ) -> ClientRequest:
        """Make a request, see ``resize_all_request``."""
        last = self._last
        repeatable = request_id is None and traceparent is None and placeholder == ()
        # By identity, as a tuple of options never changes, and to compare them takes as long as to encode.
        if last is not None and repeatable and outputs is last[0] and deadline_ms is last[1]:
            return last[2]
        request = resize_all_request(
            outputs,
            deadline_ms=deadline_ms,
            request_id=request_id,
            traceparent=traceparent,
            placeholder=placeholder,
        )
        if repeatable and type(outputs) is tuple:
            self._last = outputs, deadline_ms, request
        return request


HELLO = ClientRequest(kind=Kind.HELLO, meta={"client": f"vipsrv/{__version__}"})
INFO = ClientRequest(kind=Kind.INFO)
PING = ClientRequest(kind=Kind.PING)


MOST_CONNECTIONS = 1000
"""The most connections to a server that may be asked for: with more, the number is rather a mistake."""


def check_connections(number: int) -> int:
    """Return the ``connections`` of a client. Raises ``ValueError`` unless it is a possible number."""
    if type(number) is not int or not 1 <= number <= MOST_CONNECTIONS:
        raise ValueError(f"connections: must be a whole number from 1 to {MOST_CONNECTIONS}, not {number!r}")
    return number


def check_max_reply_size(size: int) -> int:
    """Return the ``max_reply_size`` of a client. Raises ``ValueError`` unless it is a number from 1."""
    if type(size) is not int or size < 1:
        raise ValueError(f"max_reply_size: must be a whole number of bytes from 1, not {size!r}")
    return size


def info_request(placeholder: Iterable[Placeholder | PlaceholderName]) -> ClientRequest:
    """Make the INFO that asks for these placeholders. Raises ``ValueError``."""
    names = [one.value for one in read_placeholders(placeholder)]
    return ClientRequest(kind=Kind.INFO, meta={"placeholder": names}) if names else INFO


def resize_request(options: ResizeOptions | None, arguments: ResizeArguments) -> ClientRequest:
    """Make the RESIZE for one result, from a ``ResizeOptions`` or from options by name.

    Raises ``ValueError`` for an unknown or invalid option and for options given in both ways.
    """
    named: dict[str, Any] = dict(arguments)
    if "outputs" in named:
        raise ValueError("outputs: resize makes one result; use resize_all for several")
    common = {name: named.pop(name, None) for name in ("deadline_ms", "request_id", "traceparent")}
    common["placeholder"] = named.pop("placeholder", ())
    if options is None:
        if "fit" not in named and (named.get("width"), named.get("height")) != (None, None):
            named["fit"] = default_fit(named.get("width"), named.get("height"))
        options = ResizeOptions.from_meta(named)
    elif named:
        raise ValueError(
            f"{next(iter(named))}: is given by name in addition to a ResizeOptions; use one of the two"
        )
    return _resize((options,), **common)


def resize_all_request(outputs: Sequence[ResizeOptions], **common: Any) -> ClientRequest:
    """Make the RESIZE for several results; ``common`` are the fields of ``ResizeRequest`` besides them.

    Raises ``ValueError`` if there are none or more than a request can carry, and ``TypeError`` for an output
    that is not a ``ResizeOptions``.
    """
    asked = tuple(outputs)
    request = _resize(asked, **common)
    size = len(request.packed_meta)
    if size > MAX_META_SIZE:
        raise ValueError(
            f"outputs: the options of {len(asked)} results take {size} bytes, over the {MAX_META_SIZE} "
            "that a request can carry; send the image twice"
        )
    return request


def version_1_request(width: int, height: int) -> ClientRequest:
    """Make the version 1 request for a size in pixels. Raises ``ValueError``."""
    options = ResizeOptions(width=width, height=height)
    return ClientRequest(
        kind=Kind.RESIZE, width=options.width or 0, height=options.height or 0, outputs=(options,)
    )


def check_version_1_size(size: int) -> None:
    """Raise ``ValueError`` if a version 1 header cannot announce an image of ``size`` bytes."""
    if size > V1_MAX_SIZE:
        raise ValueError(
            f"the image has {size} bytes; version 1 of the protocol carries at most {V1_MAX_SIZE}"
        )


def _resize(outputs: tuple[ResizeOptions, ...], **common: Any) -> ClientRequest:
    for output in outputs:
        if not isinstance(output, ResizeOptions):
            raise TypeError(f"outputs: each must be a ResizeOptions, not {type(output).__name__}")
    meta = ResizeRequest(outputs=outputs, **common).to_meta()
    return ClientRequest(kind=Kind.RESIZE, meta=meta, outputs=outputs)
