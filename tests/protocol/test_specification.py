"""The specification in vipsrv/protocol/README.md matches the code."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

import vipsrv.protocol
from tests.protocol.wire import ReaderClass, run
from vipsrv.errors import REQUEST_ERRORS, Busy, UnsupportedFormat
from vipsrv.options import (
    LIST_LENGTHS,
    NUMBER_BOUNDS,
    ImageInfo,
    OutputInfo,
    ResizeOptions,
    ResizeReport,
    ResizeRequest,
    Timings,
)
from vipsrv.protocol import (
    DEFAULT_PORT,
    HEADER,
    MAX_META_SIZE,
    V1_MAX_SIZE,
    V1_REPLY,
    V1_REQUEST,
    Kind,
    ReplyReader,
    RequestReader,
    pack_error,
    pack_message,
)
from vipsrv.protocol.errors import MAX_MESSAGE_LENGTH
from vipsrv.server.connections.login import MOST_HELD
from vipsrv.server.connections.pace import GRACE_SECONDS
from vipsrv.server.connections.served import LINGER_SECONDS, MAX_IN_FLIGHT
from vipsrv.server.connections.transport import PROGRESS_SIZE
from vipsrv.server.settings import ServerSettings
from vipsrv.server.uploads.uploads import SPENT_SECONDS
from vipsrv.version import __version__

TEXT = (Path(vipsrv.protocol.__file__).parent / "README.md").read_text()

RESIZE_META = {"width": 320, "height": 240, "quality": 80}

UPLOAD = "7d1f0e4a9c3b58264f90a1b2c3d4e5f6"
UPLOAD_META = {
    "width": 320,
    "upload": {"id": UPLOAD, "size": 10_485_760, "offset": 8_388_608},
    "fit": "inside",
}

# The name of an example → the same bytes, made by the code, and the side that reads them.
EXAMPLES: dict[str, tuple[bytes, ReaderClass]] = {
    "version 1 request": (V1_REQUEST.pack(53_210, 800, 600), RequestReader),
    "version 1 reply": (V1_REPLY.pack(31_337), ReplyReader),
    "version 1 failure": (pack_error(Kind.RESIZE, 0, UnsupportedFormat("this is no image")), ReplyReader),
    "PING request": (pack_message(Kind.PING, 1), RequestReader),
    "PING reply": (pack_message(Kind.PING | 0x80, 1, status=200), ReplyReader),
    "RESIZE request": (pack_message(Kind.RESIZE, 7, RESIZE_META, body_size=53_210), RequestReader),
    "UPLOAD_STATUS request": (pack_message(Kind.UPLOAD_STATUS, 3, {"id": UPLOAD}), RequestReader),
    "UPLOAD_STATUS reply": (
        pack_message(Kind.UPLOAD_STATUS | 0x80, 3, {"received": 8_388_608, "size": 10_485_760}, status=200),
        ReplyReader,
    ),
    "RESIZE of an upload": (pack_message(Kind.RESIZE, 4, UPLOAD_META, body_size=2_097_152), RequestReader),
    "error reply": (pack_error(Kind.RESIZE, 7, Busy("try again later", retry_after_ms=250)), ReplyReader),
}


NUMBERS = {
    "image size",
    "target width",
    "target height",
    "size of the result",
    "status",
    "request id",
    "meta size",
    "body size",
}


def _examples() -> dict[str, list[tuple[bytes, str]]]:
    """Name → lines of an example, each as its bytes and the note beside them."""
    blocks = re.findall(r"<!-- example: ([\w ]+) -->\n```text\n(.*?)\n```", TEXT, re.DOTALL)
    return {
        name: [(bytes.fromhex(line[:48]), line[49:].removesuffix("\n")) for line in block.splitlines()]
        for name, block in blocks
    }


def _rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = re.split(rf"^#+ {re.escape(heading)}$", TEXT, flags=re.MULTILINE)[1]
    table = re.search(r"(^\|.*\n)+", section, flags=re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table[0].splitlines()[2:]]


def _number(text: str) -> float:
    found = re.search(r"[\d,.]*\d", text)
    assert found is not None
    return float(found[0].replace(",", ""))


def test_every_hex_dump_is_an_example_that_is_checked() -> None:
    assert set(_examples()) == set(EXAMPLES)
    dumps = re.findall(r"^(?:[0-9a-f]{2} )+ ", TEXT, flags=re.MULTILINE)
    assert len(dumps) == sum(len(lines) for lines in _examples().values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_what_the_code_sends(name: str) -> None:
    assert b"".join(data for data, _ in _examples()[name]) == EXAMPLES[name][0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_what_the_code_reads(name: str) -> None:
    data, reader = EXAMPLES[name]
    recorder = run(reader, [data])
    assert recorder.error is None
    assert recorder.seen


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_notes_beside_an_example_are_true(name: str) -> None:
    for data, note in _examples()[name]:
        what, _, value = note.partition(": ")
        if what in NUMBERS:
            assert int.from_bytes(data, "big") == _number(value)
        elif what == "kind":
            assert data == bytes([Kind[value.split()[0]] | (0x80 if value.endswith("+ 0x80") else 0)])
        elif what == "zero":
            assert data == bytes(4)
        elif note in {"magic", "version"}:
            assert data == {"magic": b"VIPS", "version": b"\2"}[note]
        else:
            assert data.decode().rstrip() == note.rstrip()


def test_the_error_table_matches_the_code() -> None:
    rows = [(int(status), code, retryable) for status, code, _, retryable in _rows("Codes")]
    assert rows == [
        (status, error.code, "once" if status == 502 else "yes" if error.retryable else "no")
        for status, error in REQUEST_ERRORS.items()
    ]


def test_the_table_of_kinds_matches_the_code() -> None:
    rows = [(int(row[0]), row[1]) for row in _rows("Requests and replies")]
    assert rows == [(kind.value, kind.name) for kind in Kind]


def test_the_table_of_the_header_matches_the_code() -> None:
    sizes = [int(row[1]) for row in _rows("Version 2") if row[1].isdigit()]
    offsets = [int(row[0]) for row in _rows("Version 2") if row[0]]
    assert offsets == [sum(sizes[:index]) for index in range(len(sizes) + 1)]
    assert sum(sizes) == HEADER.size


def test_the_table_of_options_matches_the_code() -> None:
    rows = {row[0].strip("`"): row for row in _rows("RESIZE")}
    options = dataclasses.fields(ResizeOptions)
    common = ["deadline_ms", "outputs", "placeholder", "upload", "request_id", "traceparent", "tracestate"]
    assert list(rows) == [*(option.name for option in options), *common]
    for option in options:
        _, values, default, _ = rows[option.name]
        assert json.loads(default.strip("`")) == option.default
        if option.name in LIST_LENGTHS:
            (names,) = re.findall(r"`\[([^`]+)\]`", values)
            length = len(names.split(", "))
            _accepts(option.name, [[1] * length], [[1] * (length + 1), "squeeze"])
        elif option.name in NUMBER_BOUNDS:
            smallest, largest = (float(bound) for bound in re.findall(r"[0-9.]+", values))
            _accepts(option.name, [smallest, largest], [smallest - 0.01, largest + 0.01])
        elif "–" in values:
            least, most = (int(bound) for bound in values.split(" – "))
            _accepts(option.name, [least, most], [least - 1, most + 1])
        elif "rrggbb" not in values and values != "a name":
            words = [json.loads(w) if w in {"true", "false"} else w for w in re.findall(r"`([^`]+)`", values)]
            _accepts(option.name, words, ["squeeze"])


def _accepts(name: str, good: list[Any], bad: list[Any]) -> None:
    target = {"width": 8, "height": 6}
    for value in good:
        meta = ResizeOptions.from_meta({**target, name: value}).to_meta()
        assert meta.get(name, value) == value
    for value in bad:
        with pytest.raises(ValueError, match=f"^{name}: must be"):
            ResizeOptions.from_meta({**target, name: value})


def test_the_bounds_of_the_deadline_match_the_code() -> None:
    (values,) = (row[1] for row in _rows("RESIZE") if row[0] == "`deadline_ms`")
    least, most = (int(bound) for bound in values.split(" – "))
    for good in (least, most):
        assert ResizeRequest.from_meta({"width": 8, "height": 6, "deadline_ms": good}).deadline_ms == good
    for bad in (least - 1, most + 1):
        with pytest.raises(ValueError, match="deadline_ms: must be from"):
            ResizeRequest.from_meta({"width": 8, "height": 6, "deadline_ms": bad})


def _json_below(heading: str) -> dict[str, Any]:
    section = re.split(rf"^#+ {heading}$", TEXT, flags=re.MULTILINE)[1]
    block = re.search(r"```json\n(.*?)```", section, flags=re.DOTALL)
    assert block is not None
    meta: dict[str, Any] = json.loads(block[1])
    return meta


def test_the_example_of_a_report_is_valid() -> None:
    meta = _json_below("RESIZE")
    report = ResizeReport.from_meta(meta)
    assert json.loads(json.dumps(report.to_meta())) == meta
    assert report.ratio == round(report.source.size / report.outputs[0].size, 3)
    for part, kind in ((meta["source"], ImageInfo), (meta["outputs"][0], OutputInfo), (meta["ms"], Timings)):
        # A field with a default is only sent where it was asked for.
        always = {one.name for one in dataclasses.fields(kind) if one.default is dataclasses.MISSING}
        assert set(part) == always


def test_the_example_of_a_hello_has_the_defaults() -> None:
    meta = _json_below("HELLO")
    assert meta["server"] == f"vipsrv/{__version__}"
    assert meta["limits"] == {
        "max_upload": _default("max_upload"),
        "max_pixels": _default("max_pixels"),
        "max_output_pixels": _default("max_output_pixels"),
        "deadline_ms": _default("deadline") * 1000,
        "workers": 2,
        "queue_per_client": ServerSettings().client_queue,
    }
    assert meta["uploads"] == {"ttl_s": _default("upload_ttl"), "max_bytes": _default("max_upload")}


def _default(name: str) -> Any:
    return ServerSettings.model_fields[name].default


def test_the_limits_match_the_code() -> None:
    limits = {name: _number(value) for name, value in _rows("Limits")}
    assert limits == {
        "meta": MAX_META_SIZE,
        "message of an error": MAX_MESSAGE_LENGTH,
        "image over version 1": V1_MAX_SIZE,
        "image (`--max-upload`)": _default("max_upload"),
        "pixels of an image (`--max-pixels`)": _default("max_pixels"),
        "pixels of all results of a request (`--max-output-pixels`)": _default("max_output_pixels"),
        "side of a JPEG result": 65_500,
        "side of a WebP result": 16_383,
        "requests in flight on a connection": MAX_IN_FLIGHT,
        "meta before the login": MOST_HELD,
    }


def test_the_timeouts_match_the_code() -> None:
    seconds = [_number(default) for _, default, _ in _rows("Timeouts")]
    receive_timeout = _default("receive_timeout")
    assert seconds == [
        *(receive_timeout, receive_timeout, _default("min_rate")),
        *(_default("idle_timeout"), _default("deadline")),
    ]
    assert f"after the first {GRACE_SECONDS / 60:g} minutes" in _rows("Timeouts")[2][0]
    assert f"at least {PROGRESS_SIZE // 1024} KiB" in _rows("Timeouts")[0][0]


def test_the_numbers_in_the_prose_match_the_code() -> None:
    prose = " ".join(TEXT.split())
    assert f"port {DEFAULT_PORT} by default" in prose
    assert f"JPEG quality is {_default('quality')}, unless" in prose
    assert f"At most {MAX_IN_FLIGHT} requests of a connection" in prose
    assert "and a minute after a successful reply" in prose
    assert SPENT_SECONDS == 60
    assert f"reads and discards for at most {LINGER_SECONDS:g} seconds" in prose


def test_every_link_within_the_text_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", TEXT, flags=re.MULTILINE)
    }
    assert {link.replace("\n", " ") for link in re.findall(r"\]\(#([^)]+)\)", TEXT)} <= anchors
