"""``vipsrv-client`` with many images, as a user runs it: which are taken, where results go, how it ends."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.client.fake_server import SECONDS, FakeServer, Peer, Script, every, silent
from tests.support.images import jpeg
from tests.support.running_server import RunningServer
from vipsrv.cli.client import app
from vipsrv.cli.exit_codes import ExitCode
from vipsrv.cli.many_images import MOST_TIMEOUTS
from vipsrv.errors import Busy, Draining, RequestError, Unauthorized, WorkerDied
from vipsrv.protocol import REPLY, Kind, pack_message

COMMAND = Path(sys.executable).with_name("vipsrv-client")
PHOTO = jpeg(40, 30)
HELLO: dict[str, Any] = {
    "server": "fake",
    "limits": {"workers": 1, "queue_per_client": 4},
    "formats": {"in": [], "out": []},
    "fits": [],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which ``pics`` has images, a broken one, a text, and a folder with an image."""
    for name in list(os.environ):
        if name.startswith("VIPSRV_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pics" / "more").mkdir(parents=True)
    for name in ("a.jpg", "b.PNG", "more/c.jpg", ".hidden.jpg"):
        (tmp_path / "pics" / name).write_bytes(PHOTO)
    (tmp_path / "pics" / "bad.jpg").write_bytes(b"no image")
    (tmp_path / "pics" / "notes.txt").write_text("no image either")
    return tmp_path


def invoke(server: RunningServer | FakeServer, *arguments: object) -> Result:
    there = ["--host", "127.0.0.1", "--port", str(server.port)]
    return CliRunner().invoke(app, [*there, "--width", "20", *map(str, arguments)])


def made(folder: Path) -> list[str]:
    """The results in a folder, and below it."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    known = {"a.jpg", "b.PNG", "c.jpg", ".hidden.jpg", "bad.jpg", "notes.txt"}
    return sorted(str(path.relative_to(folder)) for path in paths if path.name not in known)


def rows(done: Result) -> dict[str, dict[str, Any]]:
    """The lines of JSON, by image."""
    return {row["image"]: row for row in map(json.loads, done.stdout.splitlines())}


# What is taken, and where the results go


def test_a_folder(server: RunningServer, folder: Path) -> None:
    done = invoke(server, "pics")
    assert done.exit_code == ExitCode.REFUSED
    assert made(folder / "pics") == ["processed_a.jpg", "processed_b.jpg"]
    with Image.open(folder / "pics" / "processed_a.jpg") as image:
        assert image.size == (20, 15)
    figures = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    assert [name.strip() for name in figures] == [
        *("done", "failed", "total time"),
        *("original size", "size of results", "compression ratio"),
    ]
    assert figures["done"].strip() == "2 images"
    assert "1 image failed:\n  pics/bad.jpg: the server answered 415 unsupported_format: " in done.stderr
    assert "processed" not in done.stderr


def test_a_folder_and_its_folders_into_another(server: RunningServer, folder: Path) -> None:
    done = invoke(server, "pics", "--recursive", "--output-dir", "out/x", "--output-sizes", "8x,10x9")
    assert "--output-sizes replaces --width" in done.stderr
    done = invoke(server, "pics", "-r", "--output-dir", "out/x", "--name", "{folder}{stem}-{size}.{ext}")
    assert done.exit_code == ExitCode.REFUSED
    assert made(folder / "out") == ["x/a-20x.jpg", "x/b-20x.jpg", "x/more/c-20x.jpg"]
    assert made(folder / "pics") == []


def test_several_results_of_each(server: RunningServer, folder: Path) -> None:
    there = ["--host", "127.0.0.1", "--port", str(server.port)]
    command = [*there, "pics/a.jpg", "pics/b.PNG", "--output-sizes", "8x,x9", "--json"]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.stderr) == (0, "")
    assert made(folder / "pics") == [
        *("processed_a_12x9.jpg", "processed_a_8x6.jpg"),
        *("processed_b_12x9.jpg", "processed_b_8x6.jpg"),
    ]
    found = rows(done)["pics/b.PNG"]
    assert [output["saved"] for output in found["outputs"]] == [
        *("pics/processed_b_8x6.jpg", "pics/processed_b_12x9.jpg")
    ]
    assert [(output["width"], output["height"]) for output in found["outputs"]] == [(8, 6), (12, 9)]
    assert (found["state"], found["attempts"], found["error"]) == ("done", 1, None)
    assert found["original"] == {"width": 40, "height": 30, "format": "jpeg"}
    assert found["result_bytes"] == sum(output["result_bytes"] for output in found["outputs"])
    assert found["ratio"] == round(len(PHOTO) / found["result_bytes"], 3)


def test_patterns_and_standard_input(server: RunningServer, folder: Path) -> None:
    there = ["--host", "127.0.0.1", "--port", str(server.port), "--width", "20"]
    done = CliRunner().invoke(app, [*there, "pics/[ab].*", "-", "none*.jpg", "--json"], input=PHOTO)
    assert done.exit_code == ExitCode.REFUSED
    found = rows(done)
    assert sorted(found) == ["-", "none*.jpg", "pics/a.jpg", "pics/b.PNG"]
    assert found["-"]["outputs"][0]["saved"] == "processed_stdin.jpg"
    assert found["none*.jpg"]["error"]["message"] == "no file has a name like this"
    assert found["none*.jpg"]["error"]["exit_code"] == ExitCode.FILE
    assert made(folder) == ["pics/processed_a.jpg", "pics/processed_b.jpg", "processed_stdin.jpg"]


def test_what_is_named_is_taken_whatever_it_is_called(server: RunningServer) -> None:
    found = rows(invoke(server, "pics/.hidden.jpg", "pics/notes.txt", "pics/none.jpg", "--json"))
    assert found["pics/.hidden.jpg"]["state"] == "done"
    assert found["pics/notes.txt"]["error"]["code"] == "unsupported_format"
    assert found["pics/none.jpg"]["error"]["message"] == "No such file or directory"


def test_an_image_is_done_once(server: RunningServer, folder: Path) -> None:
    done = invoke(server, "pics/a.jpg", folder / "pics" / "a.jpg", "pics/../pics/a.jpg", "--json")
    assert (done.exit_code, list(rows(done))) == (0, ["pics/a.jpg"])


def test_results_of_earlier_runs_are_no_images(server: RunningServer, folder: Path) -> None:
    for _ in range(2):
        done = invoke(server, "pics/a.jpg", "pics/b.PNG", *sorted((folder / "pics").glob("processed_*")))
        assert done.exit_code == 0
        done = invoke(server, ".", "-r", "--output-dir", "out", "--name", "{folder}{stem}.{ext}", "--json")
        assert sorted(rows(done)) == ["pics/a.jpg", "pics/b.PNG", "pics/bad.jpg", "pics/more/c.jpg"]
    for _ in range(2):
        done = invoke(server, "pics", "-r", "--name", "{stem}_{width}.{ext}", "--json")
        assert sorted(rows(done)) == ["pics/a.jpg", "pics/b.PNG", "pics/bad.jpg", "pics/more/c.jpg"]
    assert made(folder / "pics") == [
        *("a_20.jpg", "b_20.jpg", "more/c_20.jpg", "processed_a.jpg", "processed_b.jpg")
    ]
    # A name of that kind alone is not enough: there is no IMG for it.
    (folder / "pics" / "IMG_20.jpg").write_bytes(PHOTO)
    done = invoke(server, "pics", "--name", "{stem}_{width}.{ext}")
    assert "pics/IMG_20_20.jpg" in {str(path.relative_to(folder)) for path in (folder / "pics").iterdir()}
    assert "left out              4 with the name of a result of an earlier run\n" in done.stdout


def test_a_single_file_with_the_name_of_a_result_is_taken(server: RunningServer, folder: Path) -> None:
    (folder / "processed_x.jpg").write_bytes(PHOTO)
    assert invoke(server, "processed_x.jpg", "--output-dir", "out").exit_code == 0
    assert made(folder / "out") == ["processed_processed_x.jpg"]


@pytest.mark.parametrize(
    "names", [["--name", "{stem}_{size}.{ext}"], ["--name", "{stem}-{width}x{height}.{ext}"], []]
)
def test_existing_results_are_skipped(server: RunningServer, folder: Path, names: list[str]) -> None:
    assert invoke(server, "pics/a.jpg", *names).exit_code == 0
    (existing,) = made(folder / "pics") if names else ["processed_a.jpg"]
    (folder / "pics" / existing).write_bytes(b"kept")
    done = invoke(server, "pics", "--skip-existing", "--json", *names)
    states = {Path(image).name: row["state"] for image, row in rows(done).items()}
    assert states == {"a.jpg": "skipped", "b.PNG": "done", "bad.jpg": "failed"}
    assert (folder / "pics" / existing).read_bytes() == b"kept"
    done = invoke(server, "pics", "--skip-existing", *names)
    assert "skipped               2, whose results exist\n" in done.stdout


def test_two_images_do_not_share_a_result(server: RunningServer, folder: Path) -> None:
    (folder / "pics" / "a.png").write_bytes(PHOTO)
    done = invoke(server, "pics/a.jpg", "pics/a.png", "--json")
    assert done.exit_code == ExitCode.REFUSED
    states = sorted(row["state"] for row in rows(done).values())
    assert states == ["done", "failed"]
    (failed,) = (row for row in rows(done).values() if row["error"])
    assert "another image of this call has the result pics/processed_a.jpg" in failed["error"]["message"]
    assert (failed["error"]["exit_code"], failed["error"]["status"]) == (ExitCode.USAGE, None)


def test_an_image_of_the_call_is_not_overwritten(server: RunningServer, folder: Path) -> None:
    done = invoke(
        server, "pics/a.jpg", "pics/b.PNG", "--output-dir", "pics", "--name", "{stem}.{ext}", "--json"
    )
    assert (folder / "pics" / "a.jpg").read_bytes() == PHOTO
    # It has the name of a result in the output folder.
    assert list(rows(done)) == ["pics/b.PNG"]
    done = invoke(server, "pics/a.jpg", "--output-dir", "pics", "--name", "{stem}.{ext}", "--json")
    assert "is the source image" in rows(done)["pics/a.jpg"]["error"]["message"]
    assert (folder / "pics" / "a.jpg").read_bytes() == PHOTO


def test_a_result_that_cannot_be_saved_is_named(server: RunningServer, folder: Path) -> None:
    (folder / "pics" / "processed_a.jpg" / "in_the_way").mkdir(parents=True)
    done = invoke(server, "pics/a.jpg", "pics/b.PNG")
    assert done.exit_code == ExitCode.REFUSED
    assert "  pics/a.jpg: pics/processed_a.jpg: Is a directory\n" in done.stderr


def test_links_to_folders_are_not_followed_and_unreadable_folders_are_told(
    server: RunningServer, folder: Path
) -> None:
    (folder / "pics" / "more" / "loop").symlink_to(folder / "pics", target_is_directory=True)
    (folder / "pics" / "link.jpg").symlink_to("a.jpg")
    (folder / "pics" / "nowhere.jpg").symlink_to("none.jpg")
    closed = folder / "pics" / "closed"
    closed.mkdir()
    (closed / "d.jpg").write_bytes(PHOTO)
    closed.chmod(0)
    try:
        readable = os.access(closed, os.R_OK)  # for root everything is
        found = rows(invoke(server, "pics", "-r", "--json"))
    finally:
        closed.chmod(0o700)
    assert found["pics/link.jpg"]["state"] == "done"
    assert found["pics/nowhere.jpg"]["error"]["message"] == "No such file or directory"
    assert {image for image in found if "loop" in image} == set()
    if readable:
        assert found["pics/closed/d.jpg"]["state"] == "done"
    else:
        assert found["pics/closed"]["error"]["message"] == "Permission denied"
    assert found["pics/more/c.jpg"]["state"] == "done"


def test_nothing_to_do(folder: Path, unused_port: int) -> None:
    (folder / "empty" / "deep").mkdir(parents=True)
    (folder / "empty" / "deep" / "a.jpg").write_bytes(PHOTO)
    there = ["--host", "127.0.0.1", "--port", str(unused_port)]
    done = CliRunner().invoke(app, [*there, "empty"])
    assert done.exit_code == ExitCode.FILE
    text = "vipsrv-client: empty: there are no images; --recursive looks into its folders, too\n"
    assert done.stderr == text
    (folder / "empty" / "processed_x.jpg").write_bytes(PHOTO)
    done = CliRunner().invoke(app, [*there, "empty"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert "left out              1 " in done.stdout


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.jpg", "b.jpg", "--output", "c.jpg"], "--output c.jpg is for the result of one image"),
        (["a.jpg", "b.jpg", "--output", "-"], "--output - is for the result of one image"),
        (["a.jpg", "b.jpg", "--output", ".", "--output-dir", "."], "exclude each other"),
        (["a.jpg", "b.jpg", "--protocol", "1"], "use --protocol 2 for many"),
        (["a.jpg", "b.jpg", "--info"], "--info takes one image"),
        (["pics", "--info"], "--info takes one image"),
        (["a.jpg", "b.jpg", "--formats"], "--formats describes the server and takes no image"),
        (["-", "-"], "standard input (-) is one image; name it once"),
        (["a.jpg", "--name", "{stem}"], "results beside their images need other names"),
        (["a.jpg", "--name", "{stem}_{x}"], "{x} is not a field; the fields are {folder}, {stem}, "),
        (["--recursive"], "the image is missing"),
    ],
)
def test_what_is_refused(unused_port: int, arguments: list[str], words: str) -> None:
    there = ["--host", "127.0.0.1", "--port", str(unused_port)]
    done = CliRunner().invoke(app, [*there, *arguments])
    assert (done.exit_code, done.stdout) == (ExitCode.USAGE, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_quiet_prints_only_failures(server: RunningServer) -> None:
    done = invoke(server, "pics", "--quiet")
    assert done.stdout == ""
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == [
        "vipsrv-client",
        "  pics/bad.jpg",
    ]
    assert invoke(server, "pics/a.jpg", "pics/b.PNG", "--quiet").output == ""


def test_an_output_that_is_a_folder_is_the_folder(server: RunningServer, folder: Path) -> None:
    (folder / "out").mkdir()
    assert invoke(server, "pics/a.jpg", "pics/b.PNG", "--output", "out").exit_code == 0
    assert made(folder / "out") == ["processed_a.jpg", "processed_b.jpg"]


def test_auto_is_named_by_what_was_made(server: RunningServer, folder: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "png")
    (folder / "pics" / "b.PNG").write_bytes(buffer.getvalue())
    done = invoke(server, "pics/a.jpg", "pics/b.PNG", "--format", "auto", "--output-dir", "out")
    assert done.exit_code == 0
    assert made(folder / "out") == ["processed_a.jpg", "processed_b.png"]
    done = invoke(server, "pics/a.jpg", "pics/b.PNG", "--format", "auto", "-o", "out", "--skip-existing")
    assert "skipped               2, whose results exist\n" in done.stdout


# When the server, the connection or the disk fails


def answering(
    *answers: RequestError | None,
) -> Script:
    """A script that answers a HELLO, and then with these errors or results, and with results after them."""

    def script(peer: Peer) -> None:
        left = list(answers)
        while (head := peer.read_head()) is not None:
            peer.read_body()
            if head.kind == Kind.HELLO:
                peer.reply(head, **HELLO)
                continue
            answer = left.pop(0) if left else None
            if answer is None:
                peer.reply(head)
            else:
                peer.refuse(head, answer)

    return script


def breaking(*, says_hello: bool, images: int) -> Script:
    """A script that reads a number of images, and closes the connection within a reply."""

    def script(peer: Peer) -> None:
        if says_hello:
            head, _ = peer.read_request()
            peer.reply(head, **HELLO)
        head = [peer.read_request()[0] for _ in range(images)][-1]
        peer.socket.sendall(pack_message(Kind.RESIZE | REPLY, head.request_id, {}, status=200, body_size=9))

    return script


def answering_only_hello(peer: Peer) -> None:
    """Answer a HELLO, and nothing after it."""
    head, _ = peer.read_request()
    if head.kind == Kind.HELLO:
        peer.reply(head, **HELLO)
    peer.read_to_end()


def test_busy_is_waited_for(folder: Path) -> None:
    del folder
    busy = Busy("the queue is full", retry_after_ms=1)
    with FakeServer(answering(busy, busy, None, busy)) as fake:
        done = invoke(fake, "pics/a.jpg", "pics/b.PNG", "pics/more/c.jpg", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert sum(row["attempts"] for row in rows(done).values()) == 6


def test_a_dead_worker_is_given_one_more_chance() -> None:
    died = WorkerDied("out of memory")
    with FakeServer(answering(died, died, died)) as fake:
        done = invoke(fake, "pics/a.jpg", "pics/b.PNG", "--json")
    found = rows(done).values()
    assert sorted((row["state"], row["attempts"]) for row in found) == [("done", 2), ("failed", 2)]


def test_a_connection_that_breaks_costs_nothing_that_can_be_sent_again() -> None:
    with FakeServer(breaking(says_hello=True, images=2), answering()) as fake:
        done = invoke(fake, "pics/a.jpg", "pics/b.PNG", "pics/more/c.jpg", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    found = rows(done).values()
    assert [row["state"] for row in found] == ["done"] * 3
    assert max(row["attempts"] for row in found) == 2


def test_an_image_whose_connection_breaks_twice_fails_and_the_rest_goes_on() -> None:
    # Three are in flight at a time: on the second connection at least one of those of the first.
    first, second = breaking(says_hello=True, images=3), breaking(says_hello=False, images=3)
    for name in "de":
        Path("pics", f"{name}.jpg").write_bytes(PHOTO)
    with FakeServer(first, second, answering()) as fake:
        done = invoke(
            fake,
            *(f"pics/{name}" for name in ("a.jpg", "b.PNG", "more/c.jpg", "d.jpg", "e.jpg")),
            *("--json", "--retries", "1"),
        )
    assert done.exit_code == ExitCode.REFUSED
    failed = [row for row in rows(done).values() if row["state"] == "failed"]
    assert {(row["attempts"], row["error"]["exit_code"]) for row in failed} == {(2, ExitCode.NO_SERVER)}
    assert len(failed) <= 3
    assert len(rows(done)) == 5


def test_a_refused_token_stops_the_run() -> None:
    with FakeServer(answering(None, Unauthorized("the token is wrong"), Unauthorized("x"))) as fake:
        done = invoke(fake, "pics/a.jpg", "pics/b.PNG", "pics/more/c.jpg", "pics/.hidden.jpg", "--quiet")
    assert done.exit_code == ExitCode.REFUSED
    assert done.stderr.splitlines()[-1].startswith(
        "vipsrv-client: the server answered 401 unauthorized: the token is wrong; name the file"
    )


def test_a_server_that_goes_away_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vipsrv.cli.many_images.RECONNECT_SECONDS", 0.0)

    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.reply(head, **HELLO)
        head, _ = peer.read_request()
        peer.reply(head)
        head, _ = peer.read_request()
        peer.refuse(head, Draining("the server is shutting down"))
        peer.read_to_end()

    with FakeServer(script) as fake:
        done = invoke(fake, "pics/a.jpg", "pics/b.PNG", "--json")
    assert done.exit_code == ExitCode.REFUSED
    assert sorted(row["state"] for row in rows(done).values()) == ["done", "failed"]
    assert json.loads(done.stderr)["error"]["code"] == "draining"


def test_a_server_that_answers_nothing_ends_the_run(folder: Path) -> None:
    for number in range(MOST_TIMEOUTS + 20):
        (folder / "pics" / f"{number}.jpg").write_bytes(PHOTO)

    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.reply(head, **HELLO)
        peer.read_to_end()

    with FakeServer(script) as fake:
        done = invoke(fake, "pics", "--json", "--timeout", "0.05")
    assert done.exit_code == ExitCode.TIMEOUT
    assert MOST_TIMEOUTS <= len(rows(done)) < MOST_TIMEOUTS + 10
    assert {row["error"]["exit_code"] for row in rows(done).values()} == {ExitCode.TIMEOUT}


def test_the_time_of_an_image_is_that_of_all_its_attempts() -> None:
    with FakeServer(breaking(says_hello=True, images=1), silent) as fake:
        done = invoke(fake, "pics/a.jpg", "--output-dir", "out", "--json", "--timeout", "2")
    (row,) = rows(done).values()
    assert (row["attempts"], row["error"]["exit_code"]) == (2, ExitCode.TIMEOUT)
    assert "the image took longer than its 2 s, in 2 attempts" in row["error"]["message"]


def test_what_a_server_that_hangs_has_got_goes_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vipsrv.cli.server_choice.PING_OF_ONE", 0.3)
    servers: list[str] = []
    with FakeServer(*[answering_only_hello] * 9) as hung, FakeServer(*[answering()] * 9) as well:
        for fake in (hung, well):
            servers += ["--server", f"127.0.0.1:{fake.port}"]
        images = ("pics/a.jpg", "pics/b.PNG", "pics/more/c.jpg", "pics/.hidden.jpg")
        done = CliRunner().invoke(app, [*servers, "--width", "20", *images, "--json"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert {row["state"] for row in rows(done).values()} == {"done"}


def test_a_full_disk_ends_the_run(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def full(_self: object, _result: object) -> Path:
        raise OSError(28, "No space left on device", "pics/processed_a.jpg")

    monkeypatch.setattr("vipsrv.cli.output_files.OutputFile.save", full)
    done = invoke(server, "pics/a.jpg", "pics/b.PNG", "--quiet")
    assert done.exit_code == ExitCode.FILE
    assert done.stderr.splitlines()[-1] == "vipsrv-client: pics/processed_a.jpg: No space left on device"
    assert made(folder) == []


def test_no_server(unused_port: int) -> None:
    there = ["--host", "127.0.0.1", "--port", str(unused_port)]
    done = CliRunner().invoke(app, [*there, "pics/a.jpg", "pics/b.PNG"])
    assert (done.exit_code, done.stdout) == (ExitCode.NO_SERVER, "")
    assert "nothing listens there" in done.stderr


def test_a_server_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch, unused_port: int) -> None:
    monkeypatch.setattr("vipsrv.client.server_address.DEFAULT_PORT", unused_port)
    monkeypatch.setenv("VIPSRV_WORKERS", "1")
    done = CliRunner().invoke(app, ["pics/a.jpg", "pics/b.PNG", "--width", "20"])
    assert done.exit_code == 0
    assert "so a server was started for this call" in done.stderr
    assert made(folder / "pics") == ["processed_a.jpg", "processed_b.jpg"]


def _as_in_a_terminal() -> None:
    # A process that a shell started in the background, such as the tests, ignores the signal.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are different there")
@pytest.mark.parametrize(
    ("number", "code", "report"),
    [(signal.SIGINT, ExitCode.INTERRUPTED, ["--json"]), (signal.SIGTERM, ExitCode.TERMINATED, [])],
)
def test_a_signal_finishes_what_is_in_flight(
    folder: Path, number: signal.Signals, code: ExitCode, report: list[str]
) -> None:
    for index in range(40):
        (folder / "pics" / f"{index}.jpg").write_bytes(PHOTO)
    is_there, interrupted = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.reply(head, **HELLO)
        heads = [peer.read_request()[0] for _ in range(3)]
        is_there.set()
        assert interrupted.wait(SECONDS)
        for head in heads:
            peer.reply(head)
        every(peer)  # what was on its way

    with FakeServer(script) as fake:
        process = subprocess.Popen(
            [COMMAND, "pics", "--port", str(fake.port), "--host", "127.0.0.1", *report],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=_as_in_a_terminal,  # noqa: PLW1509 - nothing but a signal's disposition
        )
        with process:
            assert is_there.wait(SECONDS)
            process.send_signal(number)
            interrupted.set()
            out, said = process.communicate(timeout=SECONDS)
    assert process.returncode == code
    saved = len([name for name in made(folder / "pics") if "processed_" in name])
    assert saved >= 3
    if report:
        assert said == b""
        assert [json.loads(line)["state"] for line in out.splitlines()] == ["done"] * saved
    else:
        assert said.decode().splitlines() == [
            "vipsrv-client: stopping after the images that were sent; once more ends it at once",
            f"vipsrv-client: stopped by {number.name}; the same command with --skip-existing goes on",
        ]
        assert out.startswith(f"done                  {saved} images".encode())
