"""`vipsrv doctor` as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import bare_client
from vipsrv.cli.doctor import DoctorExit, exit_code
from vipsrv.server import Finding, Rating


def doctor(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vipsrv", "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=bare_client.SECONDS,
        check=False,
        env={**os.environ, **settings},
    )


def test_control_characters_are_only_shown(tmp_path: Path) -> None:
    ended = doctor("--spool-dir", f"{tmp_path}/\x1b[31m")
    assert "\\x1b[31m is not a folder" in ended.stdout
    assert "\x1b" not in ended.stdout


def test_the_report_as_json(tmp_path: Path) -> None:
    ended = doctor("--json", "--formats", "png", VIPSRV_SPOOL_DIR=str(tmp_path))
    report = json.loads(ended.stdout)
    findings = {one["subject"]: one for one in report["findings"]}
    assert report["exit_code"] == ended.returncode
    assert ended.returncode in {DoctorExit.FINE, DoctorExit.WARNINGS}
    assert findings["reads"]["detail"].startswith("png (libvips pngload")
    assert str(tmp_path) in findings["spool"]["detail"]
    assert {"versions", "writes", "confinement", "cpu", "memory", "tasks", "descriptors"} <= findings.keys()


def test_what_keeps_the_server_from_running_is_a_fault(tmp_path: Path) -> None:
    ended = doctor("--formats", "xyz", "--spool-dir", str(tmp_path / "none"))
    assert ended.returncode == DoctorExit.FAULTS
    faults = [line for line in ended.stdout.splitlines() if line.startswith("fault")]
    assert len(faults) == 2
    assert "xyz is unknown" in faults[0]
    assert ended.stderr == ""


def test_an_invalid_command_line() -> None:
    ended = doctor("--workers", "0")
    assert ended.returncode == 2
    assert ended.stderr.startswith("vipsrv: --workers: ")


@pytest.mark.parametrize(
    ("ratings", "code"),
    [
        ([Rating.OK], DoctorExit.FINE),
        ([Rating.OK, Rating.WARNING], DoctorExit.WARNINGS),
        ([Rating.FAULT, Rating.WARNING], DoctorExit.FAULTS),
    ],
)
def test_the_most_serious_finding_decides_the_exit_code(ratings: list[Rating], code: DoctorExit) -> None:
    assert exit_code([Finding("cpu", rating, "") for rating in ratings]) is code
