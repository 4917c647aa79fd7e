"""The engine resizes real files by a server that runs, and a failed one is counted."""

from pathlib import Path

from PIL import Image

from bench.batch.engine_run import run_engine
from bench.measuring.server import Server
from tests.support.images import jpeg


def test_files_are_resized_and_failures_counted(tmp_path: Path) -> None:
    source, results = tmp_path / "images", tmp_path / "results"
    source.mkdir()
    for number in range(9):
        (source / f"{number}.jpg").write_bytes(jpeg(120, 90))
    (source / "9.jpg").write_bytes(b"\xff\xd8 cut")
    with Server("--workers", "1", "--log-level", "error") as server:
        found = run_engine(source, results, f"{server.host}:{server.port}", 40)
    assert (found.images, found.failed, found.measured) == (10, 1, 8)
    assert found.rate > 0
    assert found.cpu_ms > 0
    assert found.peak_bytes > 20e6
    made = [path for path in results.iterdir() if path.suffix == ".jpg"]
    assert len(made) == 9
    with Image.open(made[0]) as image:
        assert image.size == (40, 30)
