"""Put a load on a server and measure it.

    python -m bench.load --image jpeg-1.9mp.jpg --connections 8 --duration 10
    python -m bench.load --image jpeg-1.9mp.jpg --protocol 2 --rate 50 --rate 100 --json load.json
    python -m bench.load --corpus FOLDER --count 20000 --host 192.0.2.1 --port 65432

Without --rate the loop is closed: each connection sends its next request when it has the reply, so a slow
server gets fewer requests. With --rate the loop is open: requests are due by the clock whether or not earlier
ones were answered, and latency counts from when they were due (no coordinated omission).

Prints throughput, latency percentiles, errors by code, and CPU time per reply of the server it started and of
itself; --json writes them as described in bench/load/record.py.
"""

import contextlib
import datetime as dt
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from bench.arguments import in_a_folder
from bench.images import IMAGES, image_file
from bench.load.idle import PLACES
from bench.load.plan import Plan, Source
from bench.load.record import NOT_CORRECTED, CoresStats, Document, Percentiles, Run, to_json
from bench.load.run import LoadFailed, run
from bench.load.summary import StartedServer
from bench.measuring.machine import commit, this_machine
from bench.measuring.open_files import allow_open_files
from bench.measuring.server import Server
from vipsrv.protocol import DEFAULT_HOST, DEFAULT_PORT, V1_MAX_SIZE

_DEFAULT_PICTURE = "jpeg-1.9mp.jpg"
_SPARE_FILES = 512
_DISTURBED = 0.05
_DAY = "86400"


def main(
    server_arguments: Annotated[
        list[str] | None,
        typer.Argument(help="After --: more arguments for the 'vipsrv serve' that it starts."),
    ] = None,
    *,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="NAME[:WEIGHT]",
            help="The name of a test image, or a file; several make a mix.",
        ),
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Send every file of this folder.")
    ] = None,
    connections: Annotated[int, typer.Option(min=1, help="Connections of all processes together.")] = 8,
    rate: Annotated[
        list[float] | None,
        typer.Option(help="Requests a second, for an open loop. Several make several runs."),
    ] = None,
    duration: Annotated[float | None, typer.Option(min=0.1, help="Seconds to measure. [default: 10]")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Measure this many requests instead.")] = None,
    warmup: Annotated[float, typer.Option(min=0, help="Seconds of the same load before measuring.")] = 1.0,
    width: Annotated[int, typer.Option(min=1)] = 800,
    height: Annotated[int, typer.Option(min=1)] = 600,
    protocol: Annotated[int, typer.Option(min=1, max=2)] = 1,
    pipeline: Annotated[
        int, typer.Option(min=1, help="Requests in flight on a connection; more than 1 only in version 2.")
    ] = 1,
    processes: Annotated[int, typer.Option(min=1, help="Processes of the load generator.")] = 2,
    idle: Annotated[int, typer.Option(min=0, help="Additional connections that send nothing.")] = 0,
    expected_interval: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Milliseconds between requests on a connection of a closed loop: corrects latencies.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds without any reply after which it gives up.")
    ] = 60.0,
    seed: Annotated[int, typer.Option(help="Seed of the order of the mix.")] = 1,
    host: Annotated[str | None, typer.Option(help="A running server; by default it starts one.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535)] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Workers of the server that it starts; 0 for the default.")
    ] = 0,
    json: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write all results to this file.", callback=in_a_folder),
    ] = None,
) -> None:
    """Put a load on a server and print the results."""
    if duration is not None and count is not None:
        raise typer.BadParameter("--duration and --count cannot be combined")
    if pipeline > 1 and protocol == 1:
        raise typer.BadParameter("version 1 has one request a connection; --pipeline needs --protocol 2")
    if rate and expected_interval is not None:
        raise typer.BadParameter(
            "--expected-interval is for a closed loop; with --rate nothing needs to be corrected"
        )
    if any(one <= 0 for one in rate or []):
        raise typer.BadParameter("--rate must be above 0")
    if (host or port) and (workers or server_arguments):
        raise typer.BadParameter("--workers and arguments after -- need a server that this command starts")
    sources = tuple(_sources(images or [], corpus))
    allow_open_files(connections + idle + _SPARE_FILES)
    arguments = _server_arguments(workers, connections + idle, server_arguments or [])
    started = dt.datetime.now(dt.UTC)
    runs = []
    rates: list[float | None] = [*rate] if rate else [None]
    with contextlib.ExitStack() as stack:
        own = None
        if not (host or port):
            own = StartedServer(stack.enter_context(Server(*arguments)), arguments)
        for one in rates:
            plan = Plan(
                host=own.server.host if own else host or DEFAULT_HOST,
                port=own.server.port if own else port or DEFAULT_PORT,
                sources=sources,
                protocol=protocol,
                connections=connections,
                pipeline=pipeline,
                width=width,
                height=height,
                rate=one,
                warmup=warmup,
                duration=10.0 if duration is None and count is None else duration,
                count=count,
                timeout=timeout,
                expected_interval=None if expected_interval is None else expected_interval / 1e3,
                seed=seed,
            )
            try:
                runs.append(run(plan, processes=min(processes, connections), idle=idle, own=own))
            except LoadFailed as error:
                typer.echo(f"no result: {error}", err=True)
                raise typer.Exit(1) from None
            _print(runs[-1])
    if json is not None:
        document = Document(
            started=started.isoformat(timespec="seconds"),
            command=["python", "-m", "bench.load", *sys.argv[1:]],
            machine=this_machine().as_dict(),
            commit=commit(),
            runs=runs,
        )
        json.write_bytes(to_json(document))


def _sources(names: list[str], corpus: Path | None) -> Iterator[Source]:
    for text in names or ([] if corpus else [_DEFAULT_PICTURE]):
        name, _, weight = text.rpartition(":")
        try:
            share = float(weight)
        except ValueError:
            name, share = text, 1.0
        if not name:  # the name of the file is a number
            name, share = text, 1.0
        if not 0 < share < float("inf"):
            raise typer.BadParameter(f"--image {text}: the weight must be above 0")
        path = image_file(name) if name in IMAGES else Path(name)
        if not path.is_file():
            raise typer.BadParameter(f"--image {name}: neither a file nor one of {', '.join(IMAGES)}")
        yield Source(path.name, path, path.stat().st_size, share)
    if corpus is None:
        return
    found = [path for path in sorted(corpus.rglob("*")) if path.is_file()]
    fit = [path for path in found if 0 < path.stat().st_size <= V1_MAX_SIZE]
    if len(fit) < len(found):
        typer.echo(
            f"{len(found) - len(fit)} files of {corpus} are empty or larger than 4 GiB and are not sent",
            err=True,
        )
    if not fit:
        raise typer.BadParameter(f"--corpus {corpus}: no file in it can be sent")
    for path in fit:
        yield Source(str(path.relative_to(corpus)), path, path.stat().st_size)


def _server_arguments(workers: int, connections: int, further: list[str]) -> list[str]:
    arguments = ["--log-level", "error", "--connections", str(max(4096, round(connections * PLACES) + 16))]
    # The server must not close idle connections during the runs.
    arguments += ["--idle-timeout", _DAY]
    if workers:
        arguments += ["--workers", str(workers)]
    return [*arguments, *further]


def _print(done: Run) -> None:
    loop = f"open loop, {done.rate:g}/s" if done.rate else "closed loop"
    pipeline = f" × {done.pipeline} in flight" if done.pipeline > 1 else ""
    names = ", ".join(one.name for one in done.images[:3]) + (", …" if len(done.images) > 3 else "")
    print(
        f"{names} to {done.width} × {done.height}: {loop}, version {done.protocol}, "
        f"{done.connections} connections{pipeline}, {done.seconds:.1f} s"
    )
    print(
        f"  {done.replies_per_second:.1f} images/s, {done.sent_mb_per_second:.1f} MB/s sent, "
        f"{done.received_mb_per_second:.1f} MB/s received; {done.answered} answered"
    )
    _print_latency("latency", done.latency, note=f" ({done.coordinated_omission})")
    if done.coordinated_omission != NOT_CORRECTED:
        _print_latency("service", done.service, note=" (from when it was sent)")
    if done.errors:
        print("  errors: " + ", ".join(f"{count} {code}" for code, count in done.errors.items()))
    if done.server is not None:
        workers = " + ".join(f"{one:.2f}" for one in done.server.worker_cpu_ms)
        print(
            f"  server CPU {done.server.cpu_ms:.2f} ms a reply: gateway {done.server.gateway_cpu_ms:.2f}, "
            f"workers {workers}"
        )
        first, last = done.server.memory[0], done.server.memory[-1]
        most = max(sample.total_bytes for sample in done.server.memory)
        print(
            f"  server memory {first.total_bytes / 1e6:.0f} MB at the start, "
            f"{last.total_bytes / 1e6:.0f} MB after {last.requests} replies, {most / 1e6:.0f} MB at most"
        )
    generator = done.generator
    late = "" if generator.late_p99_ms is None else f", p99 late by {generator.late_p99_ms:.2f} ms"
    print(
        f"  load generator: {generator.cpu_ms:.2f} ms of CPU a reply, "
        f"busiest of {generator.processes} processes {generator.busiest:.0%} of a core{late}"
    )
    if generator.saturated:
        typer.echo(
            "  WARNING: the load generator was saturated or late, so these results may be its own and not "
            "the server's; use more --processes or leave it more cores",
            err=True,
        )
    _print_cores(done.cores)
    if done.idle is not None:
        print(f"  {done.idle.open_at_end} of {done.idle.asked} idle connections still open at the end")


def _print_cores(cores: CoresStats) -> None:
    others = "" if cores.others is None else f"other processes had {cores.others:.0%} of them, "
    print(f"  {cores.cores} cores: {others}other machines {cores.stolen:.0%}")
    if (cores.others or 0.0) + cores.stolen > _DISTURBED:
        typer.echo(
            "  WARNING: the machine was not idle, so these results are worse than they could be", err=True
        )


def _print_latency(name: str, latency: Percentiles | None, *, note: str) -> None:
    if latency is None:
        print(f"  no {name}: no request was answered")
        return
    print(
        f"  {name} in ms: p50 {latency.p50_ms:.1f}, p90 {latency.p90_ms:.1f}, p99 {latency.p99_ms:.1f}, "
        f"p99.9 {latency.p999_ms:.1f}, max {latency.max_ms:.1f}{note}"
    )


if __name__ == "__main__":
    typer.run(main)
