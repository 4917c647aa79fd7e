"""The baselines do what their descriptions say."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.baselines import ALL, PEERS, BareLoop, Baseline, CodecFloor, Request
from bench.baselines.codec_floor import decode_scale
from bench.measuring.process_group import ProcessGroup
from bench.measuring.processes import cpu_seconds, tree_cpu_seconds
from tests.support.image_comparison import open_exact, reference, ssim
from tests.support.images import photo

CORES = [0]
WIDTH, HEIGHT = 60, 40

# Each takes this much CPU time, which is far more than it takes to start it and to wait for it.
BURN = "import time; [None for _ in iter(lambda: time.process_time() < 0.5, False)]"


@pytest.fixture
def clients() -> Iterator[ProcessGroup]:
    with ProcessGroup(2, CORES) as crew:
        yield crew


@pytest.fixture(params=["jpg", "png"])
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> Request:
    path = tmp_path / f"scene.{request.param}"
    photo(210, 140).save(path, quality=95)
    return Request(path, WIDTH, HEIGHT)


def started(kind: type[Baseline]) -> Baseline:
    baseline = kind(CORES)
    missing = baseline.missing()
    if missing:
        assert kind in PEERS or "libturbojpeg" in missing, "this needs only what the tests need"
        pytest.skip(missing)
    return baseline


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_baseline_resizes_to_the_given_size(kind: type[Baseline], asked: Request) -> None:
    baseline = started(kind)
    if not baseline.serves(asked):
        pytest.skip(f"{baseline.name} does not serve it")
    with baseline:
        result = open_exact(baseline.ask(asked))
    assert (result.format, result.size) == ("JPEG", (WIDTH, HEIGHT))
    assert ssim(result, reference(asked.image.read_bytes(), WIDTH, HEIGHT)) > 0.9


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_baseline_counts_requests_and_cpu_time(
    kind: type[Baseline], asked: Request, clients: ProcessGroup
) -> None:
    baseline = started(kind)
    if not baseline.serves(asked):
        pytest.skip(f"{baseline.name} does not serve it")
    with baseline:
        before = baseline.cpu_seconds()
        run = baseline.load(asked, clients, count=5)
        after = baseline.cpu_seconds()
        assert bool(baseline.port) == bool(run.client_cpu_seconds)
    # Two clients, but one process of a loop for the one core.
    assert run.requests == (10 if run.client_cpu_seconds else 5)
    assert 0 < run.cpu_seconds <= after - before
    assert run.requests_per_second > 0


def test_all_baselines_have_distinct_names_and_descriptions() -> None:
    assert len({kind.name for kind in ALL}) == len(ALL)
    assert len({kind.what for kind in ALL}) == len(ALL)


def test_a_loop_has_a_process_a_core_by_default(asked: Request) -> None:
    with BareLoop(CORES, processes=3) as loop:
        assert loop.load(asked, count=4).requests == 12


def test_a_loop_can_be_prepared_for_another_request(asked: Request) -> None:
    with BareLoop(CORES) as loop:
        assert open_exact(loop.ask(asked)).size == (WIDTH, HEIGHT)
        other = Request(asked.image, 30, 20)
        loop.load(other, count=3)
        assert open_exact(loop.ask(other)).size == (30, 20)


@pytest.mark.parametrize(
    ("size", "target", "scale"),
    [
        ((4000, 3000), (800, 600), 4),
        ((1600, 1200), (800, 600), 2),
        ((1599, 1200), (800, 600), 1),
        ((640, 480), (80, 60), 8),
        ((640, 480), (10, 10), 8),
        ((100, 100), (200, 200), 1),
    ],
)
def test_the_floor_decodes_no_less_than_the_target(
    size: tuple[int, int], target: tuple[int, int], scale: int
) -> None:
    assert decode_scale(*size, *target) == scale


def test_the_floor_does_less_than_the_loop(tmp_path: Path) -> None:
    # Enlarged eight times, which takes 50 times what decoding and encoding does; no close race.
    path = tmp_path / "scene.png"
    photo(400, 300).save(path)
    request = Request(path, 3200, 2400)
    with BareLoop(CORES) as loop, CodecFloor(CORES) as floor:
        assert floor.load(request, count=3).cpu_ms < loop.load(request, count=3).cpu_ms


def test_a_process_group_says_which_process_failed(clients: ProcessGroup) -> None:
    with pytest.raises(RuntimeError, match="has ended"):
        clients.prepare("bench.baselines.bare_loop", image="/no/such/image", width=1, height=1)


def test_the_cpu_time_of_a_tree_includes_running_and_ended_children() -> None:
    children = f"""
import subprocess, sys, time
burn = {BURN!r}
subprocess.run([sys.executable, "-c", burn], check=True)
child = subprocess.Popen([sys.executable, "-c", burn + "; print(1, flush=True); sys.stdin.read()".replace(
    "sys", "__import__('sys')")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print("both have", flush=True)
sys.stdin.read()
child.stdin.close()
child.wait()
"""
    with subprocess.Popen(
        [sys.executable, "-c", children], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        assert parent.stdout.readline() == "both have\n"
        own, tree = cpu_seconds(parent.pid), tree_cpu_seconds(parent.pid)
        parent.stdin.close()
    assert tree - own >= 0.98


def test_the_cpu_time_of_a_missing_process_is_an_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessLookupError):
        cpu_seconds(process.pid)
