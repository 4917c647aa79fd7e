"""Compare vipsrv with its baselines and peers in one run, and check the targets.

    python -m bench.tools.compare [--image jpeg-12mp.jpg …] [--server vipsrv …] [--cores N] [--json FILE]

All servers run on the same cores and get a closed loop of requests in turns: a round is one turn of each, and
every number is the median of the rounds. Ratios are taken within a round, so that they hold on a noisy
machine. The servers get the first ``--cores`` cores and the clients the others. If none is left they share
all cores, and the clients' CPU time is taken into account (``requests_per_second_net``).

The JSON is an object: ``machine``, ``commit``, ``time`` (UTC), ``settings``, ``versions`` and ``missing``
(by server), and ``rows``, one for each image and server:

================================== ==================================================================
``image``, ``server``              names
``width``, ``height``              of the result
``requests_per_second``            as counted
``requests_per_second_net``        as if the clients had taken no time of the servers' cores
``cpu_ms_per_request``             user and system time of all of the server's processes
``client_cpu_ms_per_request``      of the clients; ``null`` for a loop
``ratio_to_bare_loop``             of ``requests_per_second_net``; higher is better
``cpu_ratio_to_bare_loop``         of ``cpu_ms_per_request``; lower is better
``input_bytes``, ``output_bytes``  of the image and of the result
``compression_ratio``              input bytes over output bytes
``ssim``                           to the reference; ``null`` if no result is made
``colour_difference``              likewise, the mean absolute difference of Cb and Cr
``others_share``                   share of the servers' cores used by other programs and machines, 0 to 1
``rounds``                         ``requests_per_second_net`` and ``cpu_ms_per_request`` of each
================================== ==================================================================
"""

import contextlib
import datetime as dt
import json
import signal
import statistics
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.arguments import in_a_folder
from bench.baselines import ALL, BareLoop, Baseline, ClosedLoopRun, Request
from bench.baselines.interface import all_cores
from bench.image_quality import colour_difference, decode, reference, ssim
from bench.images import image_file
from bench.measuring.cores import Cores
from bench.measuring.machine import commit, this_machine
from bench.measuring.process_group import ProcessGroup
from bench.tools.comparison import print_table, print_verdicts

CASES = {
    "jpeg-12mp.jpg": (800, 600),
    "jpeg-1.9mp.jpg": (800, 600),
    "jpeg-0.3mp.jpg": (200, 150),
    "png-3mp.png": (800, 600),
    "webp-6mp.webp": (800, 600),
    "strip-24mp.tif": (800, 600),
}
"""Images of ``bench.images`` and what they are resized to."""

Round = dict[str, float]


def net_rate(run: ClosedLoopRun, cores: int, *, shared: bool) -> float:
    """Requests a second as if the clients had taken no time of the server's ``cores``.

    If they share the cores, the server would have had the clients' time, except what would have been idle.
    """
    if not shared:
        return run.requests_per_second
    whole = cores * run.wall_seconds
    idle = max(0.0, whole - run.cpu_seconds - run.client_cpu_seconds)
    lost = max(0.0, run.client_cpu_seconds - idle)
    return run.requests_per_second * whole / (whole - lost)


def row(
    request: Request, server: Baseline, result: bytes, rounds: Sequence[Round], bare: Sequence[Round]
) -> dict[str, Any]:
    """Build one row of the JSON; ``bare`` are the same rounds of the bare loop."""
    name, size = request.image.name, request.image.stat().st_size

    def median(key: str) -> float:
        return statistics.median(one[key] for one in rounds)

    def ratio(key: str) -> float:
        return statistics.median(one[key] / other[key] for one, other in zip(rounds, bare, strict=True))

    likeness: dict[str, float | None] = {"ssim": None, "colour_difference": None}
    if server.makes_result:
        wanted = reference(request.image, request.width, request.height)
        made = decode(result)
        likeness = {"ssim": ssim(made, wanted), "colour_difference": colour_difference(made, wanted)}
    return {
        "image": name,
        "server": server.name,
        "width": request.width,
        "height": request.height,
        "requests_per_second": median("requests_per_second"),
        "requests_per_second_net": median("requests_per_second_net"),
        "cpu_ms_per_request": median("cpu_ms"),
        "client_cpu_ms_per_request": median("client_cpu_ms") if server.port else None,
        "ratio_to_bare_loop": ratio("requests_per_second_net"),
        "cpu_ratio_to_bare_loop": ratio("cpu_ms"),
        "input_bytes": size,
        "output_bytes": len(result),
        "compression_ratio": size / len(result),
        **likeness,
        "others_share": median("others_share"),
        "rounds": rounds,
    }


def measure(
    request: Request,
    servers: Sequence[Baseline],
    clients: ProcessGroup,
    *,
    seconds: float,
    rounds: int,
    shared: bool,
) -> list[dict[str, Any]]:
    """Measure one image with all servers, in their order; the bare loop must be one of them."""
    able = [server for server in servers if server.reads(request.image)]
    results = {server.name: server.ask(request) for server in able}
    measured: dict[str, list[Round]] = {server.name: [] for server in able}
    for number in range(rounds + 1):
        for server in able:
            before, own_before = Cores.now(cores=set(server.cores)), _cpu_seconds(server, clients, shared)
            # The first round is a warm-up.
            run = server.load(request, clients, seconds=seconds if number else min(seconds, 0.5))
            of_cores = Cores.now(cores=set(server.cores)) - before
            others = of_cores.busy + of_cores.stolen - (_cpu_seconds(server, clients, shared) - own_before)
            one = {
                "requests_per_second": run.requests_per_second,
                "requests_per_second_net": net_rate(run, len(server.cores), shared=shared),
                "cpu_ms": run.cpu_ms,
                "client_cpu_ms": run.client_cpu_ms,
                "others_share": max(0.0, others / of_cores.total),
            }
            if number:
                measured[server.name].append(one)
        print(f"{request.image.name}: round {number} of {rounds}", file=sys.stderr)
    bare = measured[BareLoop.name]
    return [row(request, server, results[server.name], measured[server.name], bare) for server in able]


def main(
    images: Annotated[
        list[str] | None, typer.Option("--image", help="An image to measure. [default: all]")
    ] = None,
    servers: Annotated[
        list[str] | None,
        typer.Option("--server", help="A server, by name; the bare loop always runs. [default: all]"),
    ] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Cores for the servers. [default: all]")] = None,
    connections: Annotated[int, typer.Option(min=1, help="Clients, each a process.")] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each turn.")] = 2.0,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", dir_okay=False, help="Write the results to this file, too.", callback=in_a_folder
        ),
    ] = None,
) -> None:
    """Print the table, the missing servers, the machine and the targets."""
    # Stop the servers, too, as ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _check("--image", images, CASES)
    _check("--server", servers, [one.name for one in ALL])
    at_hand = all_cores()
    own = at_hand[: cores or len(at_hand)]
    others = at_hand[len(own) :]
    wanted = [one(own) for one in ALL if not servers or one.name in {*servers, BareLoop.name}]
    missing = {server.name: reason for server in wanted if (reason := server.missing())}
    present = [server for server in wanted if server.name not in missing]
    document: dict[str, Any] = {
        "machine": this_machine().as_dict(),
        "commit": commit(),
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "settings": {
            "server_cores": own,
            "client_cores": others or own,
            "connections": connections,
            "seconds": seconds,
            "rounds": rounds,
        },
        "versions": {server.name: server.version() for server in present},
        "missing": missing,
        "rows": [],
    }
    with contextlib.ExitStack() as running:
        clients = running.enter_context(ProcessGroup(connections, others or own))
        for server in present:
            running.enter_context(server)
        for name in images or CASES:
            request = Request(image_file(name), *CASES[name])
            document["rows"] += measure(
                request, present, clients, seconds=seconds, rounds=rounds, shared=not others
            )
            if json_file:  # after each image, because a long run may be interrupted
                json_file.write_text(json.dumps(document, indent=1) + "\n")
    print_table(document)
    print_verdicts(document)


def _cpu_seconds(server: Baseline, clients: ProcessGroup, shared: bool) -> float:  # noqa: FBT001
    """CPU seconds on the server's cores that belong to the measurement."""
    return server.cpu_seconds() + (clients.cpu_seconds() if shared else 0.0)


def _check(option: str, given: Sequence[str] | None, known: Collection[str]) -> None:
    unknown = [name for name in given or () if name not in known]
    if unknown:
        raise typer.BadParameter(f"{option}: {', '.join(unknown)} is unknown; known are {', '.join(known)}")


if __name__ == "__main__":
    typer.run(main)
