"""How far work on many images is."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vipsrv.cli.many_report import MOST_LISTED, Ending, ImageOutcome, SavedResult, Tally
from vipsrv.cli.progress import LINE_SECONDS, NoProgress, ProgressLines, Total, open_progress, progress_text
from vipsrv.errors import CorruptImage

SAVED = SavedResult("a.jpg", 8, 6, "jpeg", 85, 250_000, 4.0)


@pytest.fixture
def tally(monkeypatch: pytest.MonkeyPatch) -> Tally:
    """Three images are done, one has failed and one was skipped, in 2 s."""
    one = Tally()
    monkeypatch.setattr("vipsrv.cli.many_report.time.monotonic", lambda: one.started + 2.0)
    for ending in [Ending.DONE] * 3 + [Ending.SKIPPED]:
        one.add(ImageOutcome(image=Path("a"), ending=ending, size=1_000_000, results=(SAVED,)))
    one.add(ImageOutcome(image=Path("b\x1b"), ending=Ending.FAILED, error=CorruptImage("cut off")))
    return one


def read(controller: int) -> bytes:
    """What was written to a terminal, piece by piece; nothing at its end."""
    try:
        return os.read(controller, 1 << 16)
    except OSError:  # as Linux says that nobody has the terminal any more
        return b""


def counted(count: int) -> Total:
    with Total(range(count)) as total:
        total._thread.join()
        return total


def test_the_text(tally: Tally) -> None:
    figures = "2.0 images/s, 3 MB → 750 kB (4.0 : 1)"
    assert progress_text(tally, None) == f"5 images, 1 failed, {figures}"
    assert progress_text(tally, 15) == f"5 of 15 images, 1 failed, 5 s left, {figures}"
    # What was counted may be less than what is there now.
    assert progress_text(tally, 4) == f"5 of 5 images, 1 failed, 0 s left, {figures}"
    assert progress_text(Tally(), 4).startswith("0 of 4 images, ")


def test_lines_are_written_from_time_to_time(tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    now = 50.0
    lines = ProgressLines("vipsrv-client", counted(9), clock=lambda: now)
    lines.show(tally)
    now += LINE_SECONDS - 0.1
    lines.show(tally)
    assert capsys.readouterr().err == ""
    now += 0.1
    lines.show(tally)
    lines.show(tally)
    assert capsys.readouterr().err == f"vipsrv-client: {progress_text(tally, 9)}\n"
    now += LINE_SECONDS
    lines.show(tally)
    assert capsys.readouterr().err.count("\n") == 1


def test_the_total_is_unknown_until_all_are_counted() -> None:
    assert counted(3).value == 3

    def endless() -> Iterator[int]:
        while True:
            yield 1

    with Total(endless()) as total:
        assert total.value is None
    total._thread.join(30)  # it ends because nobody wants to know any more
    assert not total._thread.is_alive()


def test_nothing_is_shown_if_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_progress("x", [], quiet=True) as quiet:
        assert isinstance(quiet, NoProgress)
    with open_progress("x", [], quiet=False) as lines:
        assert isinstance(lines, ProgressLines)
    monkeypatch.setattr(sys, "stderr", None)
    with open_progress("x", [], quiet=False) as closed:
        assert isinstance(closed, NoProgress)


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no pseudo-terminals")
def test_a_bar_on_a_terminal(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    controller, terminal = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with open(terminal, "w", encoding="utf-8") as stderr:  # noqa: PTH123 - a descriptor
        monkeypatch.setattr(sys, "stderr", stderr)
        with open_progress("x", range(9), quiet=False) as bar:
            bar._total._thread.join()  # type: ignore[attr-defined]
            bar.show(tally)
    shown = b"".join(iter(lambda: read(controller), b"")).decode()
    os.close(controller)
    assert "5 of 9 images, 1 failed, 2 s left" in shown
    assert "2.0 images/s, 3 MB → 750 kB (4.0 : 1)" in shown


def test_the_sum(tally: Tally) -> None:
    tally.left_out = 2
    assert list(tally.lines()) == [
        "done                  3 images",
        "skipped               1, whose results exist",
        "failed                1",
        "left out              2 with the name of a result of an earlier run",
        "total time            2.00 s  (2.0 images a second)",
        "original size         3 MB",
        "size of results       750 kB",
        "compression ratio     4.00 : 1",
    ]
    assert list(tally.failure_lines()) == [r"b\x1b: the server answered 422 corrupt_image: cut off"]
    for number in range(MOST_LISTED):
        tally.add(ImageOutcome(image=Path(str(number)), ending=Ending.FAILED, error=ValueError("no")))
    lines = list(tally.failure_lines())
    assert (len(lines), lines[-1]) == (MOST_LISTED + 1, "and 1 more; --json tells all of them")


def test_a_name_that_is_not_utf_8_is_given_in_base64() -> None:
    row: dict[str, Any] = ImageOutcome(
        image=Path(os.fsdecode(b"caf\xe9")), ending=Ending.FAILED, error=OSError(2, "No such file")
    ).to_json()
    assert (row["image"], row["image_base64"]) == (r"caf\xe9", "Y2Fm6Q==")
    assert row["error"]["message"] == "No such file"
    assert row["error"]["advice"] is None
