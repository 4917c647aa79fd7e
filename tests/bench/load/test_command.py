"""``python -m bench.load`` as a process that starts its server."""

import io
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from bench import ROOT
from bench.load.__main__ import main
from bench.load.progress import Progress
from bench.load.record import Document, from_json, to_json
from tests.client.fake_server import FakeServer, silent
from tests.support.images import garbage, jpeg

_app = typer.Typer()
_app.command()(main)


def bench_load(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bench.load", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Document:
    folder = tmp_path_factory.mktemp("load")
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "good.jpg").write_bytes(jpeg(320, 240))
    (corpus / "bad.jpg").write_bytes(garbage(2000))
    (corpus / "empty.jpg").touch()
    file = folder / "load.json"
    arguments = ["--corpus", corpus, "--rate", "200", "--rate", "400", "--count", "40", "--warmup", "0.1"]
    arguments += ["--protocol", "2", "--idle", "3", "--workers", "1", "--json", file, "--", "--queue", "500"]
    done = bench_load(*map(str, arguments))
    assert done.returncode == 0, done.stderr
    # No terminal, so no line that is written over.
    assert "\r" not in done.stderr + done.stdout
    assert "1 files of" in done.stderr
    assert done.stdout.count("open loop, ") == 2
    return from_json(file.read_bytes())


def test_the_json_has_a_run_for_each_rate(written: Document) -> None:
    assert [run.rate for run in written.runs] == [200, 400]
    for run in written.runs:
        assert (run.loop, run.protocol, run.coordinated_omission) == ("open", 2, "from intended start")
        assert run.answered + sum(run.errors.values()) == 40
        assert set(run.errors) == {"unsupported_format"}
        assert run.latency is not None
        assert run.latency.count == run.answered
        assert run.latency.p50_ms <= run.latency.p90_ms <= run.latency.p99_ms <= run.latency.max_ms
        assert {one.name: (one.answered, one.failed) for one in run.images} == {
            "good.jpg": (run.answered, 0),
            "bad.jpg": (0, run.errors["unsupported_format"]),
        }
        assert run.replies_per_second > 0
        assert run.generator.processes == 2
        assert run.generator.cpu_ms > 0
        assert run.cores.others is not None
        assert 0 <= run.cores.others <= 1


def test_the_json_has_cpu_time_and_memory_of_the_started_server(written: Document) -> None:
    for run in written.runs:
        assert run.server is not None
        assert run.server.arguments[-2:] == ["--queue", "500"]
        assert len(run.server.worker_cpu_ms) == 1
        assert run.server.cpu_ms > 0
        first, last = run.server.memory[0], run.server.memory[-1]
        # The replies of the warm-up count here.
        assert first.requests <= last.requests >= 40
        assert last.total_bytes > 10_000_000
        assert len(last.worker_bytes) == 1


def test_idle_connections_are_held_beside_the_load(written: Document) -> None:
    for run in written.runs:
        assert run.idle is not None
        assert (run.idle.asked, run.idle.open_at_end) == (3, 3)


def test_a_document_is_read_as_it_was_written(written: Document) -> None:
    assert from_json(to_json(written)) == written


@pytest.mark.parametrize(
    ("change", "named"),
    [({"version": 3}, "version"), ({"kind": "else"}, "kind"), ({"runs": [{}]}, r"runs\.0\.loop")],
)
def test_an_invalid_document_is_refused_with_the_name_of_the_field(
    written: Document, change: dict[str, object], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        from_json(json.dumps(json.loads(to_json(written)) | change))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pipeline", "2"], "--protocol 2"),
        (["--duration", "1", "--count", "1"], "cannot be combined"),
        (["--rate", "0"], "above 0"),
        (["--rate", "1", "--expected-interval", "1"], "closed loop"),
        (["--image", "nothing.jpg"], "neither a file"),
        (["--image", "jpeg-1mp.jpg:0"], "weight"),
        (["--port", "1", "--workers", "1"], "server that this command starts"),
    ],
)
def test_contradictory_options_are_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(typer.BadParameter, match=re.escape(said)):
        typer.main.get_command(_app).main(arguments, standalone_mode=False)


def test_a_missing_server_gives_no_result(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(jpeg(40, 30))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = bench_load("--port", str(port), "--image", tmp_path / "image.jpg", "--count", "1")
    assert done.returncode == 1
    assert "no result" in done.stderr
    assert "refused" in done.stderr.lower()


def test_a_server_that_never_answers_gives_no_result(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(jpeg(40, 30))
    with FakeServer(silent) as fake:
        arguments = ["--port", str(fake.port), "--connections", "1", "--count", "1", "--warmup", "0"]
        done = bench_load(*arguments, "--image", tmp_path / "image.jpg", "--timeout", "0.2")
    assert done.returncode == 1
    assert "no result: no request was answered" in done.stderr


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 1.1, 2.0])
    monkeypatch.setattr("bench.load.progress.time.monotonic", lambda: next(clock))
    terminal = _Terminal()
    progress = Progress("8 connections", duration=10.0, count=None, stream=terminal)
    progress.show(1.0, 100, 1)
    progress.show(1.1, 110, 1)  # too soon
    progress.show(2.0, 150, 2)
    progress.end()
    lines = terminal.getvalue().split("\r")
    assert lines[0] == ""
    assert lines[1] == "8 connections: 1 of 10 s, 100 results, 1 errors, 101/s"
    assert lines[2] == "8 connections: 2 of 10 s, 150 results, 2 errors, 51/s "
    assert lines[3].strip() == lines[4] == ""


def test_progress_is_not_shown_without_a_terminal() -> None:
    stream = io.StringIO()
    progress = Progress("8 connections", duration=None, count=10, stream=stream)
    progress.show(1.0, 1, 0)
    progress.end()
    assert stream.getvalue() == ""
