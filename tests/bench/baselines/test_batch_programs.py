"""Each program of ``bench.tools.batch_compare`` that is installed does a small task right."""

import http.client
from pathlib import Path

import pytest

from bench.baselines.batch import PROGRAMS, BatchProgram
from bench.baselines.batch.interface import Task
from bench.baselines.batch.static_server import StaticServer
from bench.measuring.command_run import run_command
from bench.tools.batch_results import check, look
from tests.support.images import jpeg

# img2dataset takes some seconds to start, and the two of vipsrv have tests of their own.
SLOW = ("img2dataset", "vipsrv")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    folder = tmp_path / "images"
    folder.mkdir()
    files = [folder / f"{number}.jpg" for number in range(3)]
    for number, path in enumerate(files):
        path.write_bytes(jpeg(400 + 40 * number, 300))
    listing = tmp_path / "listing.txt"
    listing.write_text("".join(f"{path}\n" for path in files))
    return Task(files, listing, 160, "http://127.0.0.1:1")


@pytest.mark.parametrize(
    "program",
    [pytest.param(one, id=one.name) for one in PROGRAMS if not one.name.startswith(SLOW)],
)
def test_a_program_makes_what_is_asked_for(program: BatchProgram, task: Task, tmp_path: Path) -> None:
    if reason := program.missing():
        pytest.skip(reason)
    assert program.version()
    output = tmp_path / "results"
    output.mkdir()
    invocation = program.invocation(task, output, 2)
    run_command(invocation.command, environment=invocation.environment)
    results = sorted(output.rglob("*.jpg"))
    assert check(results, task) == (0, None)
    assert look(results, task, 3).least_ssim > 0.8


def test_the_server_gives_files_and_nothing_else(task: Task) -> None:
    with StaticServer(task.folder) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        replies = []
        for name in ("1.jpg", "4.jpg", "../listing.txt", ""):
            connection.request("GET", f"/{name}")
            reply = connection.getresponse()
            replies.append((reply.status, reply.read()))
        connection.close()
        assert server.cpu_seconds() > 0
    assert replies == [(200, task.files[1].read_bytes()), *[(404, b"")] * 3]
