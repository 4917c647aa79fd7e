"""The live figures as a screen of a terminal. Words of the server are text, never markup or control codes."""

import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vipsrv.cli.quantities import duration, milliseconds, size
from vipsrv.printable import printable

_BLOCKS = "▁▂▃▄▅▆▇█"
_KEPT = 300  # seconds, as the server keeps them
_SPARK = 60  # seconds that a line of blocks shows
_SHOWN_ERRORS = 5
_OUTCOMES = {"ok": "green", "refused": "yellow", "failed": "red"}
_STATES = {"busy": "bold green", "idle": "dim", "starting": "yellow", "ended": "red"}


class TopView:
    """What the events of the stream have told, and the screen that shows it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._columns: dict[str, deque[float | None]] = {}
        self._second: int | None = None
        self._live: dict[str, Any] | None = None
        self._errors: list[dict[str, Any]] = []
        self._cpu: dict[int, float] = {}  # share of a core by process id
        self.fault = ""
        """Why there are no new figures; empty while there are."""

    @property
    def has_figures(self) -> bool:
        """Whether there is something to show."""
        return self._live is not None

    def take(self, name: str, data: dict[str, Any]) -> None:
        """Take over an event."""
        self.fault = ""
        if name == "history":
            self._take_columns(data)
        elif name == "errors":
            self._errors = data["last"]
        elif name == "live":
            self._measure_cpu(data)
            self._take_columns(data["columns"])
            self._live = data

    def render(self, *, width: int) -> RenderableType:
        """Return the screen."""
        live = self._live
        if live is None:
            return Text(f"waiting for the figures of {self._address} …")
        parts = [self._head(live), Text(), self._lines(width), Text(), _stages(live), Text()]
        parts += [self._workers(live), Text(), _statuses(live)]
        if self._errors:
            parts += [Text(), self._recent_errors()]
        return Group(*parts)

    def _take_columns(self, columns: dict[str, Any]) -> None:
        second = columns["second"]
        missing = 0 if self._second is None else second - self._second
        if missing < 0:  # another server, whose machine has started later
            self._columns.clear()
        self._second = second
        for name, values in columns.items():
            if name == "second":
                continue
            column = self._columns.setdefault(name, deque(maxlen=_KEPT))
            if len(column) < len(values):  # the history, or the beginning without one
                column.clear()
                column.extend(values)
                continue
            column.extend([None] * (missing - len(values)))
            column.extend(values[max(0, len(values) - missing) :] if missing else ())

    def _measure_cpu(self, live: dict[str, Any]) -> None:
        before = self._live
        self._cpu = {}
        if before is None:
            return
        known = {one["pid"]: one for one in before["workers"] if one["cpu"] is not None}
        for one in live["workers"]:
            last = known.get(one["pid"])
            if last is not None and one["cpu"] is not None and one["at"] > last["at"]:
                self._cpu[one["pid"]] = (one["cpu"] - last["cpu"]) / (one["at"] - last["at"])

    def _head(self, live: dict[str, Any]) -> RenderableType:
        server = live["server"]
        line = Text.assemble(("vipsrv ", "bold"), printable(server["version"]), f"  {self._address}")
        line.append(f"  up {duration(live['time'] - server['started'])}")
        if server["gateways"] > 1:
            line.append(f"  {server['gateways']} gateways")
        if server["silent"]:
            line.append(f"  no answer of {printable(', '.join(server['silent']))}", "yellow")
        if server["draining"]:
            line.append("  shutting down", "yellow")
        if self.fault:
            line.append(f"\n{self.fault}; the figures are old", "bold yellow")
        total = live["stages"]["total"]
        queue, connections = live["queue"], live["connections"]
        busy = sum(worker["state"] == "busy" for worker in live["workers"])
        figures = Table.grid(padding=(0, 3))
        figures.add_row(
            _pair("requests", f"{self._mean('ok', 'refused', 'failed'):.1f}/s"),
            _pair("median", milliseconds(total and total["p50"])),
            _pair("busy", f"{busy} of {len(live['workers'])}"),
            _pair("waiting", str(queue["light"] + queue["heavy"])),
            _pair("ratio", "–" if live["ratio"] is None else f"{live['ratio']:.1f} ×"),
            _pair("connections", str(connections["open"])),
        )
        return Group(line, Text(), figures)

    def _mean(self, *names: str, seconds: int = 5) -> float:
        values = [value or 0 for name in names for value in list(self._columns.get(name, ()))[-seconds:]]
        return sum(values) / seconds

    def _lines(self, width: int) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for title, names, show in (
            ("requests/s", ("ok", "refused", "failed"), lambda value: f"{value:.0f}"),
            ("p99", ("p99",), milliseconds),
            ("in/s", ("bytes_in",), size),
            ("out/s", ("bytes_out",), size),
            ("cores", ("cores",), lambda value: f"{value:.1f}"),
        ):
            columns = [list(self._columns.get(name, ())) for name in names]
            rows = list(zip(*columns, strict=False))[-min(_SPARK, max(10, width - 40)) :]
            values = [sum(value or 0 for value in row) for row in rows]
            is_known = bool(rows) and any(value is not None for value in rows[-1])
            table.add_row(
                Text(title, "dim"), Text(sparkline(values), "cyan"), show(values[-1]) if is_known else "–"
            )
        return table

    def _workers(self, live: dict[str, Any]) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for title in ("worker", "state", "memory", "CPU", "jobs", "job"):
            right = title in {"memory", "CPU", "jobs"}
            table.add_column(title, justify="right" if right else "left", header_style="dim")
        for worker in live["workers"]:
            job = worker["job"]
            what = ""
            if job is not None:
                heavy = ", heavy" if job["heavy"] else ""
                what = f"{printable(job['kind'])} {size(job['bytes'])} for {job['seconds']:.1f} s{heavy}"
            cpu = self._cpu.get(worker["pid"])
            state = printable(worker["state"])
            table.add_row(
                str(worker["pid"]),
                Text(state, _STATES.get(state, "")),
                size(worker["rss"]),
                "–" if cpu is None else f"{cpu:.0%}",
                str(worker["jobs"]),
                what,
            )
        return table

    def _recent_errors(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
        table.add_column(no_wrap=True, min_width=8)
        table.add_column(no_wrap=True, min_width=22)
        table.add_column(no_wrap=True, overflow="ellipsis")
        alike = Counter(map(_text_of, self._errors))
        newest = {_text_of(error): error for error in reversed(self._errors)}
        shown = sorted(newest.items(), key=lambda item: -float(item[1]["time"]))
        for text, error in shown[:_SHOWN_ERRORS]:
            times = f"{alike[text]} × " if alike[text] > 1 else ""
            style = _OUTCOMES.get(error["outcome"], "")
            table.add_row(
                time.strftime("%H:%M:%S", time.localtime(error["time"])),
                Text(f"{error['status']} {printable(error['code'])}", style),
                Text(f"{times}{printable(error['message'])}"),
            )
        return table


def _text_of(error: dict[str, Any]) -> tuple[int, str, str]:
    return error["status"], error["code"], error["message"]


def _pair(name: str, value: str) -> Text:
    return Text.assemble((f"{name} ", "dim"), (value, "bold"))


def _stages(live: dict[str, Any]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(f"last {live['window']} s", header_style="dim", min_width=10)
    for name in ("p50", "p95", "p99"):
        table.add_column(name, justify="right", min_width=9, header_style="dim")
    for name, values in live["stages"].items():
        cells = [milliseconds(values and values[percent]) for percent in ("p50", "p95", "p99")]
        table.add_row(name, *cells, style="bold" if name == "total" else "")
    return table


def _statuses(live: dict[str, Any]) -> Text:
    line = Text("5 minutes  ", "dim")
    for one in live["statuses"]:
        style = _OUTCOMES.get(one["outcome"], "")
        line.append(f"{one['status']} {printable(one['code'])} ", style)
        line.append(f"{one['count']}  ")
    if not live["statuses"]:
        line.append("no request")
    return line


def sparkline(values: Sequence[float]) -> str:
    """Return a block for each value, scaled to the highest."""
    highest = max(values, default=0)
    if highest <= 0:
        return _BLOCKS[0] * len(values)
    return "".join(_BLOCKS[min(7, int(value / highest * 8))] for value in values)
