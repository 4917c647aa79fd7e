"""A folder of images of which some are broken, and a check of everything that a batch has made of it."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from tests.support.images import garbage, jpeg, truncated

BROKEN_EACH = 20
"""Every so many images one is broken: 5 %."""

_DISTINCT = 5


def _empty() -> bytes:
    return b""


_BROKEN: Mapping[str, Callable[[], bytes]] = {
    "empty": _empty,
    "corrupt_image": lambda: truncated(jpeg(64, 48)),
    "unsupported_format": lambda: garbage(2000),
}


def fill(folder: Path, count: int) -> dict[str, str]:
    """Write ``count`` images of about 2 KB into three folders; return the code of each key."""
    good = [jpeg(64, 48, seed=seed + 1) for seed in range(_DISTINCT)]
    broken = {code: make() for code, make in _BROKEN.items()}
    codes = list(broken)
    expected = {}
    for number in range(count):
        key = f"{'abc'[number % 3]}/image{number:05}.jpg"
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % BROKEN_EACH == 1:
            code = codes[number // BROKEN_EACH % len(codes)]
            path.write_bytes(broken[code])
        else:
            code = "ok"
            path.write_bytes(good[number % _DISTINCT])
        expected[key] = code
    return expected


def manifest_rows(destination: Path) -> list[dict[str, object]]:
    """Read the rows of all parts, in no order."""
    parts = sorted((destination / ".vipsrv" / "parts").glob("*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def check_destination(destination: Path, expected: dict[str, str]) -> dict[str, dict[str, object]]:
    """Check each row of the manifest against its files, and that nothing else is there; return the rows.

    Each image has one row, with the code that is expected; each result is the file that its row describes.
    """
    rows = manifest_rows(destination)
    by_key = {str(row["key"]): row for row in rows}
    assert len(by_key) == len(rows), "an image has two rows"
    codes = {key: row["code"] for key, row in by_key.items()}
    wrong = {key: codes.get(key) for key in expected | codes if codes.get(key) != expected.get(key)}
    assert not wrong, f"{len(wrong)} of {len(expected)} images have another code: {list(wrong.items())[:5]}"
    described = {}
    for row in rows:
        outputs = row["outputs"]
        assert isinstance(outputs, list)
        assert bool(outputs) == (row["code"] == "ok")
        for output in outputs:
            data = (destination / output["key"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == output["sha256"], output["key"]
            assert len(data) == output["bytes"]
            described[output["key"]] = output["sha256"]
    present = {
        str(path.relative_to(destination))
        for path in destination.rglob("*")
        if path.is_file()
        and path.relative_to(destination).parts[0] != ".vipsrv"
        and not path.name.startswith(".rclone_temp_put_")  # the S3 server was killed before it had all of it
        and path.suffix
        not in {".partial", ".part"}  # likewise, or this process was, for a moment in a rename
    }
    assert present == set(described), f"files and rows differ: {sorted(present ^ set(described))[:5]}"
    assert not list((destination / ".vipsrv" / "journal").glob("*.jsonl")), "a journal was left"
    return by_key
