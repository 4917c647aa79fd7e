"""Prometheus's own parser and its rules for metrics, as the command ``promtool``.

``go install github.com/prometheus/prometheus/cmd/promtool@v0.316.0`` builds it.
"""

import os
import shutil
import subprocess

import pytest

_SECONDS = 60


def promtool() -> str:
    """The path of the command: what VIPSRV_PROMTOOL names, or that on PATH. Skips the test without one."""
    found = shutil.which(os.environ.get("VIPSRV_PROMTOOL") or "promtool")
    if found is None:
        pytest.skip("promtool is not on PATH, and VIPSRV_PROMTOOL does not name it")
    return found


def check_metrics(page: bytes) -> None:
    """Fail unless Prometheus parses the page and finds nothing wrong with names, types and texts."""
    done = subprocess.run(
        [promtool(), "check", "metrics"], input=page, capture_output=True, timeout=_SECONDS, check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    assert said.strip() == ""
