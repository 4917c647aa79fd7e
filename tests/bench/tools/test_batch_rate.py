"""What the rate of the engine is compared with, and how."""

import pytest

from bench.tools.batch_rate import Round


def test_the_rate_of_busy_cores_is_the_cpu_time_of_both_sides() -> None:
    one = Round(
        load_rate=400.0,
        load_server=5.0,
        load_client=0.2,
        engine_rate=300.0,
        engine_server=5.1,
        engine_client=1.4,
        peak_bytes=1,
        others_share=0.3,
    )
    assert one.rate == pytest.approx(0.75)
    assert one.rate_by_cpu == pytest.approx(0.8)
