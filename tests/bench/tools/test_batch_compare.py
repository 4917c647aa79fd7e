"""Programs take turns with the same files, and what they give is checked."""

import sys
from pathlib import Path
from typing import Any

import pytest

from bench.baselines.batch import PROGRAMS, PillowPool
from bench.baselines.batch.interface import Invocation, Task
from bench.image_sets import SETS
from bench.tools.batch_compare import CASES, Case, Turn, Turns, figures, measure, row
from bench.tools.batch_tables import OWN, SPEEDS, tables, verdicts

CASE = Case("tiny", 80)


class Own(PillowPool):
    """Takes the place of vipsrv batch."""

    def __init__(self) -> None:
        super().__init__(2)
        self.name = OWN


class Fake(PillowPool):
    """Runs Python code instead, with the output folder as its argument."""

    def __init__(self, name: str, code: str) -> None:
        super().__init__(2)
        self.name = name
        self._code = code

    def invocation(self, task: Task, output: Path, cores: int) -> Invocation:  # noqa: ARG002
        return Invocation([sys.executable, "-S", "-c", self._code, str(output)])


def test_programs_that_do_nothing_or_fail_do_not_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPSRV_BENCH_CACHE", str(tmp_path / "cache"))
    failed: dict[str, str] = {}
    programs = [
        Own(),
        Fake("pillow-idle", "pass"),
        Fake("pillow-wrong", "import sys\nfor n in range(20): open(f'{sys.argv[1]}/{n:06}.jpg', 'w')"),
        Fake("mogrify-broken", "raise SystemExit('no delegate')"),
    ]
    rows = measure("tiny", CASE, programs, 20, 1, tmp_path / "work", failed)
    assert {one["program"]: one["wrong"] for one in rows} == {OWN: 0, "pillow-idle": 20, "pillow-wrong": 20}
    assert failed == {"mogrify-broken": f"{sys.executable} ended with 1: no delegate"}
    own, idle, wrong = rows
    assert own["ratios"] == dict.fromkeys(SPEEDS, 1.0)
    assert own["ssim"] > 0.8
    assert (idle["problem"], idle["ssim"]) == ("0 results of 20 files", None)
    assert "a JPEG was asked for" in wrong["problem"]
    # Neither of the two is a peer that vipsrv could be behind.
    assert list(verdicts({"rows": rows})) == []


def turn(seconds: float, cpu: float, *, net: float | None = None, server: float = 0.0) -> Turn:
    return Turn(seconds, seconds if net is None else net, cpu, server, 10_000_000, 0.1, [])


def test_the_start_of_a_program_is_told_apart() -> None:
    found = figures(turn(1.0, 1.5), turn(11.0, 21.5, net=10.8, server=0.4), 102)
    assert found["images_per_second"] == pytest.approx(102 / 11)
    assert found["images_per_second_each"] == pytest.approx(100 / 9.8)
    assert found["cpu_ms"] == pytest.approx(21.5e3 / 102)
    assert found["cpu_ms_each"] == pytest.approx(200)
    assert found["server_cpu_ms"] == pytest.approx(400 / 102)
    assert (found["start_seconds"], found["start_cpu_seconds"]) == (1.0, 1.5)


def document(**cpu: float) -> dict[str, object]:
    own = Turns([figures(turn(0, 0), turn(10, cpu[OWN]), 100)])
    about = {"case": "screens", "files": 100, "width": 800, "input_mb": 30.0}
    rows = [
        about | row(name, Turns([figures(turn(0, 0), turn(10, value), 100)]), own)
        for name, value in cpu.items()
    ]
    machine = {"cpu": "x", "cores": 2, "kernel": "Linux", "python": "3"}
    return {
        "rows": rows,
        "settings": {"rounds": 1, "cores": [0, 1]},
        "machine": machine,
        "commit": None,
        "versions": dict.fromkeys(cpu, "1.0"),
        "what": {name: f"what {name} is" for name in cpu},
        "missing": {"mogrify": "no mogrify on the path"},
    }


def test_vipsrv_has_to_be_ahead_of_the_best_settings_of_each_peer() -> None:
    found = document(**{OWN: 5.0, "pillow": 10.0, "pillow-fast": 4.0, "img2dataset-8": 30.0})
    lines = list(verdicts(found))
    assert [met for met, _ in lines] == [False, False]  # the last one by the clock
    assert lines[0][1].startswith("screens: pillow, at least 1 ×: by the clock 1.00")
    assert "by CPU 0.80" in lines[0][1]
    text = tables(found)
    assert "mogrify is not measured: no mogrify on the path" in text
    assert "| pillow-fast " in text


def test_the_clock_is_not_judged_where_others_used_the_cores() -> None:
    found: Any = document(**{OWN: 5.0, "img2dataset-8": 30.0})
    ((met, _),) = verdicts(found)
    assert not met  # the same rate by the clock, and twice as much is asked for
    found["rows"][1]["others_share"] = 0.5
    ((met, line),) = verdicts(found)
    assert met
    assert line.endswith("the clock is not judged, as others used the cores")


def test_a_short_turn_that_took_longer_than_the_whole_one_tells_nothing() -> None:
    found = figures(turn(9.0, 1.0), turn(8.0, 11.0), 102)
    assert found["images_per_second_each"] is None
    assert found["cpu_ms_each"] == pytest.approx(100)
    about = {"case": "screens", "files": 102, "width": 800, "input_mb": 30.0}
    rows: list[Any] = [about | row(name, Turns([found]), Turns([found])) for name in (OWN, "pillow")]
    assert rows[1]["ratios"]["images_per_second_each"] is None
    ((met, line),) = verdicts({"rows": rows})
    assert met
    assert "by the clock without the start –" in line


def test_the_cases_are_sets_and_those_that_download_are_compared_with_vipsrv_batch() -> None:
    assert {case.set for case in CASES.values()} <= set(SETS)
    downloaded = CASES["dataset"]
    names = [one.name for one in PROGRAMS if downloaded.takes(one)]
    assert names == [OWN, "img2dataset-8", "img2dataset-64"]
