"""Runs that are killed by SIGKILL and started again, until all is done: nothing is lost and nothing is twice.

CI takes a few images and kills. The measure of the issue: ``TEST_BATCH_IMAGES=2000 TEST_BATCH_KILLS=10
python -m pytest -n 2 tests/batch/test_killed_runs.py``.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.batch_images import check_destination, fill
from tests.support.running_server import RunningServer
from tests.support.s3_server import S3Server

IMAGES = int(os.environ.get("TEST_BATCH_IMAGES", "120"))
KILLS = int(os.environ.get("TEST_BATCH_KILLS", "2"))

_RUN = """
import json, sys
from vipsrv.batch import run
from vipsrv.options import ResizeOptions

source, destination, server = sys.argv[1:]
outputs = [ResizeOptions(width=32, fit="inside"), ResizeOptions(width=16, fit="inside", format="png")]
for row in run(source, destination, outputs, server=server or None, shard_size=64):
    print(json.dumps([row.key, row.code, row.run, [one.sha256 for one in row.outputs]]), flush=True)
"""

Told = dict[str, list[Any]]
"""Rows that a run has printed before it was killed, by key: code, run, digests of the results."""


def run_and_kill(
    source: str, destination: str, server: str, environment: Mapping[str, str], kill_after: int | None
) -> Told:
    """Run a batch in a process, which is killed when it has told of so many images; return what it told."""
    told: Told = {}
    with subprocess.Popen(
        [sys.executable, "-c", _RUN, source, destination, server],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if not line.endswith("\n"):
                break  # it died while it wrote
            key, *rest = json.loads(line)
            assert key not in told
            told[key] = rest
            if len(told) == kill_after:
                process.kill()
        errors = process.stderr.read()
    assert process.returncode == (-9 if len(told) == kill_after or process.returncode == -9 else 0), errors
    return told


def kill_until_done(
    source: str, destination: str, server: str, environment: Mapping[str, str]
) -> tuple[Told, int]:
    """Run and kill several times, then let a run end. Return what was told, and how often it was killed."""
    chance = random.Random(1)  # the same moments each time, as far as rows decide them
    told: Told = {}
    kills = 0
    for _ in range(KILLS):
        # So early that all kills find work: together they may take less than all images.
        after = chance.randint(1, max(1, IMAGES // (KILLS + 1)))
        now = run_and_kill(source, destination, server, environment, after)
        kills += len(now) >= after
        assert not told.keys() & now.keys(), "an image that was told as done was done again"
        told |= now
    now = run_and_kill(source, destination, server, environment, None)
    assert not told.keys() & now.keys(), "an image that was told as done was done again"
    told |= now
    return told, kills


def check_told(rows: Mapping[str, Mapping[str, Any]], told: Told) -> None:
    """Check that each row that was told is still the one of the manifest."""
    for key, (code, run, digests) in told.items():
        row = rows[key]
        assert (row["code"], row["run"]) == (code, run)
        assert [one["sha256"] for one in row["outputs"]] == digests


def test_a_folder(server: RunningServer, tmp_path: Path) -> None:
    """With servers of their own, which end with the process; the undisturbed run takes one that is there."""
    source, destination = tmp_path / "source", tmp_path / "destination"
    expected = fill(source, IMAGES)
    told, kills = kill_until_done(str(source), str(destination), "", {})
    assert kills == KILLS
    rows = check_destination(destination, expected)
    check_told(rows, told)

    fresh = tmp_path / "fresh"  # the same bytes as a run that nobody has disturbed
    run_and_kill(str(source), str(fresh), f"{server.host}:{server.port}", {}, None)
    undisturbed = check_destination(fresh, expected)
    for key, row in rows.items():
        assert row["outputs"] == undisturbed[key]["outputs"]


@pytest.fixture
def bucket_environment(tmp_path: Path) -> dict[str, str]:
    """Journals of buckets are in the state folder of the user."""
    return {"XDG_STATE_HOME": str(tmp_path / "state")}


def test_a_bucket_whose_server_is_killed_too(
    server: RunningServer, bucket_environment: dict[str, str]
) -> None:
    address = f"{server.host}:{server.port}"
    with S3Server() as s3:
        expected = fill(s3.make_bucket("photos"), IMAGES)
        small = s3.make_bucket("small")
        s3.refresh()
        environment = {**bucket_environment, **s3.environment}
        told, _ = kill_until_done_with_restart(s3, address, environment)
        rows = check_destination(small, expected)
        assert not list(Path(bucket_environment["XDG_STATE_HOME"]).rglob("*.jsonl"))
    check_told(rows, told)


def kill_until_done_with_restart(
    s3: S3Server, address: str, environment: Mapping[str, str]
) -> tuple[Told, int]:
    """Kill a run, then kill the S3 server under another one, then go on as ``kill_until_done`` does."""
    told = run_and_kill("s3://photos", "s3://small", address, environment, IMAGES // 10)
    with subprocess.Popen(
        [sys.executable, "-c", _RUN, "s3://photos", "s3://small", address],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout):
            key, *rest = json.loads(line)
            assert key not in told
            told[key] = rest
            if number == IMAGES // 10:
                s3.stop(kill=True)
                s3.start()
    # It has waited for the server, or stopped cleanly: both leave what the next run goes on from.
    rest_told, kills = kill_until_done("s3://photos", "s3://small", address, environment)
    assert not told.keys() & rest_told.keys(), "an image that was told as done was done again"
    return told | rest_told, kills
