"""The parts of ``vipsrv batch`` that need no server: the command line, the figures, the summary."""

import io
import itertools
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from vipsrv.batch.progress import Progress
from vipsrv.batch.rows import OutputRow, Row
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.cli import batch_progress
from vipsrv.cli.batch_figures import Figures, RateMeter
from vipsrv.cli.batch_progress import show_progress
from vipsrv.cli.batch_screen import render
from vipsrv.cli.batch_summary import SHOWN_FAILURES, Tally, summary, with_retry
from vipsrv.cli.batch_values import parse_moment, parse_share, result_options
from vipsrv.cli.default_command import DEFAULT_COMMAND, DefaultCommand, GroupWithDefault
from vipsrv.cli.exit_codes import ExitCode, batch_errors
from vipsrv.cli.quantities import span
from vipsrv.cli.retry_codes import CODES, join_codes, parse_codes
from vipsrv.errors import (
    BatchError,
    ConnectFailed,
    ServerLost,
    StorageFailed,
    TlsFailed,
    TooManyFailures,
    Unauthorized,
)

root = typer.Typer()
group = typer.Typer(cls=GroupWithDefault)
root.add_typer(group, name="group")


@root.callback()
def _root() -> None:
    pass


@group.command(DEFAULT_COMMAND, cls=DefaultCommand)
def _default(one: str, two: str, *, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
    typer.echo(f"{one} to {two}, loud: {loud}")


@group.command("status")
def _status(where: str) -> None:
    typer.echo(f"status of {where}")


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["a", "b"], "a to b, loud: False"),
        (["--loud", "a", "b"], "a to b, loud: True"),
        (["a", "b", "--loud"], "a to b, loud: True"),
        (["status", "b"], "status of b"),
        (["./status", "b"], "./status to b, loud: False"),
        (["a", "status"], "a to status, loud: False"),
        (["run", "b"], "run to b, loud: False"),
    ],
)
def test_a_group_runs_its_default_command(arguments: list[str], printed: str) -> None:
    done = CliRunner().invoke(root, ["group", *arguments])
    assert (done.exit_code, done.output.strip()) == (0, printed)


def test_the_default_command_is_called_by_the_name_of_its_group() -> None:
    help_ = CliRunner().invoke(root, ["group", "--help"]).output
    assert "group [OPTIONS]" in help_
    assert "run" not in help_
    wrong = CliRunner().invoke(root, ["group", "a"])
    assert wrong.exit_code == 2
    assert "group [OPTIONS]" in wrong.stderr
    assert "run" not in wrong.stderr


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "b", "--retry-failed"], ["a", "b", "--retry-failed=all"]),
        (["--retry-failed", "a", "b"], ["--retry-failed=all", "a", "b"]),
        (["--retry-failed", "busy", "empty", "a", "b"], ["--retry-failed=busy,empty", "a", "b"]),
        (["--retry-failed", "busy,empty", "a"], ["--retry-failed=busy,empty", "a"]),
        (["--retry-failed=busy", "empty"], ["--retry-failed=busy", "empty"]),
        (["--", "--retry-failed", "b"], ["--", "--retry-failed", "b"]),
    ],
)
def test_only_codes_after_retry_failed_belong_to_it(given: list[str], joined: list[str]) -> None:
    assert join_codes(given) == joined


def test_codes_to_retry_have_to_exist() -> None:
    assert parse_codes("all") == CODES
    assert parse_codes("busy,empty") == {"busy", "empty"}
    with pytest.raises(ValueError, match=r"'bussy' is no code; the codes are .*corrupt_image"):
        parse_codes("empty,bussy")


def progress(**values: Any) -> Progress:
    return Progress(run="r", started=0.0, **values)


def meter_of(
    steps: list[tuple[float, Progress]], *, total: int | None = None, limit: int | None = None
) -> RateMeter:
    """A meter that was started at second 0 and reads these."""
    clock: Iterator[float] = iter([0.0, *(at for at, _ in steps)])
    readings = itertools.chain(now for _, now in steps)
    return RateMeter(lambda: next(readings), clock=lambda: next(clock), total=lambda: total, limit=limit)


def test_rates_are_those_of_the_last_minute() -> None:
    steps = [
        (float(at), progress(listed=2000, listing_done=True, done=at if at <= 60 else 60 + 10 * (at - 60)))
        for at in range(10, 130, 10)
    ]
    meter = meter_of(steps)
    figures = [meter.read() for _ in steps]
    assert figures[2].images_per_second == pytest.approx(1)
    assert figures[-1].images_per_second == pytest.approx(10)
    assert figures[-1].elapsed == 120
    assert figures[-1].seconds_left == pytest.approx((2000 - 660) / 10)


def test_time_left_is_unknown_until_all_is_listed() -> None:
    meter = meter_of(
        [(10.0, progress(listed=100, done=10, failed={"busy": 2}, bytes_in=4000, bytes_out=1000))]
    )
    figures = meter.read()
    assert figures.seconds_left is None
    assert figures.line() == (
        "10 done, 2 failed, 0 skipped of 100 listed, more to be listed; 1.2 images/s, 0.0 MB/s; ratio 4; "
        "0 in flight; after 10 s"
    )


def test_a_line_says_what_is_left() -> None:
    meter = meter_of([(10.0, progress(listed=3000, listing_done=True, done=100, skipped=900, in_flight=8))])
    assert meter.read().line() == (
        "100 done, 0 failed, 900 skipped of 3,000, 2,000 left, about 3 min; 10.0 images/s, 0.0 MB/s; "
        "8 in flight; after 10 s"
    )


def test_a_total_that_was_counted_says_what_is_left() -> None:
    now = progress(listed=2000, done=100, failed={"busy": 50}, skipped=850)
    counted = meter_of([(10.0, now)], total=5000).read()
    assert counted.left == 4000
    assert counted.seconds_left == pytest.approx(4000 / 15)
    assert "of 5,000, 4,000 left, about 4 min" in counted.line()
    assert meter_of([(10.0, now)], total=5000, limit=200).read().left == 50
    assert meter_of([(10.0, now)], total=500).read().left == 0  # it has grown since


def row(key: str, code: str = "ok", status: int = 200) -> Row:
    outputs = (
        (OutputRow(key="x", width=1, height=1, format="webp", bytes=10, sha256="0"),) if code == "ok" else ()
    )
    return Row(
        key=key,
        version="v",
        options="o",
        bytes=100,
        outputs=outputs,
        status=status,
        code=code,
        message="" if code == "ok" else "it is broken",
        attempts=1,
        ms=1.0,
        ended=0,
        run="r",
    )


def tally_of(*rows: Row) -> Tally:
    tally = Tally()
    for one in rows:
        tally.take(one)
    return tally


def test_the_summary_says_what_happened_and_how_to_go_on() -> None:
    tally = tally_of(row("a"), row("b"), row("c\x1b", "corrupt_image", 422))
    command = ["batch", "my photos", "out", "--sizes", "320x"]
    lines = summary(
        tally,
        progress(listed=7, skipped=4),
        2.0,
        left_out=LeftOut(),
        destination="out",
        command=command,
        ended=True,
    )
    assert lines == [
        "done: 2 images done, 1 failed, 4 skipped, in 2.0 s, 1.5 images/s",
        "bytes: 200 B → 20 B (ratio 10)",
        "failed: 1 × 422 corrupt_image",
        "  c\\x1b: 422 corrupt_image: it is broken",
        "manifest: out/.vipsrv/parts",
        "try the failed ones again: vipsrv batch 'my photos' out --sizes 320x --retry-failed",
    ]
    assert summary(
        tally, progress(), 2.0, left_out=LeftOut(), destination="s3://b/", command=command, ended=False
    )[-2:] == [
        "manifest: s3://b/.vipsrv/parts",
        "go on: vipsrv batch 'my photos' out --sizes 320x",
    ]


def test_the_summary_says_how_to_try_earlier_failures_again() -> None:
    """Also of a run that has done others."""
    now, command = progress(listed=3, skipped=2, failed_before=2), ["batch", "in", "out"]
    tally = tally_of(row("a"))
    lines = summary(tally, now, 2.0, left_out=LeftOut(), destination="out", command=command, ended=True)
    assert lines[0] == (
        "done: 1 image done, 0 failed, 2 skipped, 2 of them failed before, in 2.0 s, 0.5 images/s"
    )
    assert lines[-1] == "try the failed ones again: vipsrv batch in out --retry-failed"


def test_the_summary_of_a_source_without_images() -> None:
    lines = summary(
        Tally(), progress(listed=0), 2.0, left_out=LeftOut(), destination="out", command=[], ended=True
    )
    assert lines == [
        "done: 0 images done, 0 failed, 0 skipped, in 2.0 s",
        "no image was listed; vipsrv batch --help says which are (--include, --since …)",
        "manifest: out/.vipsrv/parts",
    ]


def test_the_summary_lists_the_first_failures() -> None:
    tally = tally_of(*(row(f"{index}", "corrupt_image", 422) for index in range(SHOWN_FAILURES + 3)))
    lines = summary(
        tally, progress(), 1.0, left_out=LeftOut(), destination="a b", command=["batch"], ended=True
    )
    assert sum(line.endswith("it is broken") for line in lines) == SHOWN_FAILURES
    assert "  and 3 more; all of them: vipsrv batch report 'a b'" in lines


def test_a_limit_that_was_reached_is_told() -> None:
    tally = tally_of(row("a"), row("b"))
    for limit, told in ((2, True), (3, False)):
        lines = summary(
            tally,
            progress(),
            1.0,
            left_out=LeftOut(),
            destination="out",
            command=["batch", "in"],
            ended=True,
            limit=limit,
        )
        assert (f"the limit of {limit} images is reached; the next ones: vipsrv batch in" in lines) is told


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            ServerLost("it is gone"),
            ExitCode.NO_SERVER,
            "it is gone; once it is well, the same command goes on",
        ),
        (ConnectFailed("nobody"), ExitCode.NO_SERVER, "nobody; start it, or leave --server out "),
        (TlsFailed("no trust"), ExitCode.NO_SERVER, "no trust\n"),
        (
            Unauthorized("no token"),
            ExitCode.NO_SERVER,
            "the server answered 401 unauthorized: no token; name ",
        ),
        (StorageFailed("s3://b", "is full"), ExitCode.FILE, "s3://b: is full\n"),
        (TooManyFailures("9 of 10"), ExitCode.FILE, "9 of 10\n"),
        (BatchError("another run"), ExitCode.FILE, "another run\n"),
        (ValueError("--x: no"), ExitCode.USAGE, "--x: no\n"),
    ],
)
def test_each_end_has_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: Exception, code: ExitCode, said: str
) -> None:
    with pytest.raises(typer.Exit) as raised, batch_errors("vipsrv batch"):
        raise error
    assert raised.value.exit_code == code
    assert capsys.readouterr().err.startswith(f"vipsrv batch: {said}")


def test_retrying_is_not_asked_for_twice() -> None:
    assert with_retry(["batch", "--retry-failed=busy"]) == ["batch", "--retry-failed=busy"]
    assert with_retry(["batch", "--retry-failed"]) == ["batch", "--retry-failed"]


class Announcing(RateMeter):
    """A meter that says when it has been read three times."""

    def __init__(self) -> None:
        super().__init__(lambda: progress(listed=5, done=1))
        self.read_three_times = threading.Event()
        self._reads = 0

    def read(self) -> Figures:
        self._reads += 1
        if self._reads == 3:
            self.read_three_times.set()
        return super().read()


def test_without_a_terminal_there_is_a_line_from_time_to_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batch_progress, "LINE_SECONDS", 0.001)
    meter = Announcing()
    with show_progress(meter, quiet=False, rows_on_terminal=False):
        assert meter.read_three_times.wait(60)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("vipsrv batch: 1 done, 0 failed, 0 skipped of 5 listed, more to be listed; ")
    assert said.err.count("\n") >= 2


def test_a_quiet_command_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    meter = Announcing()
    with show_progress(meter, quiet=True, rows_on_terminal=False):
        assert "vipsrv-batch-progress" not in {thread.name for thread in threading.enumerate()}
    assert capsys.readouterr() == ("", "")


def rendered(now: Progress) -> list[str]:
    console = Console(width=70, file=io.StringIO(), record=True)
    console.print(render(meter_of([(20.0, now)]).read()))
    return console.export_text().splitlines()


def test_the_screen_shows_a_share_once_all_are_listed() -> None:
    known = rendered(
        progress(
            listed=100,
            listing_done=True,
            done=40,
            failed={"busy": 5},
            skipped=5,
            bytes_in=8000,
            bytes_out=800,
        )
    )
    assert known[0].endswith(" 50%")
    assert known[1].split("  ") == ["40 done", "5 failed", "5 skipped", "50 left", "0 in flight"]
    assert known[2] == "2.2 images/s  0.0 MB/s  ratio 10  20 s so far, about 22 s left"
    unknown = rendered(progress(listed=100, done=40))
    assert unknown[0].endswith(" listing")
    assert "100 listed so far" in unknown[1]
    assert "left" not in unknown[2]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (3725, "1 h 2 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_a_span_has_two_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_every_size_is_made_in_every_format() -> None:
    made = result_options("320x,x20", "webp, jpg", fit=None, quality=70)
    assert [(one.width, one.height, one.format, one.quality) for one in made] == [
        (320, None, "webp", 70),
        (None, 20, "webp", 70),
        (320, None, "jpeg", 70),
        (None, 20, "jpeg", 70),
    ]
    with pytest.raises(ValueError, match="--format: jpeg is given twice"):
        result_options("320x", "jpg,jpeg", fit=None)
    with pytest.raises(ValueError, match="--sizes: '320' is not a size"):
        result_options("320", "jpg", fit=None)


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("36h", datetime(2026, 2, 28, 0, tzinfo=UTC)),
        ("7 d", datetime(2026, 2, 22, 12, tzinfo=UTC)),
        ("90s", datetime(2026, 3, 1, 11, 58, 30, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31).astimezone()),
        ("2026-01-31T18:00+02:00", datetime(2026, 1, 31, 16, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_date_or_an_age(text: str, moment: datetime) -> None:
    assert parse_moment("--since", text, NOW) == moment


@pytest.mark.parametrize("text", ["yesterday", "", "7x", "2026-02-30", "-3d"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--since: .* is no moment; write 2026-01-31"):
        parse_moment("--since", text, NOW)


def test_a_share_is_a_number_or_percent() -> None:
    assert (parse_share("--x", "0.05"), parse_share("--x", " 5% "), parse_share("--x", "100%")) == (
        0.05,
        0.05,
        1,
    )
    for text in ("", "2", "-1%", "nan", "5 percent"):
        with pytest.raises(ValueError, match=r"--x: .* is no share"):
            parse_share("--x", text)
