"""``vipsrv top``: the live figures in a terminal, and for scripts."""

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from rich.console import Console

from tests.support.live_stream import LiveStream, errors_event, history_event, live_event
from tests.support.unused_port import unused_port
from vipsrv.cli.quantities import duration, milliseconds, size
from vipsrv.cli.top_view import TopView, sparkline

SECONDS = 60
CTRL_C = b"\x03"


@pytest.fixture
def stream() -> Iterator[LiveStream]:
    with LiveStream() as stream:
        yield stream


def _without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")}


def top(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vipsrv", "top", *arguments],
        env={**_without_settings(), "COLUMNS": "120", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


class Terminal:
    """``vipsrv top`` on a terminal of its own."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self.resize(rows=50, columns=120)
        unwanted = {"NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR", "COLORTERM"}
        known = {name: value for name, value in os.environ.items() if name not in unwanted}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vipsrv", "top", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,  # noqa: PLW1509 - no threads
            env={**known, "TERM": "xterm-256color", **environment},
        )
        os.close(slave)
        self.written = ""
        """All that it has written."""
        self.shown = ""
        """The part of it that no ``wait_for`` has passed."""

    def resize(self, *, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, text: str) -> None:
        """Wait until ``text`` is shown after what was waited for before."""
        end = time.monotonic() + SECONDS
        while text not in self.shown:
            assert time.monotonic() < end, f"no {text!r} in {self.shown[-2000:]!r}"
            self._read(1)
        self.shown = self.shown.partition(text)[2]

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def wait(self) -> int:
        """Read on until the process has ended; return its exit code."""
        while self.process.poll() is None:
            self._read(0.05)
        self._read(0)
        return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _read(self, seconds: float) -> None:
        if select.select([self._master], [], [], seconds)[0]:
            try:
                data = os.read(self._master, 65536).decode("utf-8", "replace")
            except OSError:  # the other side is closed
                return
            self.shown += data
            self.written += data


def test_once_prints_the_figures(stream: LiveStream) -> None:
    stream.begin()
    done = top(stream.address, "--once")
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        "vipsrv 9.8.7",
        "up 1 min",
        "requests 3.2/s",
        "median 6.05 ms",
        "busy 1 of 1",
        "waiting 4",
        "ratio 8.2 ×",
        "connections 12",
        "4321",
        "64 MB",
        "resize 2 MB for 1.2 s, heavy",
        "200 ok 15",
        "429 busy 1",
        "the queue is full",
        "1.23 s",
        "2.5 MB",
    ):
        assert text in done.stdout, text
    assert "\x1b" not in done.stdout


def test_what_is_no_terminal_gets_them_once(stream: LiveStream) -> None:
    stream.begin()
    assert top(stream.address).stdout == _printed(stream)


def _printed(stream: LiveStream) -> str:
    stream.hang_up()
    stream.begin()
    return top(stream.address, "--once").stdout


def test_json_once_is_the_event(stream: LiveStream) -> None:
    stream.begin()
    done = top(f"http://{stream.address}/", "--json", "--once")
    assert done.returncode == 0
    assert json.loads(done.stdout) == live_event()


def test_json_is_a_line_each_second_until_the_stream_ends(stream: LiveStream) -> None:
    stream.begin()
    stream.send("live", live_event(time=1_700_000_101.0))
    stream.hang_up()
    done = top(stream.address, "--json")
    assert [json.loads(line)["time"] for line in done.stdout.splitlines()] == [
        1_700_000_100.0,
        1_700_000_101.0,
    ]
    assert done.returncode == 3
    assert done.stderr == f"vipsrv: the live figures of http://{stream.address} have ended\n"


def test_a_reader_that_leaves_is_no_error(stream: LiveStream) -> None:
    stream.begin()
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "vipsrv", "top", stream.address, "--json"],
        stdout=writer,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(writer)
        os.read(reader, 10)
        os.close(reader)
        while process.poll() is None:
            stream.send("live", live_event())
            time.sleep(0.01)
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_over_a_unix_socket(tmp_path: Path) -> None:
    with LiveStream(path=tmp_path / "ops") as stream:
        stream.begin()
        done = top(stream.address, "--once")
    assert done.returncode == 0
    assert f"unix:{tmp_path}/ops" in done.stdout.replace("\n", "")


@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_no_server(where: str, tmp_path: Path) -> None:
    address = f"127.0.0.1:{unused_port()}" if where == "tcp" else f"unix:{tmp_path}/none"
    done = top(address)
    assert done.returncode == 3
    assert done.stderr.startswith("vipsrv: no ops listener answers at ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            b'HTTP/1.1 429 Too Many Requests\r\n\r\n{"detail": "32 clients already watch \\u001b[2J"}',
            "refuses the live figures: 429 32 clients already watch",
        ),
        (b"HTTP/1.1 404 Not Found\r\n\r\n<html>", "refuses the live figures: 404 Not Found"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", "is no ops listener of vipsrv"),
        (b"\0\0\0\0\0\0", "no ops listener answers"),
        (b"", "no ops listener answers"),
    ],
)
def test_an_answer_without_figures(answer: bytes, message: str) -> None:
    with LiveStream(refusal=answer) as stream:
        done = top(stream.address, "--once")
    assert done.returncode == 3
    assert message in done.stderr
    assert "\x1b" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_says_nothing(stream: LiveStream) -> None:
    done = top(stream.address, "--once", "--timeout", "0.2")
    assert done.returncode == 5
    assert "have stopped" in done.stderr


def test_the_address_comes_from_the_settings(stream: LiveStream, tmp_path: Path) -> None:
    stream.begin()
    assert top("--once", "--no-config", VIPSRV_OPS_LISTEN=stream.address).returncode == 0
    stream.hang_up()
    stream.begin()
    file = tmp_path / "vipsrv.toml"
    file.write_text(f'ops_listen = "{stream.address}"\n')
    assert top("--once", "--config", str(file)).returncode == 0
    off = top("--no-config", VIPSRV_OPS_LISTEN="off")
    assert off.returncode == 2
    assert "'ops_listen' is off" in off.stderr


@pytest.mark.parametrize("address", ["nonsense", "unix:", "https://127.0.0.1:1"])
def test_an_address_that_is_none(address: str) -> None:
    done = top(address)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_words_of_the_server_are_shown_as_they_are(stream: LiveStream) -> None:
    stream.begin("[red]bold[/red] \x1b[2J\x07")
    done = top(stream.address, "--once")
    assert "[red]bold[/red]" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout


def test_the_screen_follows_the_stream_until_ctrl_c(stream: LiveStream) -> None:
    with Terminal(stream.address) as terminal:
        stream.begin()
        terminal.wait_for("\x1b[?1049h")  # the alternate screen
        terminal.wait_for("4321")
        (worker,) = live_event()["workers"]
        workers = [{**worker, "cpu": 2.125, "at": 5000.5}, {**worker, "pid": 8765}]
        stream.send("live", live_event(workers=workers))
        terminal.wait_for("25%")
        terminal.wait_for("8765")
        terminal.press(CTRL_C)
        assert terminal.wait() == 0
        assert "\x1b[?1049l" in terminal.shown
        assert "Traceback" not in terminal.shown


def test_a_stream_that_stops_is_opened_again(stream: LiveStream) -> None:
    with Terminal(stream.address) as terminal:
        stream.begin()
        terminal.wait_for("4321")
        stream.hang_up()
        terminal.wait_for("the figures are old")
        stream.send("live", live_event(ratio=99.0))
        terminal.wait_for("99.0 ×")
        terminal.press(CTRL_C)
        assert terminal.wait() == 0
    assert stream.served == 2


def test_the_screen_takes_the_size_of_the_terminal(stream: LiveStream) -> None:
    with Terminal(stream.address) as terminal:
        stream.begin()
        terminal.wait_for("4321")
        terminal.resize(rows=20, columns=60)
        terminal.process.send_signal(signal.SIGWINCH)
        stream.send("live", live_event(ratio=99.0))
        terminal.wait_for("99.0 ×")
        stream.send("live", live_event(ratio=77.0))
        terminal.wait_for("77.0 ×")  # the frame before is complete
        terminal.press(CTRL_C)
        assert terminal.wait() == 0
    (frame,) = [frame for frame in terminal.written.split("\x1b[H") if "99.0 ×" in frame]
    lines = re.sub(r"\x1b\[[0-9;?]*[mlh]", "", frame).split("\r\n")
    assert len(lines) == 20
    assert max(map(len, lines)) == 60


@pytest.mark.parametrize("variable", [{}, {"NO_COLOR": "1"}])
def test_colours_follow_no_color(stream: LiveStream, variable: dict[str, str]) -> None:
    with Terminal(stream.address, **variable) as terminal:
        stream.begin()
        terminal.wait_for("the queue is full")
        terminal.press(CTRL_C)
        assert terminal.wait() == 0
    has_colours = re.search(r"\x1b\[(?:[0-9]+;)*3[1-7]m", terminal.written) is not None
    assert has_colours == (not variable)


def screen(*events: tuple[str, dict[str, Any]]) -> TopView:
    view = TopView("here")
    for name, data in events:
        view.take(name, data)
    return view


def columns_of(view: TopView, name: str) -> list[float | None]:
    return list(view._columns[name])


def test_seconds_that_were_missed_are_a_gap() -> None:
    view = screen(("history", history_event()))
    later = live_event(columns={**history_event(), "second": 1002, "ok": [3, 4, 5, 6, 7]})
    view.take("live", later)
    assert columns_of(view, "ok") == [1, 2, 3, 4, 5, 6, 7]
    view.take("live", live_event(columns={**history_event(), "second": 1009, "ok": [1, 1, 1, 1, 1]}))
    assert columns_of(view, "ok") == [1, 2, 3, 4, 5, 6, 7, None, None, 1, 1, 1, 1, 1]
    view.take("live", live_event(columns={**history_event(), "second": 3, "ok": [9, 9, 9, 9, 9]}))
    assert columns_of(view, "ok") == [9, 9, 9, 9, 9]


def line_of(view: TopView, title: str) -> str:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(view.render(width=120))
    (line,) = [line for line in console.export_text().splitlines() if line.startswith(f"{title} ")]
    return line


def test_what_is_unknown_is_no_zero() -> None:
    view = TopView("here")
    view.take("live", live_event())
    assert line_of(view, "cores").split()[-1] == "1.5"
    assert line_of(view, "p99").split()[-2:] == ["1.23", "s"]
    unknown = {**history_event(), "cores": [1.0] * 4 + [None], "p99": [1.0] * 4 + [None]}
    view.take("live", live_event(columns={**unknown, "second": 1001}))
    assert line_of(view, "cores").split()[-1] == "–"
    assert line_of(view, "p99").split()[-1] == "–"


def test_errors_alike_are_one_line() -> None:
    (error,) = errors_event("the queue is full")["last"]
    many = [{**error, "time": 1_700_000_000.0 + number} for number in range(7, 0, -1)]
    other = {**error, "message": "another", "time": 1_700_000_003.5}
    view = screen(("live", live_event()), ("errors", {"seen": 8, "last": [*many[:4], other, *many[4:]]}))
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(view.render(width=120))
    lines = console.export_text().splitlines()
    assert [line for line in lines if "the queue is full" in line] == [lines[-2]]
    assert "7 × the queue is full" in lines[-2]
    assert "another" in lines[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (milliseconds(None), "–"),
        (milliseconds(0.0421), "0.0421 ms"),
        (milliseconds(12_345), "12.3 s"),
        (size(None), "–"),
        (size(0), "0 B"),
        (size(999_700), "1 MB"),
        (duration(59), "59 s"),
        (duration(3 * 86_400 + 7200), "3 d 2 h"),
        (sparkline([0, 0]), "▁▁"),
        (sparkline([1, 4, 8]), "▂▅█"),
    ],
)
def test_figures_as_text(text: str, expected: str) -> None:
    assert text == expected
