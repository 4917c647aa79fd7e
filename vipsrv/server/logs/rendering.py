"""Renders an entry as a line: JSON for programs, or columns for people.

structlog's renderers are called directly, without its loggers: they are for code that logs, and every entry
here is already complete.
"""

import json
import os
import time
from collections.abc import Callable
from typing import Any

from vipsrv.server.logs.entries import Entry
from vipsrv.server.logs.request_json import request_json
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.server.settings import LogFormat

Render = Callable[[Entry], bytes]
"""Returns the line of an entry, with its line break."""


def renderer(chosen: LogFormat, descriptor: int, gateway: int | None = None) -> Render:
    """Return the renderer for lines that are written to ``descriptor``; ``gateway`` is a value of each."""
    terminal = os.isatty(descriptor)
    if chosen is LogFormat.JSON or (chosen is LogFormat.AUTO and not terminal):
        return json_renderer(gateway)
    # https://no-color.org
    return console_renderer(gateway, colours=terminal and not os.environ.get("NO_COLOR"))


def json_renderer(gateway: int | None = None) -> Render:
    """Return a renderer that makes one JSON object of each entry."""
    # structlog takes some 40 ms to import, and only a server needs it.
    from structlog.processors import JSONRenderer  # noqa: PLC0415

    # Made once: json.dumps would make a new encoder for each line. Texts are printable already, so that no
    # escapes beyond JSON's own are needed.
    encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str).encode
    render = JSONRenderer(serializer=lambda fields, default: encode(fields))  # noqa: ARG005 - its signature
    clock = Clock()
    last = {} if gateway is None else {"gateway": gateway}
    end = "}" if gateway is None else f',"gateway":{gateway}}}'

    def line(entry: Entry) -> bytes:
        when = clock.text(entry.time)
        if isinstance(entry, RequestLine):
            return _encode(request_json(entry, when)[:-1] + end)
        return _encode(str(render(None, "", {"time": when, **entry.fields(), **last})))

    return line


def console_renderer(gateway: int | None = None, *, colours: bool) -> Render:
    """Return a renderer for people: time, level, event, and the other values as NAME=VALUE."""
    from structlog.dev import ConsoleRenderer, plain_traceback  # noqa: PLC0415 - see above

    render = ConsoleRenderer(
        colors=colours,
        timestamp_key="time",
        sort_keys=False,
        pad_event_to=0,
        exception_formatter=plain_traceback,
    )
    clock = Clock()
    last = {} if gateway is None else {"gateway": gateway}

    def line(entry: Entry) -> bytes:
        shown = {name: _brief(value) for name, value in entry.fields().items()}
        return _encode(render(None, "", {"time": clock.text(entry.time), **shown, **last}))

    return line


class Clock:
    """Formats times as RFC 3339 in UTC with milliseconds; times of one second share most of the work."""

    def __init__(self) -> None:
        self._second = -1
        self._prefix = ""

    def text(self, seconds: float) -> str:
        """Return the text of a time in seconds since the epoch."""
        second = int(seconds)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._prefix}.{int((seconds - second) * 1000):03d}Z"


def _encode(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace") + b"\n"


def _brief(value: Any) -> Any:
    """Return a value of the console's line: lists and objects as short text."""
    if isinstance(value, list | tuple):
        return ", ".join(str(_brief(one)) for one in value)
    if not isinstance(value, dict):
        return value
    if value.keys() == {"format", "width", "height", "bytes"}:
        return f"{value['format']} {value['width']}×{value['height']} {value['bytes']} B"
    if value.keys() == {"bytes"}:
        return f"{value['bytes']} B"
    return ", ".join(f"{name} {_brief(one)}" for name, one in value.items())
