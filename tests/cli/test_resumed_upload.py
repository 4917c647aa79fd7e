"""What ``vipsrv-client`` sends and shows of an upload that may be resumed."""

import io
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.client.fake_server import FakeServer, Peer
from vipsrv.cli.client import app
from vipsrv.cli.exit_codes import ExitCode
from vipsrv.cli.upload import UploadBar, UploadImage, UploadLines, resumed_at, upload_progress
from vipsrv.cli.upload_ids import content_id
from vipsrv.client.resume import RESUMABLE_FROM
from vipsrv.protocol import Kind

GIVEN = "7d1f0e4a9c3b58264f90a1b2c3d4e5f6"
HELLO: dict[str, Any] = {
    "server": "fake",
    "limits": {},
    "formats": {"in": [], "out": []},
    "fits": [],
    "uploads": {"ttl_s": 60, "max_bytes": 2**40},
}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("VIPSRV_"):
            monkeypatch.delenv(name)
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"an image")
    return path


@pytest.fixture
def large(small: Path) -> Path:
    with small.open("wb") as file:
        file.truncate(RESUMABLE_FROM)
    return small


def invoke(port: int, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["--host", "127.0.0.1", "--port", str(port), *map(str, arguments)])


def asked(image: Path, held: int, *arguments: object) -> tuple[Result, list[dict[str, Any]], bytes]:
    """Run the command with a server that holds a part; return the metas and the body that it was sent."""
    metas: list[dict[str, Any]] = []
    bodies: list[bytes] = []

    def keeper(peer: Peer) -> None:
        size = image.stat().st_size
        while (head := peer.read_head()) is not None:
            body = peer.read_body()
            if head.kind == Kind.HELLO:
                peer.reply(head, **HELLO)
            elif head.kind == Kind.UPLOAD_STATUS:
                metas.append(head.meta)
                peer.reply(head, received=held, size=size if held else None)
            else:
                metas.append(head.meta)
                bodies.append(body)
                result = io.BytesIO()
                Image.new("RGB", (8, 6)).save(result, "jpeg")
                peer.reply(head, body=result.getvalue())

    with FakeServer(keeper) as server:
        done = invoke(server.port, image, "--width", 8, "--height", 6, *arguments)
    assert done.exit_code == 0, done.output
    return done, metas, bodies[0]


def test_a_large_image_has_an_id_by_its_content(large: Path) -> None:
    done, (status, resize), body = asked(large, 5_000_000)
    upload_id = content_id(UploadImage.of_file(large))
    assert status == {"id": upload_id}
    assert resize["upload"] == {"id": upload_id, "size": RESUMABLE_FROM, "offset": 5_000_000}
    assert len(body) == RESUMABLE_FROM - 5_000_000
    assert done.stderr == "vipsrv-client: resumed at 59 %\n"
    assert "resumed at 59 %" in done.stdout


def test_nothing_is_said_if_nothing_was_resumed(large: Path) -> None:
    done, _, body = asked(large, 0)
    assert len(body) == RESUMABLE_FROM
    assert "resumed" not in done.output


def test_nothing_goes_on_if_the_server_has_all_of_it(large: Path) -> None:
    done, _, body = asked(large, RESUMABLE_FROM)
    assert body == b""
    assert done.stderr == ""
    assert "resumed at 100 %" in done.stdout


def test_quiet_is_quiet(large: Path) -> None:
    done, _, _ = asked(large, 5_000_000, "--quiet")
    assert done.output == ""


def test_an_id_may_be_given_for_a_small_image(small: Path) -> None:
    _, (status, resize), body = asked(small, 3, "--upload-id", GIVEN)
    assert status == {"id": GIVEN}
    assert resize["upload"] == {"id": GIVEN, "size": 8, "offset": 3}
    assert body == b"image"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--upload-id", "abc"], "--upload-id: must be 32 lower-case hex digits"),
        (["--upload-id", GIVEN, "--protocol", "1"], "version 1 of the protocol has no --upload-id"),
        (["--upload-id", GIVEN, "another.jpg"], "--upload-id takes one image"),
    ],
)
def test_an_id_that_cannot_be_used(small: Path, arguments: list[str], words: str) -> None:
    done = invoke(1, small, *arguments)
    assert done.exit_code == ExitCode.USAGE
    assert words in done.stderr


def test_lines_come_from_time_to_time(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = UploadLines("vipsrv-client", 1000, clock=lambda: now)
    for now, offset in ((0.0, 100), (1.0, 200), (9.9, 300), (10.0, 400), (19.0, 500), (21.0, 999)):  # noqa: B007 - the clock
        lines.on_resumed(offset)
    assert capsys.readouterr().err.splitlines() == [
        "vipsrv-client: resumed at 10 %",
        "vipsrv-client: resumed at 40 %",
        "vipsrv-client: resumed at 99 %",
    ]


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_bar_says_where_it_was_resumed(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with upload_progress("vipsrv-client", UploadImage.of_file(large), quiet=False) as progress:
        assert isinstance(progress, UploadBar)
        assert progress.on_sent is not None
        progress.on_sent(RESUMABLE_FROM)  # all has left the client, and a part is lost on its way
        progress.on_resumed(RESUMABLE_FROM // 2)
        progress.on_sent(RESUMABLE_FROM * 3 // 4)
    shown = terminal.getvalue()
    assert "sending photo.jpg  [" in shown
    assert "sending photo.jpg (resumed at 50 %)" in shown
    assert shown.rindex(" 75%") > shown.rindex(" 50%") > shown.rindex("100%")


def test_there_is_no_bar_before_something_is_sent(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ExitStack() as stack:
        UploadBar(stack, UploadImage.of_file(large))
    assert terminal.getvalue() == ""


def test_percent_are_never_rounded_up() -> None:
    assert resumed_at(999_999, 1_000_000) == "resumed at 99 %"
