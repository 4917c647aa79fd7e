"""The live figures of all gateways together, as the page and ``vipsrv top`` show them.

::

    LiveFigures, Gauges ── of each gateway ──► live_view ──► one JSON object for all who watch

Columns have a value for each second, the oldest first; ``second`` is the number of the last one. ``None``
stands for a percentile of no requests, and for a load that nobody has measured.
"""

from collections.abc import Sequence
from typing import Any

from vipsrv.server.ops.histogram import Histogram, add, percentiles, subtract, unpack
from vipsrv.server.ops.live import (
    KEPT_ERRORS,
    RECENT_SECONDS,
    STAGES,
    WINDOW_SECONDS,
    LiveCounts,
    add_counts,
    outcome,
)
from vipsrv.server.ops.load import LoadCounts

PERCENTS = (50.0, 95.0, 99.0)
PERCENT_NAMES = ("p50", "p95", "p99")

_OUTCOMES = ("ok", "refused", "failed")


def columns(counts: Sequence[LiveCounts], *, latest: int | None = None) -> dict[str, Any]:
    """Return, second by second: requests by their outcome, bytes, and percentiles of the total time.

    The percentiles of a second are those of the ``WINDOW_SECONDS`` that end with it. ``latest`` is how many
    of the seconds are returned; those before them only serve the percentiles.
    """
    last = min(one["second"] for one in counts)
    length = min(len(one["seconds"]) for one in counts)
    sums: dict[str, list[int]] = {name: [0] * length for name in (*_OUTCOMES, "bytes_in", "bytes_out")}
    totals: list[Histogram] = [{} for _ in range(length)]
    for one in counts:
        ahead = one["second"] - last  # a gateway that was asked a second later
        for place in range(length):
            index = len(one["seconds"]) - length + place - ahead
            second = one["seconds"][index] if index >= 0 else None
            if second is None:
                continue
            for status, number in second["statuses"].items():
                sums[outcome(status)][place] += number
            sums["bytes_in"][place] += second["bytes_in"]
            sums["bytes_out"][place] += second["bytes_out"]
            add(totals[place], unpack(second["total"]))
    all_columns: dict[str, list[Any]] = {**sums, **_percentile_columns(totals)}
    first = 0 if latest is None else max(0, length - latest)
    return {"second": last, **{name: column[first:] for name, column in all_columns.items()}}


def history(snapshots: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the columns of all seconds that the gateways have kept, from the snapshot of each one."""
    return _with_load(columns([one["counts"] for one in snapshots]), [one["load"] for one in snapshots])


def live(snapshots: Sequence[dict[str, Any]], now: float, *, silent: Sequence[str] = ()) -> dict[str, Any]:
    """Return what is so at ``now`` (seconds since the epoch), from the snapshot of each gateway.

    The gateways that are ``silent`` are missing in it.
    """
    counts: list[LiveCounts] = [one["counts"] for one in snapshots]
    gauges = [one["gauges"] for one in snapshots]
    window = columns(counts, latest=WINDOW_SECONDS)
    bytes_in, bytes_out = sum(window["bytes_in"]), sum(window["bytes_out"])
    return {
        "time": round(now, 3),
        "server": {
            "version": gauges[0]["version"],
            "started": min(one["started"] for one in gauges),
            "gateways": len(gauges),
            "silent": list(silent),
            "draining": any(one["draining"] for one in gauges),
        },
        "columns": _with_load(columns(counts, latest=RECENT_SECONDS), [one["load"] for one in snapshots]),
        "window": WINDOW_SECONDS,
        "stages": _stages(counts),
        "ratio": bytes_in / bytes_out if bytes_out else None,
        "statuses": _statuses([one["statuses"] for one in snapshots]),
        "queue": _sum([one["queue"] for one in gauges]),
        "spool": _sum([one["spool"] for one in gauges]),
        "connections": _sum([one["connections"] for one in gauges]),
        "wanted_workers": sum(one["wanted_workers"] for one in gauges),
        "gateways": [one["process"] for one in gauges],
        "workers": sorted(
            ({"gateway": number, **worker} for number, one in enumerate(gauges) for worker in one["workers"]),
            key=lambda worker: (worker["gateway"], worker["pid"]),
        ),
    }


def errors(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the last errors of all gateways, the newest first."""
    last = sorted((error for one in reports for error in one["last"]), key=lambda error: -error["time"])
    return {"seen": sum(one["seen"] for one in reports), "last": last[:KEPT_ERRORS]}


def _with_load(figures: dict[str, Any], loads: Sequence[LoadCounts]) -> dict[str, Any]:
    """Add the load of all gateways together in the same seconds: ``cores`` in use, requests ``waiting``."""
    length = len(figures["ok"])
    cores: list[float | None] = [None] * length
    waiting: list[int | None] = [None] * length
    for one in loads:
        begin = figures["second"] - length + 1 - (one["second"] - len(one["seconds"]) + 1)
        for place in range(length):
            load = one["seconds"][begin + place] if 0 <= begin + place < len(one["seconds"]) else None
            if load is None:
                continue
            cores[place] = _sum_of_known(cores[place], load[0])
            waiting[place] = (waiting[place] or 0) + load[1]
    return {**figures, "cores": cores, "waiting": waiting}


def _sum_of_known(first: float | None, second: float | None) -> float | None:
    return second if first is None else round(first + (second or 0), 3)


def _percentile_columns(totals: Sequence[Histogram]) -> dict[str, list[float | None]]:
    found: dict[str, list[float | None]] = {name: [] for name in PERCENT_NAMES}
    window: Histogram = {}
    for place, second in enumerate(totals):
        add(window, second)
        if place >= WINDOW_SECONDS:
            subtract(window, totals[place - WINDOW_SECONDS])
        values = percentiles(window, PERCENTS)
        for index, name in enumerate(PERCENT_NAMES):
            found[name].append(None if values is None else _rounded(values[index]))
    return found


def _stages(counts: Sequence[LiveCounts]) -> dict[str, dict[str, float] | None]:
    stages: dict[str, dict[str, float] | None] = {}
    for stage in STAGES:
        together: Histogram = {}
        for one in counts:
            add(together, unpack(one["stages"][stage]))
        values = percentiles(together, PERCENTS)
        stages[stage] = (
            None if values is None else dict(zip(PERCENT_NAMES, map(_rounded, values), strict=True))
        )
    return stages


def _statuses(of_gateways: Sequence[dict[str, int]]) -> list[dict[str, Any]]:
    """Return the number of requests of each status, the most frequent first."""
    together: dict[str, int] = {}
    for statuses in of_gateways:
        add_counts(together, statuses)
    return [
        {"status": int(status.partition(" ")[0]), "code": status.partition(" ")[2]}
        | {"outcome": outcome(status), "count": number}
        for status, number in sorted(together.items(), key=lambda item: (-item[1], item[0]))
    ]


def _sum(gauges: Sequence[dict[str, int]]) -> dict[str, int]:
    return {name: sum(one[name] for one in gauges) for name in gauges[0]}


def _rounded(milliseconds: float) -> float:
    return float(f"{milliseconds:.3g}")
