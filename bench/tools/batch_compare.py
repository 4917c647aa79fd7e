"""Compare ``vipsrv batch`` with other programs that resize many files, in one run, and check the targets.

    python -m bench.tools.batch_compare --json batch.json --markdown batch.md
    python -m bench.tools.batch_compare --case screens --files 200 --rounds 3

All programs do the same task with the same files on all cores, in turns: a round is one turn of each, and
every number is the median of the rounds. A turn is the whole program, from its start to its end, with an
empty output folder; the files are in the page cache. CPU is user and system time of all its processes. A
second, short turn with two files tells the start of the program: columns with ``each`` are what a further
image takes.

Each turn's results are checked: their number, format, size, quality and chroma subsampling. Those of the
first turn are decoded and compared with a full decode and Lanczos (SSIM). A program with wrong results is no
peer. A program that is not installed is named as not measured.

The JSON is an object: ``machine``, ``commit``, ``time`` (UTC), ``settings``, ``versions`` and ``missing`` (by
program), and ``rows``, one for each case and program:

========================== ==========================================================================
``case``, ``program``      their names
``files``, ``width``       of the task
``images_per_second``      by the clock, with the start of the program
``images_per_second_each`` without it, and as if the server of a program that downloads took no time;
                           ``null`` if the machine was too crowded to tell
``cpu_ms``                 CPU an image, with the start
``cpu_ms_each``            without it
``server_cpu_ms``          CPU an image of the server that a program downloads from; in no other column
``start_seconds``          by the clock, with two files
``start_cpu_seconds``      likewise
``peak_mb``                the largest process
``input_mb``, ``output_mb`` of all files
``ssim``, ``least_ssim``   mean and least of the different images
``wrong``, ``problem``     results that were not what was asked for, and how one was not
``others_share``           share of the cores used by other programs and machines, 0 to 1
``ratios``                 vipsrv batch over this program: the four figures of speed, medians of the rounds'
``rounds``                 the figures of each round
========================== ==========================================================================
"""

import datetime as dt
import json
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.arguments import in_a_folder
from bench.baselines.batch import PROGRAMS, BatchProgram
from bench.baselines.batch.interface import Task
from bench.baselines.batch.static_server import StaticServer
from bench.baselines.interface import all_cores
from bench.baselines.vipsthumbnail import read_into_cache
from bench.image_sets import SETS, make_set
from bench.measuring.command_run import CommandFailed, run_command
from bench.measuring.cores import Cores
from bench.measuring.machine import commit, this_machine
from bench.tools.batch_results import Seen, check, look
from bench.tools.batch_tables import OWN, SPEEDS, ratio, tables, verdicts

START_FILES = 2
MEGA = 1e6

Figures = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Case:
    """A set of files, and the width of the results.

    If ``downloaded``, it is for programs that download, and for vipsrv batch.
    """

    set: str
    width: int
    downloaded: bool = False

    def takes(self, program: BatchProgram) -> bool:
        """Whether the case is one for this program."""
        return program.downloads == self.downloaded or program.name == OWN


CASES = {
    "screens": Case("screens", 800),
    "mixed": Case("mixed", 320),
    "dataset": Case("screens", 256, downloaded=True),
}
"""1600 × 1200 JPEG to 800 × 600, a mix to 320 pixels, and what data sets are made of."""


@dataclass(slots=True)
class Turns:
    """What one program did in one case."""

    rounds: list[Figures] = field(default_factory=list)
    seen: Seen | None = None
    wrong: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of a program. ``net_seconds``: as if the server that it downloads from took no time."""

    seconds: float
    net_seconds: float
    cpu: float
    server_cpu: float
    peak_bytes: int
    others_share: float
    results: Sequence[Path]


def turn(program: BatchProgram, task: Task, server: StaticServer, output: Path) -> Turn:
    """Run a program once, into an empty folder. Raises ``CommandFailed``."""
    cores = all_cores()
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    invocation = program.invocation(task, output, len(cores))
    before, server_before = Cores.now(), server.cpu_seconds()
    run = run_command(invocation.command, environment=invocation.environment)
    server_cpu = server.cpu_seconds() - server_before
    spent = Cores.now() - before
    # The program would have had the time of the server, except what would have been idle.
    idle = max(0.0, len(cores) * run.seconds - run.cpu - server_cpu)
    lost = max(0.0, server_cpu - idle) / len(cores)
    return Turn(
        seconds=run.seconds,
        net_seconds=run.seconds - lost,
        cpu=run.cpu,
        server_cpu=server_cpu,
        peak_bytes=run.peak_bytes,
        others_share=max(0.0, (spent.busy + spent.stolen - run.cpu - server_cpu) / spent.total),
        results=sorted(output.rglob("*.jpg")),
    )


def figures(start: Turn, whole: Turn, files: int) -> Figures:
    """The figures of one round from the turn with ``START_FILES`` and the whole one."""
    further = files - START_FILES
    seconds = whole.net_seconds - start.net_seconds
    return {
        "images_per_second": files / whole.seconds,
        # On a crowded machine the short turn may have taken longer than the whole one.
        "images_per_second_each": further / seconds if seconds > 0 else None,
        "cpu_ms": whole.cpu / files * 1e3,
        "cpu_ms_each": (whole.cpu - start.cpu) / further * 1e3,
        "server_cpu_ms": whole.server_cpu / files * 1e3,
        "start_seconds": start.seconds,
        "start_cpu_seconds": start.cpu,
        "peak_mb": whole.peak_bytes / MEGA,
        "others_share": whole.others_share,
    }


def measure(
    name: str,
    case: Case,
    programs: Sequence[BatchProgram],
    files: int,
    rounds: int,
    folder: Path,
    failed: dict[str, str],
) -> list[dict[str, Any]]:
    """Measure one case with all its programs; ``failed`` gets those that end with an error, and why."""
    inputs = make_set(case.set, files, folder / "images")
    for path in inputs:
        read_into_cache(path)
    measured = {program.name: Turns() for program in programs if case.takes(program)}
    # The small task has a folder of its own, because vipsrv batch takes all that is in one.
    few = make_set(case.set, START_FILES, folder / "few")
    with StaticServer(folder / "images") as server:
        tasks = [_task(paths, case, server.url) for paths in (few, inputs)]
        for number in range(rounds):
            # In another order each time, so that nobody always follows the same one.
            order = [one for one in programs if one.name in measured and one.name not in failed]
            place = number % len(order)
            for program in [*order[place:], *order[:place]]:
                try:
                    start, whole = (turn(program, task, server, folder / "results") for task in tasks)
                except CommandFailed as error:
                    failed[program.name] = str(error)
                    continue
                turns = measured[program.name]
                wrong, problem = check(whole.results, tasks[1])
                turns.wrong += wrong
                turns.problem = turns.problem or problem
                if turns.seen is None and not wrong:
                    turns.seen = look(whole.results, tasks[1], min(files, len(SETS[case.set])))
                turns.rounds.append(figures(start, whole, files))
                speed = turns.rounds[-1]
                print(
                    f"{name}, round {number + 1} of {rounds}: {program.name} "
                    f"{speed['images_per_second']:.1f} images/s, {speed['cpu_ms']:.2f} ms of CPU",
                    file=sys.stderr,
                )
    size = sum(path.stat().st_size for path in inputs)
    about = {"case": name, "files": files, "width": case.width, "input_mb": size / MEGA}
    able = {program: turns for program, turns in measured.items() if program not in failed}
    return [about | row(program, turns, able.get(OWN)) for program, turns in able.items()]


def row(program: str, turns: Turns, own: Turns | None) -> dict[str, Any]:
    """One row of the JSON from the turns of a program and of vipsrv batch, if that was run."""
    medians = {name: _median([one[name] for one in turns.rounds]) for name in turns.rounds[0]}
    ratios = own and {
        speed: _median(
            [
                ratio(speed, one[speed], other[speed])
                for one, other in zip(own.rounds, turns.rounds, strict=True)
            ]
        )
        for speed in SPEEDS
    }
    seen = turns.seen
    return {
        "program": program,
        **medians,
        "output_mb": seen.bytes / MEGA if seen else None,
        "ssim": seen.mean_ssim if seen else None,
        "least_ssim": seen.least_ssim if seen else None,
        "wrong": turns.wrong,
        "problem": turns.problem,
        "ratios": ratios,
        "rounds": turns.rounds,
    }


def _median(values: Sequence[float | None]) -> float | None:
    """The median of the rounds that have a value; ``None`` if none has."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _task(files: Sequence[Path], case: Case, url: str) -> Task:
    listing = files[0].parent.with_suffix(".txt")
    listing.write_text("".join(f"{path}\n" for path in files))
    return Task(files, listing, case.width, url)


def main(
    cases: Annotated[
        list[str] | None, typer.Option("--case", help=f"{', '.join(CASES)}. [default: all]")
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--program", help="A program, by name; vipsrv batch always runs. [default: all]"),
    ] = None,
    files: Annotated[int, typer.Option(min=20, help="Files of a case.")] = 2000,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", dir_okay=False, help="Write the results here, too.", callback=in_a_folder),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write the tables here, too.", callback=in_a_folder),
    ] = None,
) -> None:
    """Print the tables, the programs that were not measured, the machine and the targets."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    for option, given, known in (
        ("--case", cases, list(CASES)),
        ("--program", names, [one.name for one in PROGRAMS]),
    ):
        if unknown := [one for one in given or () if one not in known]:
            raise typer.BadParameter(
                f"{option}: {', '.join(unknown)} is unknown; known are {', '.join(known)}"
            )
    wanted = [one for one in PROGRAMS if not names or one.name in {*names, OWN}]
    missing = {one.name: reason for one in wanted if (reason := one.missing())}
    present = [one for one in wanted if one.name not in missing]
    document: dict[str, Any] = {
        "machine": this_machine().as_dict(),
        "commit": commit(),
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "settings": {"cores": all_cores(), "rounds": rounds, "files": files},
        "versions": {one.name: one.version() for one in present},
        "what": {one.name: one.what for one in present},
        "missing": missing,
        "rows": [],
    }
    for name in cases or CASES:
        with tempfile.TemporaryDirectory(prefix="vipsrv-bench-") as folder:
            failed: dict[str, str] = {}
            document["rows"] += measure(name, CASES[name], present, files, rounds, Path(folder), failed)
        missing |= {f"{program} ({name})": why for program, why in failed.items()}
        if json_file:  # after each case, because a long run may be interrupted
            json_file.write_text(json.dumps(document, indent=1) + "\n")
        if markdown:
            markdown.write_text(tables(document))
    print(tables(document))
    for met, line in verdicts(document):
        print(f"{'met   ' if met else 'NOT MET'} {line}")


if __name__ == "__main__":
    typer.run(main)
