"""How the numbers of a comparison are calculated from runs."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.baselines import BareLoop, Baseline, ClosedLoopRun, OriginalDraft, Request
from bench.measuring.process_group import ProcessGroup, rate
from bench.tools.compare import Turns, measure, net_rate, percentile, row, start
from tests.support.images import photo


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


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 3.0), (0.99, 5.0), (1.0, 5.0)])
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert percentile([5.0, 1.0, 4.0, 2.0, 3.0], share) == value


class NotStarting(OriginalDraft):
    """A server whose process ends at once."""

    def command(self) -> list[str]:
        return ["true"]


class PeerNotStarting(NotStarting):
    """Likewise, by the name of a peer."""

    name = "sharp"


def test_a_peer_that_does_not_start_is_missing_and_any_other_server_is_an_error() -> None:
    missing: dict[str, str] = {}
    with ExitStack() as running:
        start(PeerNotStarting([0]), running, missing)
        with pytest.raises(RuntimeError, match="original-draft did not start"):
            start(NotStarting([0]), running, missing)
    assert missing == {"sharp": "sharp did not start; its messages are above"}


@pytest.mark.parametrize("result", [b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_a_result_that_is_no_image_has_a_row(tmp_path: Path, result: bytes) -> None:
    image = tmp_path / "scene.jpg"
    photo(200, 150).save(image)
    figures = ("requests_per_second", "requests_per_second_net", "cpu_ms", "client_cpu_ms", "others_share")
    turns = Turns(result, [dict.fromkeys(figures, 1.0)], [0.1], wrong=1, problem="no image")
    peer = OriginalDraft([0])
    found = row("scene", Request(image, 60, 45), peer, {peer.name: turns, BareLoop.name: turns})
    assert (found["ssim"], found["huffman"], found["wrong"]) == (None, None, 1)


class Failing(OriginalDraft):
    """A peer whose clients fail, whatever they are asked for."""

    name = "failing"
    client = "tests.bench.tools.failing_client"


def test_a_peer_that_fails_has_no_row_and_stops_no_other_one(tmp_path: Path) -> None:
    image = tmp_path / "scene.jpg"
    photo(200, 150).save(image, quality=90)
    servers: list[Baseline] = [BareLoop([0]), Failing([0]), OriginalDraft([0])]
    failed: dict[str, str] = {}
    with ProcessGroup(2, [0]) as clients, servers[0], servers[1], servers[2]:
        rows = measure(
            "scene",
            Request(image, 60, 45),
            servers,
            clients,
            seconds=0.05,
            rounds=1,
            shared=True,
            failed=failed,
        )
    assert [row["server"] for row in rows] == ["bare-loop", "original-draft"]
    assert list(failed) == ["failing"]
    original = rows[1]
    assert (original["source"], original["huffman"], original["wrong"]) == ("upload", "standard", 0)
    assert 0 < original["p50_ms"] <= original["p99_ms"]
    assert original["ssim"] > 0.9
    assert original["ratio_to_vipsrv"] is None
