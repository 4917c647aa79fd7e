"""Compare vipsrv with its baselines and peers in one run, and check the targets.

    python -m bench.tools.compare --json compare.json --markdown compare.md
    python -m bench.tools.compare --quick
    python -m bench.report compare.json --main bench/throughput.svg

All servers run on the same cores and get a closed loop of requests in turns: a round is one turn of each, and
every number is the median of the rounds. A client is a process with one connection that it keeps, and sends
its next request when it has the whole reply. Ratios are taken within a round, so that they hold on a noisy
machine. The servers get the first ``--cores`` cores and the clients the others. If none is left they share
all cores, and the clients' CPU time is taken into account (``requests_per_second_net``).

Each result is checked: its format, its size, and for a JPEG chroma subsampling and quality. ``--quick`` takes
less than three minutes on two cores: five cases, short turns, and only vipsrv, its peers and the bare loop.

The JSON is an object: ``machine``, ``commit``, ``time`` (UTC), ``settings``, ``versions`` and ``missing``
(by server), ``missing_cases``, and ``rows``, one for each case and server:

================================== ==================================================================
``image``, ``server``              names of the case and the server
``format``, ``width``, ``height``  of the result
``source``                         ``upload``, ``file`` of the server's own disk, or ``memory`` (a loop)
``requests_per_second``            as counted
``requests_per_second_net``        as if the clients had taken no time of the servers' cores
``p50_ms``, ``p99_ms``             latency, of all requests of all rounds
``cpu_ms_per_request``             user and system time of all of the server's processes
``client_cpu_ms_per_request``      of the clients; ``null`` for a loop
``ratio_to_vipsrv``                of ``requests_per_second_net``; ``null`` if vipsrv was not run
``ratio_to_bare_loop``             likewise; higher is better
``cpu_ratio_to_bare_loop``         of ``cpu_ms_per_request``; lower is better
``input_bytes``, ``output_bytes``  of the image and of the result
``compression_ratio``              input bytes over output bytes
``ssim``                           to a full decode with Lanczos; ``null`` if no result is made
``colour_difference``              likewise, the mean absolute difference of Cb and Cr
``huffman``                        tables of a JPEG: ``standard``, ``optimised`` or ``progressive``
``shrink_factor``                  of the decoder, for JPEG to JPEG, as seen in the result
``wrong``, ``problem``             results that were not what was asked for, and how one was not
``others_share``                   share of the servers' cores used by other programs and machines, 0 to 1
``rounds``                         ``requests_per_second_net`` and ``cpu_ms_per_request`` of each
================================== ==================================================================
"""

import contextlib
import datetime as dt
import json
import math
import signal
import statistics
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.arguments import in_a_folder
from bench.baselines import ALL, PEERS, BareLoop, Baseline, ClosedLoopRun, OwnServer, Request
from bench.baselines.interface import all_cores
from bench.image_quality import colour_difference, decode, reference, ssim
from bench.jpeg_header import read_header
from bench.measuring.cores import Cores
from bench.measuring.machine import commit, this_machine
from bench.measuring.process_group import ProcessGroup
from bench.shrink_on_load import shrink_factor
from bench.tools.comparison import print_tables, tables
from bench.tools.comparison_cases import CASES, QUICK
from bench.tools.comparison_targets import print_verdicts

_QUICK_SECONDS = 60.0
"""All turns of ``--quick`` together; first requests and references take about as long again."""

_QUICK_END = 120.0
"""Seconds after which ``--quick`` begins no other case and no other round, for a machine that is not idle."""

QUICK_SERVERS: tuple[type[Baseline], ...] = (BareLoop, OwnServer, *PEERS)

_PEER_NAMES = {peer.name for peer in PEERS}

Round = dict[str, float]


@dataclass(slots=True)
class Turns:
    """What one server did in one case: its first result, and its rounds."""

    result: bytes = b""
    rounds: list[Round] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    wrong: int = 0
    problem: str | None = None


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


def row(name: str, request: Request, server: Baseline, measured: dict[str, Turns]) -> dict[str, Any]:
    """Build one row of the JSON from the turns of all servers, the bare loop's among them."""
    turns = measured[server.name]
    size = request.image.stat().st_size

    def median(key: str) -> float:
        return statistics.median(one[key] for one in turns.rounds)

    def ratio(key: str, other: Turns) -> float:
        return statistics.median(
            one[key] / two[key] for one, two in zip(turns.rounds, other.rounds, strict=True)
        )

    own, bare = measured.get(OwnServer.name), measured[BareLoop.name]
    return {
        "image": name,
        "server": server.name,
        "format": request.format,
        "width": request.width,
        "height": request.height,
        "source": server.source,
        "requests_per_second": median("requests_per_second"),
        "requests_per_second_net": median("requests_per_second_net"),
        "p50_ms": percentile(turns.latencies, 0.5) * 1e3,
        "p99_ms": percentile(turns.latencies, 0.99) * 1e3,
        "cpu_ms_per_request": median("cpu_ms"),
        "client_cpu_ms_per_request": median("client_cpu_ms") if server.port else None,
        "ratio_to_vipsrv": ratio("requests_per_second_net", own) if own else None,
        "ratio_to_bare_loop": ratio("requests_per_second_net", bare),
        "cpu_ratio_to_bare_loop": ratio("cpu_ms", bare),
        "input_bytes": size,
        "output_bytes": len(turns.result),
        "compression_ratio": size / len(turns.result),
        **_looks(request, server, turns.result),
        "wrong": turns.wrong,
        "problem": turns.problem,
        "others_share": median("others_share"),
        "rounds": turns.rounds,
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _looks(request: Request, server: Baseline, result: bytes) -> dict[str, Any]:
    """What can be seen in a result. One of a wrong size has no SSIM, one that is no image has nothing."""
    found: dict[str, Any] = dict.fromkeys(("ssim", "colour_difference", "huffman", "shrink_factor"))
    if not server.makes_result:
        return found
    try:
        made = decode(result)
        header = read_header(result) if request.format == "jpeg" else None
    except (OSError, ValueError):  # it is counted as wrong
        return found
    if made.shape[:2] == (request.height, request.width):
        wanted = reference(request.image, request.width, request.height)
        found |= {"ssim": ssim(made, wanted), "colour_difference": colour_difference(made, wanted)}
        if request.format == "jpeg":
            found["shrink_factor"] = shrink_factor(made, request.image)
    if header is not None:
        tables_used = "optimised" if header.optimised else "standard"
        found["huffman"] = "progressive" if header.progressive else tables_used
    return found


def measure(
    name: str,
    request: Request,
    servers: Sequence[Baseline],
    clients: ProcessGroup,
    *,
    seconds: float,
    rounds: int,
    shared: bool,
    failed: dict[str, str],
    until: float = math.inf,
) -> list[dict[str, Any]]:
    """Measure one case with all servers, in their order; the bare loop must be one of them.

    A peer that fails has no row; ``failed`` gets its name and why. After ``until``, by the monotonic clock,
    no further round is begun, but one round is made in any case.
    """
    able = [server for server in servers if server.serves(request)]
    measured = {server.name: Turns() for server in able}
    for number in range(rounds + 1):
        if number > 1 and time.monotonic() > until:
            break
        for server in [one for one in able if one.name not in failed]:
            before, own_before = Cores.now(cores=set(server.cores)), _cpu_seconds(server, clients, shared)
            # The first round is a warm-up.
            try:
                run = server.load(request, clients, seconds=seconds if number else min(seconds, 0.5))
            except RuntimeError as error:
                if server.name in {BareLoop.name, OwnServer.name}:
                    raise
                failed[server.name] = str(error)
                clients.restart()
                continue
            of_cores = Cores.now(cores=set(server.cores)) - before
            others = of_cores.busy + of_cores.stolen - (_cpu_seconds(server, clients, shared) - own_before)
            one = {
                "requests_per_second": run.requests_per_second,
                "requests_per_second_net": net_rate(run, len(server.cores), shared=shared),
                "cpu_ms": run.cpu_ms,
                "client_cpu_ms": run.client_cpu_ms,
                "others_share": max(0.0, others / of_cores.total),
            }
            turns = measured[server.name]
            turns.result = turns.result or run.result
            turns.wrong += run.wrong
            turns.problem = turns.problem or run.problem
            if number:
                turns.rounds.append(one)
                turns.latencies += run.latencies
        print(f"{name}: round {number} of {rounds}", file=sys.stderr)
    return [row(name, request, server, measured) for server in able if server.name not in failed]


def main(
    cases: Annotated[
        list[str] | None, typer.Option("--case", help="A case to measure. [default: all]")
    ] = None,
    servers: Annotated[
        list[str] | None,
        typer.Option("--server", help="A server, by name; the bare loop always runs. [default: all]"),
    ] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Cores for the servers. [default: all]")] = None,
    connections: Annotated[int, typer.Option(min=1, help="Clients, each a process.")] = 8,
    seconds: Annotated[float, typer.Option(min=0.05, help="Of each turn.")] = 2.0,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", dir_okay=False, help="Write the results to this file, too.", callback=in_a_folder
        ),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write the tables to this file, too.", callback=in_a_folder),
    ] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer cases and servers, and short turns.")] = False,
) -> None:
    """Print the tables, the missing servers, the machine and the targets."""
    # Stop the servers, too, as ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _check("--case", cases, CASES)
    _check("--server", servers, [one.name for one in ALL])
    chosen = cases or (QUICK if quick else tuple(CASES))
    missing_cases = {name: reason for name in chosen if (reason := CASES[name].missing())}
    at_hand = all_cores()
    own = at_hand[: cores or len(at_hand)]
    others = at_hand[len(own) :]
    names = {*servers, BareLoop.name} if servers else {one.name for one in (QUICK_SERVERS if quick else ALL)}
    wanted = [one(own) for one in ALL if one.name in names]
    missing = {server.name: reason for server in wanted if (reason := server.missing())}
    present = [server for server in wanted if server.name not in missing]
    if quick:
        rounds = min(rounds, 2)
        seconds = min(seconds, _QUICK_SECONDS / (len(chosen) * len(present) * (rounds + 1)))
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
        "missing_cases": missing_cases,
        "rows": [],
    }
    with contextlib.ExitStack() as running:
        clients = running.enter_context(ProcessGroup(connections, others or own))
        for server in present:
            start(server, running, missing)
        present = [server for server in present if server.name not in missing]
        until = time.monotonic() + _QUICK_END if quick else math.inf
        for name in chosen:
            if name in missing_cases:
                continue
            if time.monotonic() > until:
                missing_cases[name] = "the time of --quick was used up"
                continue
            failed: dict[str, str] = {}
            document["rows"] += measure(
                name,
                CASES[name].request(),
                present,
                clients,
                seconds=seconds,
                rounds=rounds,
                shared=not others,
                until=until,
                failed=failed,
            )
            missing_cases |= {f"{name} by {server}": why for server, why in failed.items()}
            if json_file:  # after each case, because a long run may be interrupted
                json_file.write_text(json.dumps(document, indent=1) + "\n")
            if markdown:
                markdown.write_text(tables(document))
    print_tables(document)
    print_verdicts(document)


def start(server: Baseline, running: contextlib.ExitStack, missing: dict[str, str]) -> None:
    """Start a server until ``running`` ends. A peer that cannot start is named as ``missing``."""
    try:
        running.enter_context(server)
    except RuntimeError as error:
        if server.name not in _PEER_NAMES:
            raise
        missing[server.name] = str(error)


def _cpu_seconds(server: Baseline, clients: ProcessGroup, shared: bool) -> float:  # noqa: FBT001
    """CPU seconds on the server's cores that belong to the measurement."""
    return server.cpu_seconds() + (clients.cpu_seconds() if shared else 0.0)


def _check(option: str, given: Sequence[str] | None, known: Collection[str]) -> None:
    unknown = [name for name in given or () if name not in known]
    if unknown:
        raise typer.BadParameter(f"{option}: {', '.join(unknown)} is unknown; known are {', '.join(known)}")


if __name__ == "__main__":
    typer.run(main)
