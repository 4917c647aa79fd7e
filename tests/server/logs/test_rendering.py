"""Lines as JSON and for people, and which of the two a log gets."""

import json
import os
import pty
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.logs.lines import full_line, request_line
from vipsrv.errors import BadRequest, Busy, InternalError
from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.printable import printable
from vipsrv.server.logs.entries import Entry, LogEntry
from vipsrv.server.logs.rendering import Clock, console_renderer, json_renderer, renderer
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.server.request_ids import NO_IDS, RequestIds
from vipsrv.server.settings import LogFormat
from vipsrv.server.timeline import Timeline

HOSTILE = 'a"b\\c\n\r\x1b]0;title\x07\x00\u202e\u2028\ud800é'
SHOWN = 'a"b\\c\\n\\r\\x1b]0;title\\x07\\x00\\u202e\\u2028\\ud800é'

REQUESTS = {
    "ping": request_line(),
    "full": full_line(),
    "one result": full_line(outputs=full_line().outputs[:1], tls=True),
    "info": full_line(kind="info", outputs=()),
    "version 1": full_line(version=1, request_id=0, peer=""),
    "no header": request_line(version=None, error=BadRequest("no message")),
    "IPv6": request_line(peer=("2001:db8::1", 50123, 0, 0)),
    "identity": request_line(identity=HOSTILE),
    "refused at once": request_line(kind="resize", image_size=9, timeline=Timeline(1.0, replied=1.5)),
    "failed in the queue": full_line(
        source=None,
        outputs=(),
        error=Busy(HOSTILE),
        worker=0,
        timeline=Timeline(1.0, 1.5, 1.5, replied=2.0),
    ),
    "failed in the work": full_line(
        source=None,
        outputs=(),
        error=InternalError(HOSTILE, where=HOSTILE),
        timeline=Timeline(1.0, 1.25, 1.3, 1.5, 0.0, 1.57),
    ),
    "lost": full_line(sent=0.0, lost="the client disconnected"),
    "ids": full_line(ids=RequestIds(HOSTILE, "00-trace-parent-01")),
    "request id": full_line(ids=RequestIds("x", None), sample=10),
    "trace": full_line(ids=RequestIds(None, "00-trace-parent-01")),
}


@pytest.fixture
def terminal() -> Iterator[int]:
    controller, descriptor = pty.openpty()
    yield descriptor
    os.close(controller)
    os.close(descriptor)


@pytest.mark.parametrize("line", REQUESTS.values(), ids=list(REQUESTS))
def test_the_json_of_a_request_has_its_fields(line: RequestLine) -> None:
    line.time = 1.5
    data = json_renderer()(line)
    assert data.count(b"\n") == 1
    assert data.endswith(b"}\n")
    assert data.decode().rstrip("\n").isprintable()
    parsed = json.loads(data)
    assert parsed == {"time": "1970-01-01T00:00:01.500Z", **line.fields()}
    assert next(iter(parsed)) == "time"


# Any text: control characters, lone surrogates, line separators, quotes.
_TEXTS = st.text(st.characters(exclude_categories=[]), max_size=200) | st.sampled_from(
    [HOSTILE, "x\u2028" * 100, "\ud800", "1e400", "NaN"]
)
_SIZES = st.integers(0, 2**63)
_TIMES = st.floats(0, 1e9)
_WORDS = st.sampled_from(["jpeg", "jp2k", "heif-avif"])
_PEERS = st.sampled_from(["", ("192.0.2.1", 1), ("2001:db8::1", 65_535, 0, 0), ("fe80::1%eth0", 1, 0, 2)])
_SOURCES = st.builds(
    ImageInfo,
    format=_WORDS,
    width=_SIZES,
    height=_SIZES,
    pages=_SIZES,
    has_alpha=st.booleans(),
    orientation=_SIZES,
    size=_SIZES,
)
_OUTPUTS = st.builds(OutputInfo, width=_SIZES, height=_SIZES, format=_WORDS, quality=_SIZES, size=_SIZES)
_ERRORS = st.builds(Busy, _TEXTS) | st.builds(InternalError, _TEXTS, where=_TEXTS)


@given(
    st.builds(
        RequestLine,
        connection=_SIZES,
        peer=_PEERS,
        identity=st.none() | _TEXTS,
        version=st.sampled_from([None, 1, 2]),
        tls=st.booleans(),
        kind=st.sampled_from(["resize", "ping", "kind 77"]),
        request_id=_SIZES,
        image_size=_SIZES,
        received=_SIZES,
        error=st.none() | _ERRORS,
        ids=st.just(NO_IDS) | st.builds(RequestIds, st.none() | _TEXTS, st.none() | _TEXTS.map(printable)),
        timeline=st.none() | st.builds(Timeline, *[_TIMES] * 6),
        source=st.none() | _SOURCES,
        outputs=st.lists(_OUTPUTS, max_size=3).map(tuple),
        worker=_SIZES,
        time=_TIMES,
        sent=_TIMES,
        lost=st.none() | _TEXTS.map(printable),
        sample=st.integers(1, 1000),
    )
)
def test_the_json_of_any_request_has_its_fields(line: RequestLine) -> None:
    data = json_renderer()(line)
    assert data.decode().rstrip("\n").isprintable()
    assert _strictly(data) == {"time": Clock().text(line.time), **line.fields()}


@given(
    _TEXTS,
    _TEXTS,
    st.dictionaries(
        _TEXTS, _TEXTS | _SIZES | st.booleans() | st.none() | st.lists(_TEXTS, max_size=3), max_size=3
    ),
)
def test_any_entry_is_one_line_of_json(logger: str, event: str, extra: dict[str, Any]) -> None:
    entry = LogEntry(1.5, "info", logger, event, extra={"more": extra})
    data = json_renderer()(entry)
    assert data.decode().rstrip("\n").isprintable()
    assert _strictly(data) == {"time": "1970-01-01T00:00:01.500Z", **entry.fields()}
    assert console_renderer(colours=False)(entry).decode().rstrip("\n").isprintable()


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_number_that_json_does_not_have_is_never_written(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_renderer()(LogEntry(0.0, "info", "a", "b", extra={"number": number}))


def _strictly(data: bytes) -> Any:
    """Parse JSON, but not the names that Python takes for numbers."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(data, parse_constant=refuse)


def test_the_fields_of_a_request() -> None:
    assert full_line().fields() == {
        "level": "info",
        "event": "request",
        "connection": 7,
        "id": 3,
        "peer": "192.0.2.1:50123",
        "protocol": "v2",
        "kind": "resize",
        "status": 200,
        "code": "ok",
        "source": {"format": "png", "width": 400, "height": 300, "bytes": 2_712_345},
        "results": [
            {"format": "jpeg", "width": 80, "height": 60, "bytes": 1234},
            {"format": "webp", "width": 40, "height": 30, "bytes": 567},
        ],
        "ratio": 1506.022,
        "ms": {"receive": 250.0, "queue": 250.0, "process": 62.5, "send": 130.0, "total": 700.0},
        "worker": 1234,
    }


@pytest.mark.parametrize("render", [json_renderer(), console_renderer(colours=False)])
@pytest.mark.parametrize(
    "entry",
    [
        REQUESTS["ids"],
        REQUESTS["failed in the work"],
        REQUESTS["identity"],
        LogEntry(0.0, "info", HOSTILE, HOSTILE, extra={"name": [{HOSTILE: HOSTILE}]}),
    ],
)
def test_hostile_text_stays_one_printable_line(render: Any, entry: Any) -> None:
    line = render(entry).decode()
    assert line.count("\n") == 1
    assert line.rstrip("\n").isprintable()
    assert "\\x1b]0;title" in line.replace("\\\\", "\\")


def test_hostile_text_is_the_same_in_json() -> None:
    assert json.loads(json_renderer()(LogEntry(0.0, "info", "a", HOSTILE)))["event"] == SHOWN


def test_a_traceback_is_on_lines_of_its_own_for_people() -> None:
    entry = LogEntry(0.0, "error", "a", "failed", traceback="Traceback:\n  \x1b[31mValueError\n")
    text = console_renderer(colours=False)(entry).decode()
    assert text == "1970-01-01T00:00:00.000Z [error    ] failed [a]\nTraceback:\n  \\x1b[31mValueError\n"
    assert json.loads(json_renderer()(entry))["exception"] == "Traceback:\n  \\x1b[31mValueError"


def test_a_request_for_people() -> None:
    line = full_line(error=BadRequest("what for?"), lost="gone")
    text = console_renderer(colours=False)(line).decode()
    assert text == (
        "1970-01-01T00:00:00.000Z [info     ] request connection=7 id=3 peer=192.0.2.1:50123 protocol=v2 "
        "kind=resize status=400 code=bad_request source='png 400×300 2712345 B' "
        "results='jpeg 80×60 1234 B, webp 40×30 567 B' ratio=1506.022 "
        "ms='receive 250.0, queue 250.0, process 62.5, send 130.0, total 700.0' worker=1234 "
        "error='what for?' lost=gone\n"
    )


@pytest.mark.parametrize(
    ("chosen", "on_terminal", "no_color", "expected"),
    [
        (LogFormat.AUTO, True, "", "colours"),
        (LogFormat.AUTO, True, "1", "console"),
        (LogFormat.AUTO, False, "", "json"),
        (LogFormat.CONSOLE, True, "", "colours"),
        (LogFormat.CONSOLE, True, "1", "console"),
        (LogFormat.CONSOLE, False, "", "console"),
        (LogFormat.JSON, True, "", "json"),
        (LogFormat.JSON, False, "", "json"),
    ],
)
def test_the_form_of_a_log(
    monkeypatch: pytest.MonkeyPatch,
    terminal: int,
    chosen: LogFormat,
    on_terminal: bool,  # noqa: FBT001 - a parameter of the test
    no_color: str,
    expected: str,
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    with open(os.devnull, "wb") as null:  # noqa: PTH123 - its descriptor is needed
        line = renderer(chosen, terminal if on_terminal else null.fileno())(full_line()).decode()
    forms = {
        "json": line.startswith("{"),
        "colours": "\x1b[" in line,
        "console": "\x1b[" not in line and not line.startswith("{"),
    }
    assert [form for form, holds in forms.items() if holds] == [expected]


def test_times_have_milliseconds_and_are_utc() -> None:
    clock = Clock()
    assert clock.text(1_000_000_000.0) == "2001-09-09T01:46:40.000Z"
    assert clock.text(1_000_000_000.9999) == "2001-09-09T01:46:40.999Z"
    assert clock.text(1_000_000_001.25) == "2001-09-09T01:46:41.250Z"
    assert re.fullmatch(r"1970-01-01T00:00:0\d\.001Z", clock.text(5.0015))


@pytest.mark.parametrize("entry", [*REQUESTS.values(), LogEntry(1.5, "info", "one", "started")])
def test_lines_of_several_gateways_name_theirs(entry: Entry) -> None:
    assert json.loads(json_renderer(2)(entry))["gateway"] == 2
    assert console_renderer(2, colours=False)(entry).endswith(b"gateway=2\n")
