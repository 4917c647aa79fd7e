"""How the numbers of a comparison are calculated from runs and checked against targets."""

from typing import Any

import pytest

from bench.baselines import ClosedLoopRun
from bench.measuring.process_group import rate
from bench.tools.compare import net_rate
from bench.tools.comparison import print_table, verdicts


def run(*, wall: float, cpu: float, client: float) -> ClosedLoopRun:
    return ClosedLoopRun(100, 50.0, wall, cpu, client)


def test_clients_on_other_cores_do_not_count() -> None:
    assert net_rate(run(wall=2, cpu=4, client=2), 2, shared=False) == 50


def test_the_clients_time_on_busy_cores_is_added_to_the_servers_rate() -> None:
    # Two cores for two seconds: three seconds for the server, one for the clients.
    assert net_rate(run(wall=2, cpu=3, client=1), 2, shared=True) == pytest.approx(50 * 4 / 3)


def test_the_clients_time_on_idle_cores_is_not_added() -> None:
    assert net_rate(run(wall=2, cpu=2, client=1), 2, shared=True) == 50


def test_the_rate_is_taken_between_completions() -> None:
    # The first one waited for 0.7 s behind others; after that it is one in 0.1 s.
    assert rate([1.7, 1.8, 1.9, 2.0], until=None) == pytest.approx(10)


def test_the_rate_leaves_out_completions_after_the_end() -> None:
    assert rate([1.0, 1.1, 1.2, 1.25], until=1.21) == pytest.approx(10)


def test_the_rate_uses_late_completions_if_there_are_too_few() -> None:
    assert rate([1.0, 2.0, 3.0], until=1.5) == pytest.approx(1)
    assert rate([1.0], until=1.5) == 0


def row(server: str, **figures: float | None) -> dict[str, Any]:
    return {
        "image": "jpeg-12mp.jpg",
        "server": server,
        "requests_per_second": 100.0,
        "requests_per_second_net": 100.0,
        "ratio_to_bare_loop": 1.0,
        "cpu_ms_per_request": 10.0,
        "cpu_ratio_to_bare_loop": 1.0,
        "client_cpu_ms_per_request": None,
        "output_bytes": 1000,
        "ssim": 0.95,
        "colour_difference": 0.6,
        "others_share": 0.01,
    } | figures


def judged(*rows: dict[str, Any]) -> list[bool]:
    return [met for met, _ in verdicts({"rows": list(rows)})]


@pytest.mark.parametrize(("cpu", "met"), [(25.0, True), (24.9, False)])
def test_the_target_over_the_original_is_per_core(cpu: float, met: bool) -> None:  # noqa: FBT001
    assert judged(row("vipsrv"), row("original", cpu_ms_per_request=cpu)) == [met]


@pytest.mark.parametrize(("ratio", "met"), [(1.07, True), (1.08, False)])
def test_the_target_over_the_pipeline_loop_is_by_throughput(ratio: float, met: bool) -> None:  # noqa: FBT001
    assert judged(row("vipsrv"), row("pipeline-loop", ratio_to_bare_loop=ratio)) == [met]


@pytest.mark.parametrize(
    ("peer", "met"),
    [
        ({"requests_per_second_net": 99.0, "cpu_ms_per_request": 10.1}, True),
        ({"requests_per_second_net": 101.0, "cpu_ms_per_request": 10.1}, False),
        ({"requests_per_second_net": 99.0, "cpu_ms_per_request": 9.9}, False),
        ({"requests_per_second_net": 99.0, "cpu_ms_per_request": 10.1, "ssim": 0.9509}, True),
        ({"requests_per_second_net": 99.0, "cpu_ms_per_request": 10.1, "ssim": 0.952}, False),
        ({"requests_per_second_net": 99.0, "cpu_ms_per_request": 10.1, "output_bytes": 975}, True),
        ({"requests_per_second_net": 99.0, "cpu_ms_per_request": 10.1, "output_bytes": 965}, False),
    ],
)
def test_vipsrv_must_be_faster_than_a_peer_and_not_worse_or_larger(
    peer: dict[str, float],
    met: bool,  # noqa: FBT001
) -> None:
    assert judged(row("vipsrv"), row("sharp", **peer)) == [met]


def test_there_are_no_verdicts_without_vipsrv() -> None:
    assert judged(row("original"), row("sharp")) == []


@pytest.mark.parametrize(("others", "told_of"), [(0.01, False), (0.4, True)])
def test_the_table_names_missing_servers_and_disturbance(
    others: float,
    told_of: bool,  # noqa: FBT001
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {"rounds": 5, "seconds": 2.0, "connections": 8, "server_cores": [0], "client_cores": [1]}
    machine = {"cpu": "a fast one", "cores": 2, "kernel": "Linux 6", "python": "3.12"}
    print_table(
        {
            "rows": [
                row("bare-loop"),
                row("codec-floor", ssim=None, colour_difference=None, others_share=others),
            ],
            "settings": settings,
            "versions": {"bare-loop": "libvips 8"},
            "missing": {"imgproxy": "no imgproxy on the path"},
            "machine": machine,
            "commit": None,
        }
    )
    told = capsys.readouterr().out
    assert "imgproxy is missing: no imgproxy on the path" in told
    assert "a fast one" in told
    assert "0.950    0.60" in told
    assert ("Others used up to 40%" in told) == told_of
