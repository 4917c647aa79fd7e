from pathlib import Path

import pytest

from bench import BENCH
from bench.tools.gate import read_limits
from bench.tools.renew_limits import medians, renewed

TEXT = """# What is kept.

["test_a.py::test_b[x]"]
ssim = { value = 0.9, tolerance = 0.01, why = "it looks so" }
cpu_over_bare = { value = 1, tolerance = 0.2, why = "value = 1, for now" }

["test_a.py::test_c"]
ssim = { value = 0.8, tolerance = 0.01, why = "likewise" }
"""
B, C = "test_a.py::test_b[x]", "test_a.py::test_c"


def test_only_the_values_change() -> None:
    values = {(B, "ssim"): 0.95, (B, "cpu_over_bare"): 0.51234, (C, "ssim"): 0.8}
    text = renewed(TEXT, values)
    assert text == TEXT.replace("value = 0.9,", "value = 0.95,").replace("{ value = 1,", "{ value = 0.5123,")
    assert [(limit.row, limit.metric, limit.value) for limit in read_limits(text)] == [
        (B, "ssim", 0.95),
        (B, "cpu_over_bare", 0.5123),
        (C, "ssim", 0.8),
    ]


def test_the_value_is_the_median_of_the_runs() -> None:
    runs = [{B: {"ssim": value, "cpu_over_bare": 1}, C: {"ssim": 0.8}} for value in (0.7, 0.9, 0.8)]
    assert medians(read_limits(TEXT), list(runs))[B, "ssim"] == 0.8


def test_a_limit_without_a_measurement_is_an_error() -> None:
    with pytest.raises(ValueError, match="ssim is in none of the results"):
        medians(read_limits(TEXT), [{B: {"ssim": None, "cpu_over_bare": 1}, C: {"ssim": 0.8}}])


def test_a_limit_that_is_not_found_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"test_a\.py::test_c gateway_waits"):
        renewed(TEXT, {(C, "gateway_waits"): 1.0})


def test_the_limits_in_the_repository_can_be_renewed(tmp_path: Path) -> None:
    text = (BENCH / "limits.toml").read_text()
    limits = read_limits(text)
    path = tmp_path / "limits.toml"
    path.write_text(renewed(text, {(limit.row, limit.metric): limit.value for limit in limits}))
    assert read_limits(path.read_text()) == limits
