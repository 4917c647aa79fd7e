"""The comparison of operations with sharp: its cases are valid, and both sides do the same."""

from collections.abc import Sequence

import pytest
from typer import Typer
from typer.testing import CliRunner

from bench.tools.operations import SharpOperations, Side, cases, compare, main
from vipsrv.options.resize import ResizeArguments


def test_the_options_of_the_cases_are_known() -> None:
    used = {option for case in cases().values() for option in case.options}
    assert used <= set(ResizeArguments.__annotations__)


def side(times: Sequence[float]) -> Side:
    seconds = iter(times)
    return Side(lambda: b"result", lambda: next(seconds))


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    # Before and after each measurement: the warm-up, and three rounds of 2, 6 and 2 s.
    ours = side([0, 9, 9, 11, 11, 17, 17, 19])
    theirs = side([0, 9, 9, 10, 10, 12, 12, 16])  # 1, 2 and 4 s
    assert compare((ours, theirs), rounds=3, requests=1) == 2
    assert (ours.result, ours.milliseconds) == (b"result", [2000, 6000, 2000])


@pytest.mark.skipif(SharpOperations().missing() is not None, reason="sharp is not installed")
def test_both_sides_do_the_same() -> None:
    app = Typer()
    app.command()(main)
    done = CliRunner().invoke(app, ["watermark, jpeg-1.9mp.jpg", "--rounds", "1", "--requests", "1"])
    (row,) = (line.split("|") for line in done.output.splitlines() if line.startswith("| watermark"))
    assert float(row[6]) > 0.95, "the SSIM"
