"""``vipsrv batch`` as a user runs it: processes, signals, files, output and exit codes."""

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from tests.support.images import jpeg
from tests.support.running_server import RunningServer
from vipsrv.cli.exit_codes import ExitCode
from vipsrv.cli.server import app

SECONDS = 120
PROGRAM = [sys.executable, "-m", "vipsrv", "batch"]
OPTIONS = ["--sizes", "16x,x24", "--format", "webp"]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")}


def run(*arguments: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=environment(),
        cwd=cwd,
    )


def call(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """The same in this process, which takes a third of the time."""
    done = CliRunner().invoke(app, ["batch", *map(str, arguments)], catch_exceptions=False)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def files_in(folder: Path) -> dict[str, bytes]:
    """The content of each file by its path, without the manifest."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".vipsrv" not in path.parts
    }


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with RunningServer("--workers", "1") as server:
        yield server


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with ten images, of which two are broken."""
    folder = tmp_path / "photos"
    for index in range(10):
        path = folder / ("even" if index % 2 == 0 else "odd") / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = jpeg(40 + 8 * index, 30, seed=index)
        path.write_bytes(data[: len(data) // 2] if index in (3, 4) else data)
    return folder


COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]")
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"

GOOD = {f"{'even' if index % 2 == 0 else 'odd'}/{index}.jpg" for index in range(10) if index not in (3, 4)}
BROKEN = {"odd/3.jpg", "even/4.jpg"}


def at(server: RunningServer) -> list[str]:
    return ["--server", f"127.0.0.1:{server.port}"]


# What it does


def test_it_does_all_images_and_says_what_happened(
    server: RunningServer, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("photos", "out", *OPTIONS, *at(server), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (ExitCode.REFUSED, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("done: 8 images done, 2 failed, 0 skipped, in ")
    assert lines[2] == "failed: 2 × 422 corrupt_image"
    assert {line.split(": ")[0].strip() for line in lines[3:5]} == BROKEN
    command = " ".join(["vipsrv batch photos out", *OPTIONS, *at(server)])
    assert lines[5:] == [
        "manifest: out/.vipsrv/parts",
        f"try the failed ones again: {command} --retry-failed",
    ]
    stems = [key.removesuffix(".jpg") for key in GOOD]
    assert set(files_in(tmp_path / "out")) == {
        f"{stem}_{size}.webp" for stem in stems for size in ("16x", "x24")
    }

    monkeypatch.chdir(tmp_path)
    again = call("photos", "out", *OPTIONS, *at(server))
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith("done: 0 images done, 0 failed, 10 skipped, 2 of them failed before, in ")
    assert again.stdout.splitlines()[-1].endswith(" --retry-failed")

    (images / "odd" / "3.jpg").write_bytes(jpeg(40, 30))
    retried = call("photos", "out", *OPTIONS, *at(server), "--retry-failed", "--json")
    assert {row["key"]: row["code"] for row in rows_of(retried.stdout)} == {
        "odd/3.jpg": "ok",
        "even/4.jpg": "corrupt_image",
    }


def test_only_failures_with_one_of_the_codes_are_tried_again(
    server: RunningServer, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    call(images, out, *OPTIONS, *at(server))
    other = call("--retry-failed", "busy", "empty", images, out, *OPTIONS, *at(server), "--json")
    assert (other.returncode, other.stdout) == (0, "")
    same = call("--retry-failed", "corrupt_image", images, out, *OPTIONS, *at(server), "--json")
    assert same.returncode == ExitCode.REFUSED
    assert {row["key"] for row in rows_of(same.stdout)} == BROKEN


def test_a_row_of_json_for_each_image_and_the_summary_on_standard_error(
    server: RunningServer, images: Path, tmp_path: Path
) -> None:
    done = call(images, tmp_path / "out", *OPTIONS, *at(server), "--json")
    assert done.returncode == ExitCode.REFUSED
    rows = rows_of(done.stdout)
    assert {row["key"] for row in rows if row["code"] == "ok"} == GOOD
    assert {row["key"] for row in rows if row["status"] == 422} == BROKEN
    written = files_in(tmp_path / "out")
    sizes = {output["key"]: output["bytes"] for row in rows for output in row["outputs"]}
    assert sizes == {key: len(data) for key, data in written.items()}
    assert done.stderr.startswith("done: 8 images done")


def test_filters_choose_the_images(server: RunningServer, images: Path, tmp_path: Path) -> None:
    (images / "notes.txt").write_text("no image, and not taken for one")
    (images / "large.jpg").write_bytes(jpeg(600, 400))
    (images / "old.jpg").write_bytes(jpeg(30, 20))
    os.utime(images / "old.jpg", (0, 0))
    filters = ["--include", "*.jpg", "--exclude", "odd/**", "--max-size", "20KB", "--since", "2000-01-01"]
    done = call(images, tmp_path / "out", *OPTIONS, *at(server), *filters, "--json")
    even = {key for key in GOOD | BROKEN if key.startswith("even/")}
    assert {row["key"] for row in rows_of(done.stdout)} == even
    one = call(images, tmp_path / "out", *OPTIONS, *at(server), "--exclude", "odd/", "--limit", "1", "--json")
    assert {row["key"] for row in rows_of(one.stdout)} < {"large.jpg", "old.jpg"}
    assert len(rows_of(one.stdout)) == 1


def test_a_list_of_keys_and_what_cannot_be_listed(
    server: RunningServer, images: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("odd/1.jpg\nodd/none.jpg\n")
    listed: list[str | Path] = ["--list-format", "text", "--base", images, "--json"]
    done = call(keys, tmp_path / "out", *OPTIONS, *at(server), *listed)
    assert {row["key"]: row["code"] for row in rows_of(done.stdout)} == {
        "odd/1.jpg": "ok",
        "odd/none.jpg": "source_missing",
    }
    os.mkfifo(images / "pipe.jpg")
    arguments: list[str | Path] = [images, tmp_path / "out", *OPTIONS, *at(server), "--include", "pipe.jpg"]
    done = call(*arguments)
    assert done.returncode == 0  # it is left out on purpose
    assert done.stdout.splitlines()[1:3] == [
        "not listed: 1 file or folder",
        "  pipe.jpg: not a regular file",
    ]
    Path(os.fsdecode(os.fsencode(images) + b"/\xff.jpg")).write_bytes(jpeg(40, 30))
    done = call(*arguments)
    assert done.returncode == ExitCode.REFUSED
    assert "the name is not UTF-8" in done.stdout


@pytest.mark.parametrize(
    ("redirection", "fault"),
    [(">&-", "standard output is closed"), ("> /dev/full", "standard output: No space left on device")],
)
def test_rows_need_a_standard_output(
    server: RunningServer, images: Path, tmp_path: Path, redirection: str, fault: str
) -> None:
    arguments = [*PROGRAM, images, tmp_path / "out", *OPTIONS, *at(server), "--json", redirection]
    command = " ".join(map(str, arguments))
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=environment(),
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (ExitCode.FILE, f"vipsrv batch: {fault}")


def test_it_starts_a_server_of_its_own_and_is_silent_if_asked(images: Path, tmp_path: Path) -> None:
    done = run(images / "odd", tmp_path / "out", *OPTIONS, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.REFUSED, "", "")
    assert len(files_in(tmp_path / "out")) == 8


def test_a_dry_run_stores_nothing_and_is_right(server: RunningServer, images: Path, tmp_path: Path) -> None:
    for index in range(10, 60):
        (images / f"{index}.jpg").write_bytes(jpeg(40 + 4 * index, 30 + index, seed=index))
    out = tmp_path / "out"
    arguments: list[str | Path] = [images, out, *OPTIONS, *at(server), "--json"]
    dry = call(*arguments, "--dry-run", "--sample", "30")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert not out.exists()
    found = json.loads(dry.stdout)
    assert (found["images"], found["sampled"], found["counts"]["listed"]) == (60, 30, 60)
    assert found["bytes_in"]["value"] == sum(path.stat().st_size for path in images.rglob("*.jpg"))

    rows = rows_of(call(*arguments).stdout)
    for index, figure in enumerate(found["outputs"]):
        real = sum(row["outputs"][index]["bytes"] for row in rows if row["outputs"])
        assert figure["bytes"]["low"] <= real <= figure["bytes"]["high"]
        assert figure["bytes"]["high"] < 1.5 * real
    assert found["failures"]["low"] <= 2 <= found["failures"]["high"]

    text = call(*arguments[:-1], "--dry-run", "--retry-failed")
    assert text.stdout.splitlines()[:1] == ["listed: 60 images, 58 done before"]
    assert "to do: 2 images, " in text.stdout
    assert "failures: 2; 2 × 422 corrupt_image in the sample" in text.stdout
    nothing = call(*arguments[:-1], "--dry-run")
    assert nothing.stdout.splitlines() == [
        "listed: 60 images, 58 done before, 2 failed before (--retry-failed tries them again)",
        "to do: nothing",
    ]


# How it shows its progress


def on_terminal(arguments: Sequence[str | Path], **variables: str) -> str:
    """What the command writes to a terminal that is its standard error; its output is no terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    unwanted = {"NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR", "COLORTERM", "TERM"}
    kept = {name: value for name, value in environment().items() if name not in unwanted}
    with subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=slave,
        env={**kept, "TERM": "xterm-256color", **variables},
    ) as process:
        os.close(slave)
        said = b""
        try:
            while piece := os.read(master, 65_536):
                said += piece
        except OSError:  # how Linux tells the end
            pass
        finally:
            os.close(master)
        assert process.wait(SECONDS) == ExitCode.REFUSED
    return said.decode()


def test_on_a_terminal_it_shows_a_bar_and_removes_it(
    server: RunningServer, images: Path, tmp_path: Path
) -> None:
    said = on_terminal([images, tmp_path / "out", *OPTIONS, *at(server)])
    assert "images/s" in said
    assert "failed" in said
    assert COLOUR.search(said)
    assert said.count(HIDE_CURSOR) == said.count(SHOW_CURSOR) == 1
    assert not COLOUR.search(on_terminal([images, tmp_path / "out2", *OPTIONS, *at(server)], NO_COLOR="1"))
    assert on_terminal([images, tmp_path / "out3", *OPTIONS, *at(server)], TERM="dumb") == ""


# How it stops


class Batch:
    """A batch that runs, with its rows on standard output; killed at the end of the ``with`` block."""

    def __init__(self, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, *map(str, arguments), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdout: IO[str] = self.process.stdout
        self.stderr: IO[str] = self.process.stderr

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def line_with(self, word: str) -> str:
        """Wait for a line of standard error that has this word."""
        return next(line for line in self.stderr if word in line)


SLOW = ["--sizes", "200x", "--format", "webp", "--effort", "9"]
"""Takes a server some 30 ms for each image."""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Images that take the server two seconds."""
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(60):
        (folder / f"{index:02}.jpg").write_bytes(jpeg(220, 160, seed=index % 7))
    return folder


@pytest.fixture
def own_server() -> Iterator[RunningServer]:
    """A server that a test may stop and continue."""
    with RunningServer("--workers", "1") as server:
        yield server
        server.process.send_signal(signal.SIGCONT)


def finish(arguments: Sequence[str | Path], told: list[dict[str, Any]], many: Path) -> None:
    """Run the same command again: it does what is left, and nothing twice."""
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    keys = [row["key"] for row in (*told, *rows_of(done.stdout))]
    first = {row["key"] for row in told}
    assert len(keys) == len(set(keys))
    # What was safe, but not told any more, is not done again either.
    assert set(keys) <= {path.name for path in many.iterdir()}
    assert first < {path.name for path in many.iterdir()}
    assert {Path(name).name for name in files_in(Path(arguments[1]))} == {
        f"{path.stem}_200x.webp" for path in many.iterdir()
    }


def test_ctrl_c_finishes_what_is_in_flight_and_the_same_command_goes_on(
    own_server: RunningServer, many: Path, tmp_path: Path
) -> None:
    arguments: list[str | Path] = [many, tmp_path / "out", *SLOW, *at(own_server)]
    with Batch(*arguments, "--metrics-listen", "127.0.0.1:0") as batch:
        where = batch.line_with("http://").split()[-1]
        told = rows_of(batch.stdout.readline())
        own_server.process.send_signal(signal.SIGSTOP)  # so that the batch does not end before the signal
        with urllib.request.urlopen(where, timeout=SECONDS) as reply:  # noqa: S310 - of this process
            families = text_string_to_metric_families(reply.read().decode())
        figures = {sample.name: sample.value for family in families for sample in family.samples}
        assert figures["vipsrv_batch_listed_images_total"] == 60
        assert 1 <= figures["vipsrv_batch_images_total"] < 60
        assert figures["vipsrv_batch_in_flight_images"] >= 1
        batch.process.send_signal(signal.SIGINT)
        assert "once more ends it at once" in batch.line_with("stopping ")
        own_server.process.send_signal(signal.SIGCONT)
        told += rows_of(batch.stdout.read())
        said = batch.stderr.read()
        assert batch.process.wait(SECONDS) == ExitCode.INTERRUPTED
    assert f"stopped: {len(told)} images done, 0 failed" in said
    assert f"go on: vipsrv batch {many} {tmp_path / 'out'} " in said
    done = run(*arguments, "--json")
    assert done.returncode == 0
    # All that was in flight was told, so that the two runs together have told each image once.
    assert sorted(row["key"] for row in (*told, *rows_of(done.stdout))) == sorted(
        path.name for path in many.iterdir()
    )


def test_a_second_signal_ends_it_at_once(own_server: RunningServer, many: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = [many, tmp_path / "out", *SLOW, *at(own_server)]
    with Batch(*arguments) as batch:
        told = rows_of(batch.stdout.readline())
        own_server.process.send_signal(signal.SIGSTOP)
        batch.process.send_signal(signal.SIGTERM)
        batch.line_with("stopping ")
        batch.process.send_signal(signal.SIGTERM)  # the server does not answer, so there is no other end
        told += rows_of(batch.stdout.read())
        assert batch.process.wait(SECONDS) == ExitCode.TERMINATED
    own_server.process.send_signal(signal.SIGCONT)
    finish(arguments, told, many)


def test_kill_9_loses_nothing_that_was_told(server: RunningServer, many: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = [many, tmp_path / "out", *SLOW, *at(server)]
    with Batch(*arguments) as batch:
        told = rows_of(batch.stdout.readline())
        batch.process.kill()
        told += [json.loads(line) for line in batch.stdout if line.endswith("\n")]
    finish(arguments, told, many)


def test_it_stops_if_nobody_reads_its_rows(server: RunningServer, many: Path, tmp_path: Path) -> None:
    with Batch(many, tmp_path / "out", *SLOW, *at(server)) as batch:
        batch.stdout.readline()
        batch.stdout.close()
        said = batch.stderr.read()
        assert batch.process.wait(SECONDS) == ExitCode.FILE
    assert said.splitlines()[-1] == ("vipsrv batch: standard output was closed before everything was written")
    assert "go on: vipsrv batch " in said


def test_it_stops_if_too_many_images_fail(server: RunningServer, tmp_path: Path) -> None:
    for index in range(150):
        (tmp_path / f"{index}.jpg").write_bytes(b"\xff\xd8\xff no image")
    done = call(tmp_path, tmp_path / "out", *OPTIONS, *at(server), "--max-error-rate", "50%")
    assert done.returncode == ExitCode.FILE
    assert "images failed, more than 50 %" in done.stderr
    assert done.stdout.startswith("stopped: 0 images done, ")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["photos", "out"], ExitCode.USAGE, "--sizes"),
        (["photos", "--sizes", "32x"], ExitCode.USAGE, "DESTINATION"),
        (["photos", "out", "--sizes", "32"], ExitCode.USAGE, "--sizes: '32' is not a size"),
        (["photos", "out", "--sizes", "32x", "--format", "webp,bmp"], ExitCode.USAGE, "'bmp' is not one of"),
        (["photos", "out", "--sizes", "32x", "--name", "{nothing}"], ExitCode.USAGE, "{nothing} is none of"),
        (["photos", "out", "--sizes", "32x", "--retry-failed=x"], ExitCode.USAGE, "'x' is no code"),
        (["photos", "out", "--sizes", "32x", "--max-error-rate", "2"], ExitCode.USAGE, "is no share"),
        (["photos", "out", "--sizes", "32x", "--quiet", "--json"], ExitCode.USAGE, "exclude each other"),
        (["photos", "out", "--sizes", "32x", "--tls"], ExitCode.USAGE, "that --server names"),
        (["photos", "out", "--sizes", "32x", "--include", "[z"], ExitCode.USAGE, "'[' without ']'"),
        (["photos", "out", "--sizes", "32x", "--since", "later"], ExitCode.USAGE, "'later' is no moment"),
        (["photos", "out", "--sizes", "32x", "--actors", "2"], ExitCode.USAGE, "are for the engine ray"),
        (
            ["photos", "out", "--sizes", "32x", "--engine", "ray", "--server", "unix:x"],
            ExitCode.USAGE,
            "is for the engine local",
        ),
        (["photos", "photos", "--sizes", "32x"], ExitCode.USAGE, "name another destination"),
        (["photos", "out", "--sizes", "32x", "--metrics-listen", "x"], ExitCode.USAGE, "is not HOST:PORT"),
        (["nothing", "out", "--sizes", "32x"], ExitCode.FILE, "nothing: there is no such folder"),
        (
            ["photos", "out", "--sizes", "32x", "--server", "unix:no"],
            ExitCode.NO_SERVER,
            "leave --server out",
        ),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    images: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: ExitCode, words: str
) -> None:
    assert images.name == "photos"
    monkeypatch.chdir(images.parent)
    done = CliRunner().invoke(app, ["batch", *arguments], catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_for_the_figures_is_told_before_anything_starts(images: Path, tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = call(images, tmp_path / "out", *OPTIONS, "--metrics-listen", address)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert done.stderr == f"vipsrv batch: --metrics-listen: {address}: Address already in use\n"
    assert not (tmp_path / "out").exists()


# What it loads


def python(code: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=environment(),
    )


def test_without_pyarrow_it_says_what_to_install(images: Path, tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['pyarrow'] = None; from vipsrv.cli.server import main; main()"
    done = python(blocked, "batch", images, tmp_path / "out", *OPTIONS)
    assert (done.returncode, done.stdout) == (ExitCode.FILE, "")
    assert "pip install 'vipsrv[batch]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["batch", "--help"]])
def test_help_loads_nothing_that_only_a_batch_needs(arguments: list[str]) -> None:
    code = """
import sys
from vipsrv.cli.server import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
    done = python(code, *arguments)
    assert done.returncode == 0
    assert "Usage" in done.stdout
    loaded = set(done.stderr.split())
    assert "vipsrv.cli.batch" in loaded
    unwanted = {
        "pyarrow",
        "obstore",
        "fsspec",
        "ray",
        "rich",
        "sqlite3",
        "prometheus_client",
        "vipsrv.batch.batch_run",
    }
    assert loaded & unwanted == set()
