"""A synthetic run does every key once, keeps a manifest, and its second run skips all of them."""

from pathlib import Path

from bench.batch.synthetic import measure, run_synthetic


def test_all_keys_are_done_then_all_are_skipped(tmp_path: Path) -> None:
    first = run_synthetic(2500, tmp_path)
    assert (first.keys, first.done, first.skipped) == (2500, 2500, 0)
    assert 20e6 < first.peak_bytes < 1e9
    assert first.cpu > 0
    parts = list((tmp_path / ".vipsrv" / "parts").iterdir())
    assert len(parts) == 3
    assert [path.name for path in tmp_path.iterdir()] == [".vipsrv"]
    second = measure(2500, tmp_path)
    assert (second.done, second.skipped) == (0, 2500)
