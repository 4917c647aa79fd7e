import json
from pathlib import Path
from typing import Any

import pytest
from typer import Exit

from bench import BENCH
from bench.tools.gate import METRICS, State, judge_all, main, read_limits, read_rows, report

ROW = "test_server.py::test_a[12mp]"
LIMITS = f"""
["{ROW}"]
cpu_over_bare = {{ value = 0.9, tolerance = 0.1, why = "as measured" }}
ssim = {{ value = 0.95, tolerance = 0.01, why = "as measured" }}
gateway_transfers = {{ value = 20, tolerance = 0.05, why = "as measured" }}
"""
EQUAL = {"cpu_over_bare": 0.9, "ssim": 0.95, "gateway_transfers": 20.0}


def written(folder: Path, rows: dict[str, dict[str, Any]]) -> Path:
    path = folder / "result.json"
    benchmarks = [{"fullname": name, "extra_info": row} for name, row in rows.items()]
    path.write_text(json.dumps({"benchmarks": benchmarks}))
    return path


def exit_code(folder: Path, row: dict[str, Any] | None, limits: str = LIMITS) -> int:
    (folder / "limits.toml").write_text(limits)
    with pytest.raises(Exit) as ended:
        main(written(folder, {ROW: row} if row is not None else {}), folder / "limits.toml")
    code: int = ended.value.exit_code
    return code


def test_equal_metrics_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(tmp_path, EQUAL) == 0
    assert "All of 3 limits kept" in capsys.readouterr().out


def test_a_metric_that_is_worse_within_the_tolerance_passes(tmp_path: Path) -> None:
    assert exit_code(tmp_path, {"cpu_over_bare": 0.98, "ssim": 0.942, "gateway_transfers": 20.9}) == 0


@pytest.mark.parametrize(
    ("metric", "measured", "sentence"),
    [
        (
            "cpu_over_bare",
            1.08,
            (
                f"{ROW}: CPU over the bare loop's (cpu_over_bare) is 1.08, 20.0% above 0.9, "
                "which is worse than allowed: 10.0%, so at most 0.99."
            ),
        ),
        (
            "ssim",
            0.931,
            (
                f"{ROW}: SSIM to the whole decode (ssim) is 0.931, 2.0% below 0.95, "
                "which is worse than allowed: 1.0%, so at least 0.9405."
            ),
        ),
        (
            "gateway_transfers",
            22,
            (
                f"{ROW}: system calls of the gateway that move bytes, a request (gateway_transfers) is 22, "
                "10.0% above 20, which is worse than allowed: 5.0%, so at most 21."
            ),
        ),
    ],
)
def test_a_worse_metric_fails_with_a_sentence_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str, measured: float, sentence: str
) -> None:
    assert exit_code(tmp_path, EQUAL | {metric: measured}) == 1
    said = capsys.readouterr().out
    assert sentence in said
    assert "1 of 3 limits not kept" in said


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (None, f"{ROW}: The row has a limit and was not measured."),
        ({"cpu_over_bare": 0.9, "gateway_transfers": 20}, f"{ROW}: ssim has a limit and was not measured."),
        (EQUAL | {"ssim": None}, f"{ROW}: ssim is empty, and nothing says why."),
    ],
)
def test_a_missing_row_or_metric_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict[str, Any] | None, sentence: str
) -> None:
    assert exit_code(tmp_path, row) == 1
    assert sentence in capsys.readouterr().out


def test_a_metric_that_cannot_be_measured_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = {"gateway_transfers": "strace is not on the path"}
    assert exit_code(tmp_path, EQUAL | {"gateway_transfers": None, "missing": missing}) == 0
    assert f"{ROW}: gateway_transfers is not compared: strace is not on the path." in capsys.readouterr().out


def test_a_slack_limit_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(tmp_path, EQUAL | {"cpu_over_bare": 0.7}) == 0
    said = capsys.readouterr().out
    assert (
        "(cpu_over_bare) is 0.7, 22.2% below 0.9: better by more than the tolerance of 10.0%, so the" in said
    )
    assert "limit is slack" in said


def test_a_worse_ratio_is_measured_again_once_and_then_counts() -> None:
    asked: list[list[str]] = []

    def judged(second: float) -> list[State]:
        def again(rows: list[str]) -> dict[str, dict[str, float]]:
            asked.append(rows)
            return {ROW: EQUAL | {"cpu_over_bare": second}}

        verdicts = judge_all(read_limits(LIMITS), {ROW: EQUAL | {"cpu_over_bare": 1.2}}, again)
        return [verdict.state for verdict in verdicts]

    assert judged(0.9) == [State.KEPT] * 3
    assert judged(1.1) == [State.WORSE, State.KEPT, State.KEPT]
    assert asked == [[ROW], [ROW]]


def test_the_first_measurement_counts_if_the_second_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    (tmp_path / "limits.toml").write_text(LIMITS)
    result = written(tmp_path, {ROW: EQUAL | {"cpu_over_bare": 1.2}})
    output = tmp_path / "comparison.md"
    with pytest.raises(Exit) as ended:
        main(result, tmp_path / "limits.toml", again=True, output=output)
    assert ended.value.exit_code == 1
    text = output.read_text()
    assert text in capsys.readouterr().out
    assert text.startswith("The rows could not be measured again, so the first measurement counts: ")
    assert "1 of 3 limits not kept" in text
    assert f"| {ROW} | cpu_over_bare | 0.9 | 1.2 | 0.99 | WORSE |" in text


def test_quality_is_not_measured_again() -> None:
    rows = {ROW: EQUAL | {"ssim": 0.9}}
    verdicts = judge_all(read_limits(LIMITS), rows, lambda _: pytest.fail("nothing is noise here"))
    assert [verdict.state for verdict in verdicts] == [State.KEPT, State.WORSE, State.KEPT]


def test_a_second_measurement_does_not_excuse_a_metric_that_is_not_noisy() -> None:
    rows = {ROW: EQUAL | {"cpu_over_bare": 1.2, "ssim": 0.9}}
    verdicts = judge_all(read_limits(LIMITS), rows, lambda _: {ROW: EQUAL})
    assert [verdict.state for verdict in verdicts] == [State.KEPT, State.WORSE, State.KEPT]


def test_the_table_has_every_limit() -> None:
    table = report(judge_all(read_limits(LIMITS), {ROW: EQUAL}))
    assert f"| {ROW} | cpu_over_bare | 0.9 | 0.9 | 0.99 | kept |" in table
    assert table.count(ROW) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there are no limits"),
        ('["row"]\nspeed = { value = 1, tolerance = 0, why = "" }', "speed is not a metric"),
        ('["row"]\nssim = { value = 1, tolerance = 0 }', "needs a value, a tolerance and a why"),
    ],
)
def test_invalid_limits_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_limits(text)


def test_a_file_that_is_not_a_result_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"not a result of pytest-benchmark"):
        read_rows(path)


def test_workers_that_do_not_run_in_parallel_fail_by_throughput() -> None:
    row = "suites/test_server.py::test_two_connections_a_worker_keep_all_workers_busy[0.3MB]"
    # As measured on two cores, of which a job at a time used one.
    rows = {row: {"cpu_over_bare": 0.55, "throughput_over_bare": 1.17}}
    limits = [limit for limit in read_limits((BENCH / "limits.toml").read_text()) if limit.row == row]
    states = {verdict.limit.metric: verdict.state for verdict in judge_all(limits, rows)}
    assert states == {"cpu_over_bare": State.KEPT, "throughput_over_bare": State.WORSE}


def test_grey_results_fail_by_their_colour_difference() -> None:
    row = "suites/test_server.py::test_one_client_waits_for_little_but_the_work[jpeg-12mp.jpg-800x600]"
    # As measured of one: SSIM to the fourth place as before.
    rows = {row: {"ssim": 0.9442, "colour_difference": 15.85}}
    limits = [limit for limit in read_limits((BENCH / "limits.toml").read_text()) if limit.row == row]
    states = {verdict.limit.metric: verdict.state for verdict in judge_all(limits, rows)}
    assert (states["ssim"], states["colour_difference"]) == (State.KEPT, State.WORSE)


def test_the_limits_in_the_repository_are_valid() -> None:
    limits = read_limits((BENCH / "limits.toml").read_text())
    assert {limit.metric for limit in limits} <= set(METRICS)
    assert all(limit.why and limit.tolerance >= 0 and limit.value > 0 for limit in limits)
    assert all(limit.allowed > 0 for limit in limits), "a limit that no measurement can exceed"
