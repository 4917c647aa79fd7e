from pathlib import Path

import psutil
import pytest

from bench.measuring.cores import Cores

# user nice system idle iowait irq softirq steal guest guest_nice, in hundredths of a second
BEFORE = """cpu  9999 0 0 0 0 0 0 0 0 0
cpu0 100 10 50 800 20 5 5 10 40 0
cpu1 9999 0 0 0 0 0 0 0 0 0
cpu2 200 0 0 800 0 0 0 0 0 0
intr 1 2 3
"""
AFTER = """cpu  9999 0 0 0 0 0 0 0 0 0
cpu0 150 10 60 840 20 5 5 20 90 0
cpu1 99999 0 0 0 0 0 0 0 0 0
cpu2 210 0 0 890 0 0 0 0 0 0
intr 1 2 3
"""


def test_only_the_given_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    stat = tmp_path / "stat"
    stat.write_text(BEFORE)
    before = Cores.now({0, 2})
    stat.write_text(AFTER)
    taken = Cores.now({0, 2}) - before
    assert taken.total == pytest.approx(0.5 + 0.1 + 0.4 + 0.1 + 1.0)
    assert taken.busy == pytest.approx(0.5 + 0.1 + 0.1)
    assert taken.stolen == pytest.approx(0.1)


def test_the_cores_of_this_machine_are_read() -> None:
    now = Cores.now()
    assert now.total > now.busy > 0
