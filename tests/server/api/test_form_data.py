"""Forms with one file, in any split."""

import itertools
import random
import re
from collections.abc import Iterable
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipsrv.errors import BadRequest
from vipsrv.server.api.form_data import (
    MAX_AROUND,
    MAX_HEADERS,
    MAX_NAME,
    MAX_PARTS,
    MAX_VALUE,
    TRANSITIONS,
    FileData,
    FileEnded,
    FileStarted,
    FormEnded,
    FormEvent,
    FormField,
    FormReader,
    FormState,
    form_boundary,
)

BOUNDARY = b"----WebKitFormBoundary7MA4YWxkTrZu0gW"


def part(name: str, content: bytes, *, more: str = "", headers: str = "") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"{more}\r\n{headers}\r\n'.encode() + content


def form(*parts: bytes, boundary: bytes = BOUNDARY) -> bytes:
    return (
        b"".join(b"--" + boundary + b"\r\n" + one + b"\r\n" for one in parts) + b"--" + boundary + b"--\r\n"
    )


def image(content: bytes) -> bytes:
    return part("image", content, more='; filename="a.jpg"', headers="Content-Type: image/jpeg\r\n")


def read(pieces: Iterable[bytes], boundary: bytes = BOUNDARY) -> list[FormEvent]:
    """All events; neighbouring pieces of the file are joined."""
    reader = FormReader(boundary)
    events: list[FormEvent] = []
    for piece in pieces:
        for event in reader.receive(piece):
            last = events[-1] if events else None
            if isinstance(event, FileData) and isinstance(last, FileData):
                assert event.data
                events[-1] = FileData(memoryview(bytes(last.data) + bytes(event.data)))
            else:
                events.append(event)
    reader.receive_eof()
    return events


def refusal(data: bytes, boundary: bytes = BOUNDARY) -> str:
    """The message of the refusal, which is the same for single bytes as for all at once."""
    with pytest.raises(BadRequest) as at_once:
        read([data], boundary)
    with pytest.raises(BadRequest) as one_by_one:
        read((data[at : at + 1] for at in range(len(data))), boundary)
    assert at_once.value.message == one_by_one.value.message
    return at_once.value.message


def test_fields_and_then_a_file() -> None:
    events = read([form(part("width", b"800"), part("fit", b""), image(b"JPEG\r\n--data\r\n"))])
    assert events == [
        FormField("width", "800"),
        FormField("fit", ""),
        FileStarted("image", "a.jpg", "image/jpeg"),
        FileData(memoryview(b"JPEG\r\n--data\r\n")),
        FileEnded(),
        FormEnded(),
    ]


def test_an_empty_file_has_no_data() -> None:
    assert read([form(image(b""))]) == [
        FileStarted("image", "a.jpg", "image/jpeg"),
        FileEnded(),
        FormEnded(),
    ]


@given(
    content=st.one_of(
        st.binary(max_size=300),
        st.text("\r\n-bB", max_size=300).map(str.encode),  # much that looks like a delimiter
    ),
    values=st.lists(st.text(max_size=30), max_size=3),
    cuts=st.lists(st.integers(0, 900), max_size=40),
)
def test_events_are_the_same_for_every_split(content: bytes, values: list[str], cuts: list[int]) -> None:
    boundary = b"bB"
    fields = [value for value in values if "\r\n--bB" not in value]
    if b"\r\n--bB" in b"\r\n" + content:
        return
    data = form(*(part("f", value.encode()) for value in fields), image(content), boundary=boundary)
    at = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    events = read((data[a:b] for a, b in itertools.pairwise(at)), boundary)
    expected: list[FormEvent] = [FormField("f", value) for value in fields]
    expected.append(FileStarted("image", "a.jpg", "image/jpeg"))
    if content:
        expected.append(FileData(memoryview(content)))
    assert events == [*expected, FileEnded(), FormEnded()]


def test_the_file_is_passed_on_as_it_arrives() -> None:
    reader = FormReader(BOUNDARY)
    list(reader.receive(form(image(b""))[: -len(BOUNDARY) - 8]))
    assert reader.state is FormState.FILE
    held = len(b"\r\n--" + BOUNDARY) - 1
    sent = passed_on = 0
    for piece in (b"x" * 1000, b"\r", b"\n--", BOUNDARY[:-1], b"z" * 1000):
        sent += len(piece)
        passed_on += sum(len(one.data) for one in reader.receive(piece) if isinstance(one, FileData))
        assert sent - passed_on <= held
    assert passed_on == sent


def test_data_stays_valid_when_the_buffer_is_used_again() -> None:
    reader = FormReader(BOUNDARY)
    list(reader.receive(b"--" + BOUNDARY + b"\r\n" + image(b"")))
    buffer = bytearray(b"first")
    (event,) = reader.receive(memoryview(buffer))
    buffer[:] = b"other"
    assert isinstance(event, FileData)
    assert bytes(event.data) == b"first"


@pytest.mark.parametrize(
    ("more", "headers", "event"),
    [
        ('; filename="a.jpg"', "", FileStarted("f", "a.jpg", "")),
        ('; filename=""', "", FileStarted("f", "", "")),
        ("; FileName=a.jpg;", "", FileStarted("f", "a.jpg", "")),
        (r'; filename="a\"b\\c.jpg"', "", FileStarted("f", 'a"b\\c.jpg', "")),
        ('; filename="a;b=c.jpg"', "", FileStarted("f", "a;b=c.jpg", "")),
        ('; filename="é.jpg"', "", FileStarted("f", "é.jpg", "")),
        ("; filename*=utf-8''b; filename=a", "", FileStarted("f", "a", "")),
        ("", "Content-Type: image/png\r\n", FileStarted("f", "", "image/png")),
        ("", "X: y\r\nCONTENT-type:image/png\t \r\n", FileStarted("f", "", "image/png")),
        ("; filename*=utf-8''b%20c", "", FileStarted("f", "utf-8''b%20c", "")),
        ('; filename="a"', "Content-Transfer-Encoding: Binary\r\n", FileStarted("f", "a", "")),
    ],
)
def test_what_makes_a_part_a_file(more: str, headers: str, event: FormEvent) -> None:
    assert read([form(part("f", b"", more=more, headers=headers))])[0] == event


def test_a_part_of_plain_text_is_a_field() -> None:
    data = form(part("width", b"8", headers="Content-Type: text/plain; charset=utf-8\r\n"), image(b""))
    assert read([data])[0] == FormField("width", "8")


def test_preamble_epilogue_and_spaces_after_a_delimiter_are_ignored() -> None:
    data = form(image(b"data")).replace(BOUNDARY + b"\r\n", BOUNDARY + b" \t\r\n")
    assert len(read([b"preamble\r\n" + data + b"epilogue"])) == 4
    assert len(read([b"\r\n" + data[:-2]])) == 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends too early"),
        (form(image(b"data"))[:-5], "ends too early"),
        (form(image(b"data"), boundary=b"other"), "ends too early"),
        (b"x" * 2 * MAX_AROUND, "does not begin with the boundary"),
        (b"x" * (MAX_AROUND + 1) + b"\r\n" + form(image(b"")), "does not begin with the boundary"),
        (form(), "has no file"),
        (form(part("width", b"8")), "has no file"),
        (form(image(b"")) + b"x" * (MAX_AROUND + 1), "follow the last delimiter"),
        (form(image(b"")).replace(BOUNDARY + b"\r", BOUNDARY + b"x\r"), "something else than a line break"),
        (form(image(b"")).replace(BOUNDARY + b"\r\n", BOUNDARY + b"\n\r\n"), "something else than a line"),
        (b"--" + BOUNDARY + b" " * (MAX_AROUND + 1), "something else than a line break"),
        (form(image(b"a"), image(b"b")), "image: follows the file"),
        (form(image(b"a"), part("width", b"8")), "width: follows the file"),
        (form(*[part("a", b"")] * (MAX_PARTS + 1)), f"more than {MAX_PARTS} parts"),
        (form(part("a", b"x" * (MAX_VALUE + 1))), f"a: its value has more than {MAX_VALUE} bytes"),
        (form(part("a", b"\xff")), "a: its value is not UTF-8"),
        (form(b"X: " + b"y" * MAX_HEADERS + b"\r\n\r\n"), f"more than {MAX_HEADERS} bytes"),
        (form(b"\r\nno headers"), "has no headers"),
        (form(b"X: y\r\n\r\n"), "lacks 'Content-Disposition: form-data'"),
        (form(b"Content-Disposition: attachment; name=a\r\n\r\n"), "lacks 'Content-Disposition: form-data'"),
        (form(b"Content-Disposition: form-data\r\n\r\n"), f"name of 1 to {MAX_NAME} characters"),
        (form(part("", b"")), f"name of 1 to {MAX_NAME} characters"),
        (form(part("n" * (MAX_NAME + 1), b"")), f"name of 1 to {MAX_NAME} characters"),
        (form(part("a", b"", more='; name="b"')), "has the parameter name twice"),
        (form(part("a", b"", more='; filename="b')), "is not a value followed by parameters"),
        (form(part("a", b"", more=" filename=b")), "is not a value followed by parameters"),
        (
            form(part("a", b"", headers="content-disposition: form-data\r\n")),
            "two headers content-dispositio",
        ),
        (form(part("a", b"", headers=" folded\r\n")), "has an invalid header"),
        (form(part("a", b"", headers="X : y\r\n")), "has an invalid header"),
        (form(part("a", b"", headers="X: y\nZ: z\r\n")), "has an invalid header"),
        (form(part("a", b"", headers="X: y\0\r\n")), "has an invalid header"),
        (form(part("a", b"", headers="X: \xff\r\n").replace("\xff".encode(), b"\xff")), "are not UTF-8"),
        (form(part("a", b"", headers="Content-Transfer-Encoding: base64\r\n")), "must be sent as it is"),
    ],
)
def test_an_invalid_form_is_refused(data: bytes, message: str) -> None:
    assert message in refusal(data)


def test_a_form_stays_refused() -> None:
    reader = FormReader(BOUNDARY)
    with pytest.raises(BadRequest):
        list(reader.receive(form()))
    with pytest.raises(BadRequest, match="invalid before"):
        list(reader.receive(b""))
    with pytest.raises(BadRequest, match="invalid before"):
        reader.receive_eof()


@pytest.mark.parametrize("size", [MAX_VALUE, 0])
def test_what_is_just_within_a_limit(size: int) -> None:
    names = [part("n" * MAX_NAME, b"x" * size)] * (MAX_PARTS - 1)
    assert len(read([b"x" * (MAX_AROUND - 2) + b"\r\n" + form(*names, image(b""))])) == MAX_PARTS + 2


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("image/jpeg", None),
        ("", None),
        ("multipart/mixed; boundary=a", None),
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data ;charset=utf-8; Boundary="a b:c"', b"a b:c"),
        ("multipart/form-data; boundary=" + "a" * 70, b"a" * 70),
    ],
)
def test_the_boundary_of_a_form(content_type: str, boundary: bytes | None) -> None:
    assert form_boundary(content_type) == boundary


@pytest.mark.parametrize(
    "parameters",
    [
        "",
        "; boundary=",
        '; boundary=""',
        "; boundary=" + "a" * 71,
        '; boundary="a "',
        "; boundary=ä",
        "; x",
        '; boundary="a\r\nb"',
        "; boundary=a; boundary=a",
        "; boundary=a b",
    ],
)
def test_a_form_without_a_valid_boundary_is_refused(parameters: str) -> None:
    with pytest.raises(BadRequest, match=r"^Content-Type: "):
        form_boundary("multipart/form-data" + parameters)


def test_python_reads_the_same_parts() -> None:
    data = form(part("width", b"800"), image(bytes(range(256)) * 20))
    head = b"Content-Type: multipart/form-data; boundary=" + BOUNDARY + b"\r\n\r\n"
    message = BytesParser(EmailMessage, policy=HTTP).parsebytes(head + data)
    field, file = message.iter_parts()
    events = read([data])
    assert events[0] == FormField("width", field.get_content())
    started, content = events[1:3]
    assert isinstance(started, FileStarted)
    assert isinstance(content, FileData)
    assert started.filename == file.get_filename()
    assert content.data == file.get_payload(decode=True)


def test_mutated_forms_are_read_or_refused() -> None:
    dice = random.Random(13)
    seed = form(part("width", b"800"), part("fit", b"cover"), image(b"\r\n--" * 20 + bytes(range(256))))
    words = [
        b"\r\n",
        b"--",
        b"\r",
        b'"',
        b";",
        b"\0",
        b"\xff",
        b"--" + BOUNDARY,
        BOUNDARY + b"--",
        b"\r\n\r\n",
    ]
    read_whole = 0
    refusals: list[str] = []
    for _ in range(4000):
        data = bytearray(seed)
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(data))
            change = dice.randrange(4)
            if change == 0:
                data[at : at + dice.randint(1, 40)] = b""
            elif change == 1:
                data[at:at] = dice.choice(words)
            elif change == 2:
                data[at] = dice.randrange(256)
            else:
                data[at:at] = data[dice.randrange(len(data)) :][: dice.randint(1, 80)]
        size = dice.choice([1, 7, 64, len(data)])
        try:
            events = read(bytes(data[at : at + size]) for at in range(0, len(data), size))
        except BadRequest as error:
            refusals.append(error.message)
            continue
        read_whole += 1
        assert [type(one) for one in events if not isinstance(one, FormField | FileData)] == [
            FileStarted,
            FileEnded,
            FormEnded,
        ]
    assert 400 < read_whole < 3900
    assert [one for one in refusals if not re.fullmatch(r"[ -~]+", one)] == []


def test_every_state_can_fail() -> None:
    assert set(TRANSITIONS) == set(FormState)
    assert all(
        FormState.FAILED in after for state, after in TRANSITIONS.items() if state is not FormState.FAILED
    )
