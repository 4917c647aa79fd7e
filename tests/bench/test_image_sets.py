"""A set has as many files as asked for, in order, and different images."""

from pathlib import Path

import pytest

from bench.image_sets import SETS, make_set


def test_the_files_are_copies_of_the_drawn_images_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIPSRV_BENCH_CACHE", str(tmp_path / "cache"))
    files = make_set("tiny", 10, tmp_path / "files")
    assert [path.name for path in files] == [f"{number:06}.jpg" for number in range(10)]
    assert sorted((tmp_path / "files").iterdir()) == files
    contents = [path.read_bytes() for path in files]
    assert len(set(contents)) == len(SETS["tiny"]) == 8
    assert contents[0] == contents[8]
