"""The meta of a RESIZE: the options of all its results, and what applies to the whole request."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from vipsrv.options.bounds import DEADLINE_MS_BOUNDS, INT64_MAX, MAX_REQUEST_ID
from vipsrv.options.checks import as_int, check_int, printable, shown
from vipsrv.options.placeholder import Placeholder, read_placeholders
from vipsrv.options.resize import ResizeOptions

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
"""W3C Trace Context, 3.2: version, trace id, parent id and flags. Later versions may add parts."""

_MAX_TRACEPARENT = 128
"""Characters; that of version 00 has 55."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSlot:
    """Part of a resumable upload: a random 128-bit ``id`` in hex, total ``size`` and ``offset`` in bytes."""

    id: str
    size: int
    offset: int

    @classmethod
    def from_meta(cls, meta: Any) -> Self:
        """Read a slot from a JSON object. Raises ``ValueError``."""
        if not isinstance(meta, dict) or set(meta) != {"id", "size", "offset"}:
            raise ValueError("upload: must be an object of id, size and offset")
        if not isinstance(meta["id"], str) or not re.fullmatch(r"[0-9a-f]{32}", meta["id"]):
            raise ValueError("upload: id must be 32 lower-case hex digits")
        check_int("upload: size", meta["size"], 1, INT64_MAX, optional=False)
        check_int("upload: offset", meta["offset"], 0, meta["size"], optional=False)
        return cls(**meta)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeRequest:
    """The meta of a RESIZE message: the requested results, and the options that apply to all of them.

    ``deadline_ms`` limits the time from the arrival of the request to its result: waiting and processing.
    ``request_id`` and ``traceparent`` are for the server's log. ``placeholder`` is what the reply shall have
    that stands for the image until it is loaded.
    """

    outputs: tuple[ResizeOptions, ...]
    deadline_ms: int | None = None
    upload: UploadSlot | None = None
    request_id: str | None = None
    traceparent: str | None = None
    placeholder: tuple[Placeholder, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "deadline_ms", as_int(self.deadline_ms))
        if self.placeholder != ():
            object.__setattr__(self, "placeholder", read_placeholders(self.placeholder))
        check_int("deadline_ms", self.deadline_ms, *DEADLINE_MS_BOUNDS)
        check_request_id(self.request_id)
        if self.traceparent is not None and not isinstance(self.traceparent, str):
            raise ValueError(f"traceparent: must be a text, not {shown(self.traceparent)}")
        if not self.outputs:
            raise ValueError("outputs: must be one or more")

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Self:
        """Read a request from a JSON object. Raises ``ValueError``."""
        options = dict(meta)
        common = {name: options.pop(name, None) for name in ("deadline_ms", "request_id", "traceparent")}
        common["placeholder"] = options.pop("placeholder", ())
        if "upload" in options:
            common["upload"] = UploadSlot.from_meta(options.pop("upload"))
        if "outputs" not in options:
            return cls(outputs=(ResizeOptions.from_meta(options),), **common)
        listed = options.pop("outputs")
        if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
            raise ValueError("outputs: must be a list of one or more objects")
        if options:
            raise ValueError(
                f"{printable(next(iter(options)))}: belongs inside each object of outputs, not outside"
            )
        outputs = tuple(ResizeOptions.from_meta(one) for one in listed)
        return cls(outputs=outputs, **common)

    def to_meta(self) -> dict[str, Any]:
        """Return the JSON object that ``from_meta`` reads."""
        meta: dict[str, Any] = {}
        if len(self.outputs) == 1:
            meta.update(self.outputs[0].to_meta())
        else:
            meta["outputs"] = [output.to_meta() for output in self.outputs]
        if self.deadline_ms is not None:
            meta["deadline_ms"] = self.deadline_ms
        if self.placeholder:
            meta["placeholder"] = [one.value for one in self.placeholder]
        if self.upload is not None:
            meta["upload"] = asdict(self.upload)
        if self.request_id is not None:
            meta["request_id"] = self.request_id
        if self.traceparent is not None and is_traceparent(self.traceparent):
            meta["traceparent"] = self.traceparent
        return meta


def check_request_id(value: Any) -> None:
    """Raise ``ValueError`` unless a ``request_id`` is missing or has 1 to 128 characters."""
    if value is None:
        return
    if not isinstance(value, str):
        raise ValueError(f"request_id: must be a text, not {shown(value)}")  # noqa: TRY004 - one error type
    if not 0 < len(value) <= MAX_REQUEST_ID:
        raise ValueError(f"request_id: must have 1 to {MAX_REQUEST_ID} characters, not {len(value)}")


def is_traceparent(text: str) -> bool:
    """Whether a text is a valid ``traceparent``: ``00-<32 hex>-<16 hex>-<2 hex>``, neither id all zeros."""
    match = _TRACEPARENT.fullmatch(text) if len(text) <= _MAX_TRACEPARENT else None
    if match is None or text.startswith("ff") or (text.startswith("00") and match[3]):
        return False
    return text.isprintable() and any(one != "0" for one in match[1]) and any(one != "0" for one in match[2])
