"""Commands that put a load on a server notice every lost or wrong reply."""

import time
from functools import partial
from pathlib import Path

import pytest
import typer

from bench.tools import chaos, gateway, latency, soak
from bench.tools.threads import run_together
from bench.wire import resize_once
from tests.bench.tools.fakes import Answer, FakeServer, garbage, jpeg, nothing, right


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.jpg"
    path.write_bytes(jpeg(16, 12))
    return path


def chaos_with(first: Answer, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "Server", lambda *_: FakeServer(first))
    monkeypatch.setattr(chaos, "IMAGES", ("small.jpg",))
    monkeypatch.setattr(chaos, "image_file", lambda _: small)
    chaos.main(connections=3, seconds=0.01, every=0.0, workers=1)


def test_chaos_passes_a_server_that_answers_all(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chaos_with(right, small, monkeypatch)


@pytest.mark.parametrize(
    ("first", "counted"),
    [
        pytest.param(nothing, "lost: ConnectionError('the server closed after 0 bytes", id="nothing"),
        pytest.param(garbage, "no image: UnidentifiedImageError", id="garbage"),
        pytest.param(lambda w, h: right(w, h)[:-20], "lost: ConnectionError(", id="cut"),
        pytest.param(lambda w, h: right(w + 1, h), "wrong size", id="size"),
        pytest.param(lambda *_: b"\0\0", "closed after 2 bytes", id="half a size"),
        pytest.param(lambda *_: bytes(28) + b"\xff", "refused: ", id="no text"),
    ],
)
def test_chaos_finds_one_reply_that_is_lost_or_wrong(
    first: Answer,
    counted: str,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit) as ended:
        chaos_with(first, small, monkeypatch)
    assert ended.value.exit_code == 1
    assert counted in capsys.readouterr().out


def test_an_empty_reply_is_a_connection_error() -> None:
    with FakeServer(nothing) as server, pytest.raises(ConnectionError, match="after 0 bytes of a reply"):
        resize_once(server.port, b"image")


def test_latency_fails_if_a_client_fails() -> None:
    with FakeServer(nothing) as server, pytest.raises(ConnectionError):
        latency.measure(server.port, b"image", 2, 0.01)


def test_the_gateway_measurement_fails_if_a_client_fails() -> None:
    with FakeServer(nothing) as server, pytest.raises(ConnectionError):
        gateway.measure_round(server, b"image", 8, 8, 2, 0.01)  # type: ignore[arg-type]  # it has what is used


def test_replies_after_the_end_of_a_round_are_divided_by_the_time_until_they_came() -> None:
    def late(_width: int, _height: int) -> bytes:
        time.sleep(0.2)
        return b"result"

    with FakeServer(late, late) as server:
        *_, rate = gateway.measure_round(server, b"image", 8, 8, 2, 0.01)  # type: ignore[arg-type]  # likewise
    assert rate <= 2 / 0.2


def test_the_soak_counts_unexpected_exceptions(small: Path) -> None:
    class Broken:
        def resize(self, *_: object, **__: object) -> None:
            raise ValueError("not foreseen")

    answer = soak.ask(Broken(), soak.SMALL[0], small)  # type: ignore[arg-type]  # it has what is used
    assert answer.verdict == "lost: ValueError('not foreseen')"


def test_calls_made_together_raise_what_one_of_them_raised() -> None:
    assert run_together([partial(pow, 2, power) for power in range(3)]) == [1, 2, 4]
    with pytest.raises(ZeroDivisionError):
        run_together([partial(pow, 0, 1), partial(pow, 0, -1)])
