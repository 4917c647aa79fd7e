"""``vipsrv-client`` as a user runs it: a process, its files, its output and its exit code."""

import base64
import errno
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
from types import SimpleNamespace

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.client.fake_server import SECONDS, FakeServer, Peer
from tests.support.images import jpeg
from tests.support.running_server import RunningServer
from vipsrv.cli import server as server_command
from vipsrv.cli.client import app
from vipsrv.cli.demo_image import write_tiff
from vipsrv.cli.exit_codes import ExitCode
from vipsrv.cli.upload import LONG_UPLOAD, UploadImage, upload_progress
from vipsrv.errors import REQUEST_ERRORS, Busy, RequestError
from vipsrv.protocol import REPLY, pack_message
from vipsrv.version import __version__

COMMAND = Path(sys.executable).with_name("vipsrv-client")
PHOTO = jpeg(400, 300)

pytestmark = pytest.mark.skipif(
    not COMMAND.exists(), reason=f"vipsrv is not installed: there is no {COMMAND.name}"
)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "holiday.photo.png"  # the name says nothing of the format
    path.write_bytes(PHOTO)
    return path


def environment(**settings: str) -> dict[str, str]:
    """This environment without the settings of the person who runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")} | settings


def run(*arguments: object, **settings: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        capture_output=True,
        timeout=2 * SECONDS,
        check=False,
        env=environment(**settings),
    )


def at(server: RunningServer | FakeServer) -> list[str]:
    return ["--host", "127.0.0.1", "--port", str(server.port)]


def dimensions(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        return image.size


def assert_one_line(done: "subprocess.CompletedProcess[bytes]", code: int, *words: str) -> None:
    """Check that the command failed with this code and one line of these words, and printed nothing."""
    said = done.stderr.decode()
    assert done.returncode == code, said
    assert said.startswith("vipsrv-client: ")
    assert said.count("\n") == 1
    for word in words:
        assert word in said
    assert done.stdout == b""


# What it does


def test_it_saves_beside_the_image_and_prints_a_report(server: RunningServer, photo: Path) -> None:
    done = run(photo, *at(server))
    assert (done.returncode, done.stderr) == (0, b"")
    saved = photo.with_name("processed_holiday.photo.jpg")
    assert dimensions(saved.read_bytes()) == (800, 600)
    assert photo.read_bytes() == PHOTO
    assert sorted(path.name for path in photo.parent.iterdir()) == [photo.name, saved.name]
    figures = dict(line.split("  ", 1) for line in done.stdout.decode().splitlines())
    assert [name.strip() for name in figures] == [
        "original size",
        "sent",
        "received",
        "server processing",
        "total time",
        "compression ratio",
        "saved",
        "original dimensions",
        "processed dimensions",
    ]
    text = done.stdout.decode()
    assert f"({len(PHOTO):,} bytes)" in text
    assert str(saved) in text
    assert "original dimensions   400 x 300\n" in text
    assert "processed dimensions  800 x 600\n" in text


def test_the_report_as_json(server: RunningServer, photo: Path) -> None:
    done = run(photo, *at(server), "--width", 80, "--height", 60, "--quality", 50, "--json")
    figures = json.loads(done.stdout)
    saved = photo.with_name("processed_holiday.photo.jpg")
    assert figures["image"] == str(photo)
    assert figures["server"] == f"127.0.0.1:{server.port}"
    assert figures["embedded"] is False
    assert figures["original_bytes"] == len(PHOTO)
    assert figures["sent_bytes"] > len(PHOTO)
    assert figures["received_bytes"] > figures["result_bytes"] == saved.stat().st_size
    assert figures["ratio"] == pytest.approx(len(PHOTO) / figures["result_bytes"], abs=1e-3)
    assert set(figures["server_ms"]) == {"receive", "queue", "process", "total"}
    assert figures["total_seconds"] * 1000 > figures["server_ms"]["total"]
    assert (figures["format"], figures["quality"], figures["saved"]) == ("jpeg", 50, str(saved))
    assert figures["original"] == {"width": 400, "height": 300, "by": "Pillow"}
    assert figures["processed"] == {"width": 80, "height": 60, "by": "Pillow"}


def test_version_1(server: RunningServer, photo: Path) -> None:
    done = run(photo, *at(server), "--protocol", 1)
    assert done.returncode == 0, done.stderr
    assert "version 1 of the protocol does not state it" in done.stdout.decode()
    assert dimensions(photo.with_name("processed_holiday.photo.jpg").read_bytes()) == (800, 600)


def test_quiet_prints_nothing(server: RunningServer, photo: Path) -> None:
    done = run(photo, *at(server), "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert photo.with_name("processed_holiday.photo.jpg").exists()


def test_standard_output_is_the_image_alone(server: RunningServer, photo: Path) -> None:
    done = run(photo, *at(server), "--output", "-")
    assert done.returncode == 0
    assert dimensions(done.stdout) == (800, 600)
    assert "compression ratio" in done.stderr.decode()
    assert list(photo.parent.iterdir()) == [photo]


def test_the_server_may_be_set_by_the_environment(server: RunningServer, photo: Path) -> None:
    done = run(photo, "--json", VIPSRV_HOST="127.0.0.1", VIPSRV_PORT=str(server.port))
    assert json.loads(done.stdout)["server"] == f"127.0.0.1:{server.port}"


def test_an_output_may_be_a_file_or_a_folder(server: RunningServer, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert run(photo, *at(server), "-o", tmp_path / "other.jpg").returncode == 0
    assert run(photo, *at(server), "-o", folder).returncode == 0
    assert dimensions((tmp_path / "other.jpg").read_bytes()) == (800, 600)
    assert dimensions((folder / "processed_holiday.photo.jpg").read_bytes()) == (800, 600)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_as_output_is_written_to(server: RunningServer, photo: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    done = run(photo, *at(server), "--output", pipe)
    reader.join(SECONDS)
    assert done.returncode == 0, done.stderr
    assert dimensions(read[0]) == (800, 600)
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="this system has no /dev/stdout")
def test_dev_stdout_as_output(server: RunningServer, photo: Path) -> None:
    done = run(photo, *at(server), "--output", "/dev/stdout", "--quiet")
    assert done.returncode == 0, done.stderr
    assert dimensions(done.stdout) == (800, 600)
    assert list(photo.parent.iterdir()) == [photo]


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="this system has no /dev/stdout")
def test_a_pipe_that_is_closed_during_the_write(server: RunningServer, photo: Path) -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [COMMAND, photo, *at(server), "--output", f"/dev/fd/{writing}", "--format", "tiff"],
        pass_fds=[writing],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    os.close(writing)
    with process:
        os.read(reading, 1)
        os.close(reading)
        out, said = process.communicate(timeout=SECONDS)
    done = subprocess.CompletedProcess[bytes](process.args, process.returncode, out, said)
    assert_one_line(done, ExitCode.FILE, f"/dev/fd/{writing}: Broken pipe")


def test_help_and_version() -> None:
    text = " ".join(run("--help").stdout.decode().split())
    for code in ExitCode:
        assert f"; {code.value} " in text[text.index("Exit codes: 0 done") :]
    assert run("--version").stdout.decode() == f"vipsrv-client {__version__}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no pseudo-terminals")
def test_a_long_upload_shows_its_progress_on_a_terminal(server: RunningServer, tmp_path: Path) -> None:
    large = tmp_path / "large.tif"
    write_tiff(large, 2000, 1500)
    assert large.stat().st_size > LONG_UPLOAD
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        done = subprocess.run(
            [COMMAND, large, *at(server)],
            stdout=subprocess.PIPE,
            stderr=theirs,
            check=True,
            env=environment(),
        )
        os.close(theirs)
        shown = terminal.read(100_000).decode()
    assert "sending large.tif" in shown
    assert "100%" in shown
    assert b"compression ratio" in done.stdout
    assert run(large, *at(server)).stderr == b""  # no terminal, no bar


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no pseudo-terminals")
def test_no_progress_is_shown_where_nothing_listens(tmp_path: Path) -> None:
    large = tmp_path / "large.tif"
    with large.open("wb") as file:
        file.truncate(LONG_UPLOAD)
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        arguments = [str(large), "--port", str(closed.getsockname()[1])]
        done = subprocess.run([COMMAND, *arguments], stderr=theirs, check=False, env=environment())
        os.close(theirs)
        shown = terminal.read(100_000).decode()
    assert done.returncode == ExitCode.NO_SERVER
    assert "connection refused" in shown
    assert "sending" not in shown


# What goes wrong


@pytest.mark.parametrize("link", [None, os.symlink, os.link], ids=["itself", "symlink", "hard link"])
def test_the_image_is_never_overwritten(
    server: RunningServer, photo: Path, tmp_path: Path, link: object
) -> None:
    output = photo
    if callable(link):
        output = tmp_path / "link"
        link(photo, output)
    assert_one_line(run(photo, *at(server), "--output", output), ExitCode.USAGE, "never overwritten")
    assert photo.read_bytes() == PHOTO


def test_a_link_at_the_default_name_is_replaced(server: RunningServer, photo: Path) -> None:
    link = photo.with_name("processed_holiday.photo.jpg")
    link.symlink_to(photo)
    assert run(photo, *at(server)).returncode == 0
    assert photo.read_bytes() == PHOTO
    assert not link.is_symlink()
    assert dimensions(link.read_bytes()) == (800, 600)


def test_no_such_file(tmp_path: Path) -> None:
    assert_one_line(run(tmp_path / "none.jpg"), ExitCode.FILE, f"{tmp_path / 'none.jpg'}: No such file")
    assert_one_line(run(tmp_path), ExitCode.FILE, str(tmp_path))


@pytest.mark.parametrize("question", [[], ["--info"]])
def test_empty_files_and_devices_are_refused(tmp_path: Path, question: list[str]) -> None:
    empty = tmp_path / "empty.jpg"
    empty.touch()
    with FakeServer() as fake:  # which is not asked
        done = run(empty, *at(fake), *question)
        assert_one_line(done, ExitCode.FILE, f"{empty}: the file is empty")
        done = run("/dev/null", *at(fake), *question)
        assert_one_line(done, ExitCode.FILE, "/dev/null: not a regular file")


def test_an_unreadable_file_is_a_file_error(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.R_OK)

    def forbidden(*_: object, **__: object) -> object:
        raise PermissionError(errno.EACCES, "Permission denied", str(photo))

    monkeypatch.setattr("vipsrv.client.sources.open", forbidden, raising=False)
    with FakeServer() as fake:
        done = invoke(photo, *at(fake))
    assert (done.exit_code, done.stderr) == (ExitCode.FILE, f"vipsrv-client: {photo}: Permission denied\n")


def test_no_such_folder(server: RunningServer, photo: Path, tmp_path: Path) -> None:
    done = run(photo, *at(server), "--output", tmp_path / "none" / "x.jpg")
    assert_one_line(done, ExitCode.FILE, f"{tmp_path / 'none'}: no such folder")


def test_a_read_only_folder_is_refused_beforehand(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    with FakeServer() as fake:  # which is not asked
        done = invoke(photo, *at(fake))
    assert done.exit_code == ExitCode.FILE
    assert f"{photo.parent}: the folder is not writable; name another one with --output" in done.stderr


def test_connection_refused(photo: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = run(photo, "--port", port)
    assert_one_line(
        done, ExitCode.NO_SERVER, f"127.0.0.1:{port}: connection refused", "vipsrv serve", "--port"
    )


def test_a_file_that_is_not_an_image(server: RunningServer, tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("This is no image, whatever its name says.\n" * 10)
    done = run(text, *at(server))
    assert_one_line(done, ExitCode.REFUSED, "the server answered 415 unsupported_format: ", "convert it")
    assert list(tmp_path.iterdir()) == [text]


@pytest.mark.parametrize("error", REQUEST_ERRORS.values(), ids=lambda error: error.code)
def test_every_refusal_is_one_line(photo: Path, error: type[RequestError]) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.refuse(head, error("for a\nreason"))

    with FakeServer(script) as fake:
        done = invoke(photo, *at(fake), "--retries", 0)
    assert done.exit_code == ExitCode.REFUSED
    assert f"vipsrv-client: the server answered {error.status} {error.code}: for a\\nreason" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_of_another_protocol(photo: Path) -> None:
    def script(peer: Peer) -> None:
        peer.socket.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
        peer.read_to_end()

    with FakeServer(script) as fake:
        done = run(photo, *at(fake))
    assert_one_line(
        done,
        ExitCode.NO_SERVER,
        "not a version 2 reply",
        "check that a vipsrv server listens at that address",
    )


def test_a_connection_that_breaks(photo: Path) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()

    with FakeServer(script, script) as fake:
        assert_one_line(
            run(photo, *at(fake), "--retries", 1),
            ExitCode.NO_SERVER,
            *("was lost", "closed by the server before it", "(after 2 attempts)"),
        )


def test_a_timeout(photo: Path) -> None:
    def script(peer: Peer) -> None:
        peer.read_to_end()

    with FakeServer(script) as fake:
        done = run(photo, *at(fake), "--timeout", 0.1)
    assert_one_line(done, ExitCode.TIMEOUT, "the call took longer than its 0.1 s", "--timeout")


def test_version_1_refuses_other_options(photo: Path) -> None:
    done = run(photo, "--port", 1, "--protocol", 1, "--quality", 50)
    assert_one_line(
        done, ExitCode.USAGE, "--quality: version 1 of the protocol has only a width and a height"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--width", "0"],
        ["--protocol", "3"],
        ["--port", "x"],
        ["--quality", "101"],
        ["--timeout", "inf"],
        ["--timeout", "1e12"],
        ["--no-such"],
    ],
)
def test_usage(photo: Path, arguments: list[str]) -> None:
    done = run(photo, *arguments)
    assert done.returncode == ExitCode.USAGE
    assert arguments[0] in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_quiet_and_json_exclude_each_other(photo: Path) -> None:
    error = failure(run(photo, "--quiet", "--json"), ExitCode.USAGE)
    assert error["message"] == "--quiet and --json exclude each other"


def _as_in_a_terminal() -> None:
    # A process that a shell started in the background, such as the tests, ignores the signal.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are different there")
def test_ctrl_c_is_silent(photo: Path) -> None:
    is_there = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        is_there.set()
        peer.read_to_end()

    with FakeServer(script) as fake:
        process = subprocess.Popen(
            [COMMAND, photo, *at(fake)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            preexec_fn=_as_in_a_terminal,  # noqa: PLW1509 - nothing but a signal's disposition
        )
        with process:
            assert is_there.wait(SECONDS)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (ExitCode.INTERRUPTED, (b"", b""))
    assert list(photo.parent.iterdir()) == [photo]


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe shows otherwise there")
def test_standard_output_that_is_closed(server: RunningServer, photo: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [COMMAND, photo, *at(server), "--output", "-"],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        env=environment(),
    )
    os.close(writing)
    done.stdout = b""
    assert_one_line(done, ExitCode.FILE, "standard output was closed")


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe shows otherwise there")
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_standard_output_that_is_closed_after_a_part(
    server: RunningServer, photo: Path, unbuffered: str
) -> None:
    process = subprocess.Popen(
        [COMMAND, photo, *at(server), "--output", "-", "--format", "tiff", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(PYTHONUNBUFFERED=unbuffered),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        # The result is larger than a pipe, so the command is still writing when the reader closes it.
        process.stdout.read(1)
        process.stdout.close()
        said = process.stderr.read()
    done = subprocess.CompletedProcess[bytes](process.args, process.returncode, b"", said)
    assert_one_line(done, ExitCode.FILE, "standard output was closed")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such shell")
def test_standard_output_that_was_never_open(photo: Path) -> None:
    with FakeServer() as fake:  # which is not asked
        done = subprocess.run(
            ["/bin/sh", "-c", 'exec "$0" "$@" >&-', COMMAND, photo, *at(fake), "--output", "-"],
            capture_output=True,
            check=False,
            env=environment(),
        )
    assert_one_line(done, ExitCode.FILE, "standard output is closed")


def test_no_progress_where_standard_error_was_never_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large.tif"
    with large.open("wb") as file:
        file.truncate(LONG_UPLOAD)
    monkeypatch.setattr(sys, "stderr", None)
    with upload_progress("vipsrv-client", UploadImage.of_file(large), quiet=False) as progress:
        assert progress.on_sent is None
        progress.on_resumed(5)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [[], ["--output", "-"]])
def test_standard_output_that_is_full(server: RunningServer, photo: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, photo, *at(server), *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            env=environment(PYTHONUNBUFFERED=""),
        )
    done.stdout = b""
    assert_one_line(done, ExitCode.FILE, "No space left on device")


# Standard input


def run_with_input(data: bytes, folder: Path, *arguments: object) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        input=data,
        capture_output=True,
        timeout=2 * SECONDS,
        check=False,
        cwd=folder,
        env=environment(),
    )


def test_the_image_may_come_from_standard_input(server: RunningServer, tmp_path: Path) -> None:
    done = run_with_input(PHOTO, tmp_path, "-", *at(server), "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["image"], figures["saved"]) == ("-", "processed_stdin.jpg")
    assert figures["original_bytes"] == len(PHOTO)
    assert figures["original"] == {"width": 400, "height": 300, "by": "Pillow"}
    assert dimensions((tmp_path / "processed_stdin.jpg").read_bytes()) == (800, 600)


@pytest.mark.parametrize("protocol", [1, 2])
def test_from_standard_input_to_standard_output(server: RunningServer, tmp_path: Path, protocol: int) -> None:
    done = run_with_input(PHOTO, tmp_path, "-", *at(server), "-o", "-", "--protocol", protocol)
    assert dimensions(done.stdout) == (800, 600)
    assert list(tmp_path.iterdir()) == []


def test_the_facts_of_an_image_on_standard_input(server: RunningServer, tmp_path: Path) -> None:
    done = run_with_input(PHOTO, tmp_path, "-", *at(server), "--info", "--json")
    assert json.loads(done.stdout)["size"] == len(PHOTO)


def test_standard_input_that_is_empty_or_closed(tmp_path: Path) -> None:
    with FakeServer() as fake:  # which is not asked
        done = run_with_input(b"", tmp_path, "-", *at(fake))
        assert_one_line(done, ExitCode.FILE, "standard input is empty")
        if sys.platform != "win32":
            closed = subprocess.run(
                ["/bin/sh", "-c", 'exec "$0" "$@" <&-', COMMAND, "-", *at(fake)],
                capture_output=True,
                check=False,
                env=environment(),
            )
            assert_one_line(closed, ExitCode.FILE, "standard input is closed")


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no pseudo-terminals")
def test_a_terminal_is_not_read_as_an_image() -> None:
    ours, theirs = os.openpty()
    with FakeServer() as fake:  # which is not asked
        done = subprocess.run(
            [COMMAND, "-", *at(fake)], stdin=theirs, capture_output=True, check=False, env=environment()
        )
    os.close(theirs)
    os.close(ours)
    assert_one_line(done, ExitCode.FILE, "standard input is a terminal")


def test_a_file_on_standard_input_is_not_overwritten(server: RunningServer, photo: Path) -> None:
    with photo.open("rb") as file:
        done = subprocess.run(
            [COMMAND, "-", *at(server), "-o", photo],
            stdin=file,
            capture_output=True,
            check=False,
            env=environment(),
        )
    assert_one_line(done, ExitCode.USAGE, "never overwritten")
    assert photo.read_bytes() == PHOTO


# File names that are not UTF-8, and failures as JSON


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf_8(server: RunningServer, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(name, "wb") as file:  # noqa: PTH123 - bytes are no Path
        file.write(PHOTO)
    texts = []
    for arguments in ([], ["--json"]):
        done = subprocess.run(
            [os.fsencode(COMMAND), name, *map(os.fsencode, [*at(server), *arguments])],
            capture_output=True,
            check=False,
            env=environment(),
        )
        assert done.returncode == 0, done.stderr
        texts.append(done.stdout.decode())
    assert r"processed_caf\xe9.jpg" in texts[0]
    figures = json.loads(texts[1])
    assert figures["saved"] == rf"{tmp_path}/processed_caf\xe9.jpg"
    assert base64.b64decode(figures["image_base64"]) == name
    assert Path(os.fsdecode(base64.b64decode(figures["saved_base64"]))).exists()
    for as_json in (False, True):
        missing = [os.fsencode(COMMAND), name + b"\n\x1b[2J", *([b"--json"] if as_json else [])]
        failed = subprocess.run(missing, capture_output=True, check=False, env=environment())
        said = failed.stderr.decode()
        assert failed.returncode == ExitCode.FILE
        assert said.count("\n") == 1
        text = json.loads(said)["error"]["message"] if as_json else said.removeprefix("vipsrv-client: ")
        assert text.rstrip("\n") == rf"{tmp_path}/caf\xe9.jpg\n\x1b[2J: No such file or directory"


def failure(done: "subprocess.CompletedProcess[bytes]", code: ExitCode) -> dict[str, object]:
    """The error that the command printed as JSON, and nothing else."""
    assert (done.returncode, done.stdout) == (code, b"")
    said = json.loads(done.stderr)
    assert list(said) == ["error"]
    error: dict[str, object] = said["error"]
    assert error["exit_code"] == code
    return error


def test_a_refusal_as_json(photo: Path) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.refuse(head, Busy("full \x1b[2J", retry_after_ms=250))

    with FakeServer(script) as fake:
        error = failure(run(photo, *at(fake), "--json", "--retries", 0), ExitCode.REFUSED)
    assert error == {
        "message": r"the server answered 429 busy: full \x1b[2J",
        "advice": "try again a little later",
        "exit_code": 1,
        "status": 429,
        "code": "busy",
        "retryable": True,
        "retry_after_ms": 250,
        "attempts": 1,
    }


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--width", "0"], ExitCode.USAGE, "--width"),
        (["--no-such"], ExitCode.USAGE, "--no-such"),
        (["--output", "/none/x.jpg"], ExitCode.FILE, "no such folder"),
        (["--port", "1"], ExitCode.NO_SERVER, "connection refused"),
    ],
)
def test_other_failures_as_json(photo: Path, arguments: list[str], code: ExitCode, words: str) -> None:
    error = failure(run(photo, "--json", *arguments), code)
    assert words in str(error["message"])
    assert error["status"] is error["code"] is error["retryable"] is error["retry_after_ms"] is None


def test_a_server_cannot_write_to_the_terminal() -> None:
    hostile = "\x1b]0;t\x07\u202e\n"
    meta = {"server": hostile, "limits": {}, "formats": {"in": [hostile], "out": []}, "fits": []}

    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.socket.sendall(pack_message(head.kind | REPLY, head.request_id, meta, status=200))

    with FakeServer(script) as fake:
        done = run("--formats", *at(fake))
    shown = done.stdout.decode()
    assert all(line.isprintable() for line in shown.splitlines())
    assert shown.count(r"\x1b]0;t\x07\u202e\n") == 2


def test_ping_shows_what_a_server_sends_as_escapes() -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.refuse(head, Busy("\x1b[2J\u202e\n"))

    with FakeServer(script) as fake:
        done = CliRunner().invoke(server_command.app, ["ping", *at(fake)])
    assert (done.exit_code, done.stderr) == (1, "vipsrv: \\x1b[2J\\u202e\\n\n")


def test_formats_shows_the_names_of_libraries_as_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    known = SimpleNamespace(readers={"jpeg": "\x1b[2Jlibjpeg"}, writers=["\u202ejpeg"])
    monkeypatch.setattr(server_command, "formats_of", lambda _: known)
    done = CliRunner().invoke(server_command.app, ["formats"])
    assert done.stdout == "read\n  jpeg     \\x1b[2Jlibjpeg\nwritten\n  \\u202ejpeg\n"


@pytest.mark.parametrize("columns", [50, 60, 100])
def test_help_keeps_to_the_width_of_the_terminal(columns: int) -> None:
    lines = run("--help", COLUMNS=str(columns)).stdout.decode().splitlines()
    assert columns - 15 < max(map(len, lines)) <= columns


# The embedded server


@pytest.fixture
def nothing_listens(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Replace the default port by one on which nothing listens."""
    for name in list(os.environ):
        if name.startswith("VIPSRV_"):
            monkeypatch.delenv(name)
    with socket.socket() as taken:  # bound, so that nobody else gets it, but not listening
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setattr("vipsrv.client.server_address.DEFAULT_PORT", port)
        yield port


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_where_nothing_listens_it_starts_a_server_for_the_call(photo: Path, nothing_listens: int) -> None:
    done = invoke(photo)
    assert done.exit_code == 0, done.stderr
    assert "processed dimensions  800 x 600" in done.stdout
    assert done.stderr.count("\n") == 1
    note = f"nothing listens on 127.0.0.1:{nothing_listens}, so a server was started for this call on "
    assert note in done.stderr
    host, _, port = done.stderr.strip().rpartition(" ")[2].rpartition(":")
    assert port != str(nothing_listens)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), SECONDS)


def test_json_is_alone_on_standard_error(photo: Path, nothing_listens: int) -> None:
    del nothing_listens
    done = invoke(photo, "--json", "--output", "-")
    assert done.exit_code == 0
    assert json.loads(done.stderr)["embedded"] is True
    assert dimensions(done.stdout_bytes) == (800, 600)


def test_quiet_hides_the_note_about_the_server(photo: Path, nothing_listens: int) -> None:
    del nothing_listens
    done = invoke(photo, "--quiet")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")


def test_no_embedded_turns_it_off(photo: Path, nothing_listens: int) -> None:
    done = invoke(photo, "--no-embedded")
    assert done.exit_code == ExitCode.NO_SERVER
    assert f"127.0.0.1:{nothing_listens}: connection refused" in done.stderr


def test_a_port_variable_that_kubernetes_sets_configures_nothing(
    photo: Path, nothing_listens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIPSRV_PORT", "tcp://10.0.0.1:65432")
    done = invoke(photo, "--no-embedded")
    assert done.exit_code == ExitCode.NO_SERVER
    assert f"127.0.0.1:{nothing_listens}: connection refused" in done.stderr


def test_an_invalid_port_variable(photo: Path, nothing_listens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    del nothing_listens
    monkeypatch.setenv("VIPSRV_PORT", "many")
    done = invoke(photo)
    assert done.exit_code == ExitCode.USAGE
    assert "VIPSRV_PORT: must be a port from 1 to 65535, not 'many'" in done.stderr


@pytest.mark.parametrize("setting", [{"VIPSRV_HOST": "127.0.0.1"}, {"VIPSRV_PORT": "{}"}])
def test_a_configured_server_is_not_replaced(
    photo: Path, nothing_listens: int, monkeypatch: pytest.MonkeyPatch, setting: dict[str, str]
) -> None:
    for name, value in setting.items():
        monkeypatch.setenv(name, value.format(nothing_listens))
    done = invoke(photo)
    assert done.exit_code == ExitCode.NO_SERVER
    assert "connection refused" in done.stderr


def test_an_embedded_server_that_does_not_start(
    photo: Path, nothing_listens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    del nothing_listens
    monkeypatch.setenv("VIPSRV_WORKERS", "none")
    done = invoke(photo)
    assert done.exit_code == ExitCode.NO_SERVER
    (line,) = done.stderr.splitlines()
    assert "could not be started: " in line
    assert "VIPSRV_WORKERS" in line
    assert "run 'vipsrv serve' to see more" in line


def test_an_error_of_an_embedded_server_is_one_line(tmp_path: Path, nothing_listens: int) -> None:
    del nothing_listens
    text = tmp_path / "text.jpg"
    text.write_text("no image\n" * 100)
    done = invoke(text, "--quiet")
    assert done.exit_code == ExitCode.REFUSED
    assert done.stderr.count("\n") == 1
