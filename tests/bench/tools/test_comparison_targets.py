"""Targets are met and missed where they say."""

from typing import Any

import pytest

from bench.tools.comparison_targets import verdicts
from tests.bench.tools.comparisons import document, row


def judged(*rows: dict[str, Any]) -> list[bool]:
    return [met for met, _ in verdicts(document(*rows))]


def test_wrong_results_of_our_own_miss_the_target_and_are_compared_with_nobody() -> None:
    own = row("vipsrv", wrong=3, problem="it is no image", ssim=None)
    assert list(verdicts(document(own, row("sharp")))) == [(False, "12 MP: 3 wrong results: it is no image")]


@pytest.mark.parametrize(("cpu", "met"), [(25.0, True), (24.9, False)])
def test_the_target_over_the_original_is_per_core(cpu: float, met: bool) -> None:  # noqa: FBT001
    assert judged(row("vipsrv"), row("original", cpu_ms_per_request=cpu)) == [met]


@pytest.mark.parametrize(("ratio", "met"), [(1.07, True), (1.08, False)])
def test_the_target_over_the_pipeline_loop_is_by_throughput(ratio: float, met: bool) -> None:  # noqa: FBT001
    assert judged(row("vipsrv"), row("pipeline-loop", ratio_to_bare_loop=ratio)) == [met]


@pytest.mark.parametrize(
    ("case", "ratio", "met"),
    [
        ("12 MP", 1 / 1.13, True),
        ("12 MP", 1 / 1.11, False),
        ("640 × 480", 1 / 1.26, True),
        ("640 × 480", 1 / 1.24, False),
        ("24 MP TIFF", 0.99, True),
        ("24 MP TIFF", 1.01, False),
    ],
)
def test_the_target_over_the_best_peer_depends_on_the_case(
    case: str,
    ratio: float,
    met: bool,  # noqa: FBT001
) -> None:
    best = row("sharp", case, ratio_to_vipsrv=ratio)
    other = row("imagor", case, ratio_to_vipsrv=0.1)
    assert judged(row("vipsrv", case), other, best) == [met]


def test_the_best_peer_is_named() -> None:
    ((_, told),) = verdicts(
        document(row("vipsrv"), row("sharp", ratio_to_vipsrv=0.5), row("imagor", ratio_to_vipsrv=0.8))
    )
    assert told == (
        "12 MP: 1.25 times the throughput of imagor, the best peer; at least 1.12 (SSIM +0.0000, bytes +0.0%)"
    )


def test_a_peer_with_wrong_results_is_no_best_peer() -> None:
    wrong = row("sharp", ratio_to_vipsrv=2.0, wrong=1, problem="too small")
    assert judged(row("vipsrv"), wrong, row("imagor", ratio_to_vipsrv=0.5)) == [True]


@pytest.mark.parametrize(
    ("figures", "met"),
    [
        ({}, False),
        ({"ssim": 0.9489}, True),
        ({"ssim": 0.9491}, False),
        ({"output_bytes": 1031}, True),
        ({"output_bytes": 1029}, False),
    ],
)
def test_a_peer_with_lesser_results_does_not_count_where_results_are_to_be_equal(
    figures: dict[str, float],
    met: bool,  # noqa: FBT001
) -> None:
    fast = row("imgproxy", "6 MP to AVIF", ratio_to_vipsrv=3.2, **figures)
    slow = row("sharp", "6 MP to AVIF", ratio_to_vipsrv=0.5)
    assert judged(row("vipsrv", "6 MP to AVIF"), fast, slow) == [met]


def test_wrong_results_of_vipsrv_are_a_missed_target() -> None:
    assert judged(row("vipsrv", wrong=2, problem="too small")) == [False]


def test_there_are_no_verdicts_without_vipsrv() -> None:
    assert judged(row("original"), row("sharp")) == []
