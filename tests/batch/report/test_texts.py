"""Figures as text."""

import pytest

from vipsrv.batch.report.texts import count_text, duration_text, ms_text, share_text, size_text, time_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (999_999, "1 MB"),
        (12_345, "12.3 kB"),
        (2.5e16, "25 PB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0.00 %"), (0.0012, "0.12 %"), (0.019, "1.9 %"), (0.37, "37 %"), (12, "1,200 %")]
)
def test_shares(share: float, text: str) -> None:
    assert share_text(share) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0.123, "0.123 ms"), (12.34, "12.3 ms"), (340, "340 ms"), (1500, "1.5 s"), (312_000, "5 min 12 s")],
)
def test_milliseconds(ms: float, text: str) -> None:
    assert ms_text(ms) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min"), (3661, "1 h 1 min"), (86_400, "1 d"), (90_061, "1 d 1 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_times_and_counts() -> None:
    assert time_text(1_767_323_045_678) == "2026-01-02 03:04:05 UTC"
    assert count_text(1, "image") == "1 image"
    assert count_text(2000, "image") == "2,000 images"
