"""Makes the figures of several gateways one, so that no counter goes back when a gateway ends.

::

    gateway 1, run A ── 500 ──┐             ┌── 500 ── run A has ended: the supervisor keeps its counters
    gateway 2, run B ── 300 ──┴── 800  then ├── 310
                                            └──  10 ── gateway 1, run C               together 820

A scraper would take a counter that has become smaller for one that began again at 0, and count all of it
once more.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vipsrv.server.metrics import catalogue
from vipsrv.server.metrics.catalogue import METRICS, MetricType
from vipsrv.server.metrics.processes import own_usage
from vipsrv.server.metrics.snapshot import Figures, merged

SNAPSHOTS = "metrics"
"""The name under which a gateway offers its snapshots."""

SUPERVISOR = 0
"""The number in the snapshot of the supervisor; gateways count from 1."""

_LASTING = frozenset({MetricType.COUNTER, MetricType.HISTOGRAM})
"""The types whose values stay when the process that had them has ended."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures of the gateway with this number. ``run`` tells one process of it from the next."""

    gateway: int
    run: str
    figures: Figures

    def to_json(self) -> dict[str, Any]:
        """Return a value that JSON can hold."""
        return {"gateway": self.gateway, "run": self.run, "figures": self.figures.to_json()}

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> "Snapshot":
        """Return what ``to_json`` has made a value of."""
        return cls(given["gateway"], given["run"], Figures.from_json(given["figures"]))


class SupervisorFigures:
    """What the supervisor adds to the figures of its gateways: those of its own process, and the last
    counters of gateways that have ended or do not answer.
    """

    def __init__(self) -> None:
        self._started = time.time()
        self._last: dict[int, Snapshot] = {}
        self._ended = Figures()
        self._restarts = 0

    def gateway_ended(self) -> None:
        """Count a gateway that has ended and is replaced."""
        self._restarts += 1

    def note(self, value: dict[str, Any]) -> int:
        """Keep the snapshot of a gateway; return its number."""
        snapshot = Snapshot.from_json(value)
        before = self._last.get(snapshot.gateway)
        if before is not None and before.run != snapshot.run:
            self._ended.update(lasting(before.figures))
        self._last[snapshot.gateway] = snapshot
        return snapshot.gateway

    def complete(self, values: Sequence[dict[str, Any]], asker: int) -> dict[str, Any]:
        """Return the snapshot that makes those of the gateways which have answered complete.

        The figures of the gateway ``asker`` itself count as known, even if it has not answered.
        """
        answered = {asker, *map(self.note, values)}
        figures = merged(
            [
                self._ended,
                *(lasting(one.figures) for one in self._last.values() if one.gateway not in answered),
            ]
        )
        usage = own_usage()
        figures.add(catalogue.CPU_SECONDS, usage.cpu_seconds, "supervisor", "")
        figures.add(catalogue.RESIDENT_MEMORY, usage.resident, "supervisor", "")
        figures.add(catalogue.START_TIME, self._started, "supervisor", "")
        figures.add(catalogue.GATEWAY_RESTARTS, self._restarts)
        return Snapshot(SUPERVISOR, "", figures).to_json()


class ServerFigures:
    """Makes one of the snapshots of all gateways, and of the supervisor if there is one."""

    def __init__(self) -> None:
        self._others: Figures | None = None  # of the last time that the supervisor has answered

    def merge(self, values: Sequence[dict[str, Any]]) -> Figures:
        """Return the figures of the server. The first of ``values`` is of the gateway that asks."""
        own, *others = (Snapshot.from_json(value) for value in values)
        figures = merged(one.figures for one in others)
        if any(one.gateway == SUPERVISOR for one in others):
            self._others = figures
        elif self._others is not None:
            figures = lasting(
                self._others
            )  # the supervisor does not answer, so nothing is known of the others
        return merged([own.figures, figures])


def lasting(figures: Figures) -> Figures:
    """Return the values that stay when the process that had them has ended."""
    found = Figures()
    found.values = {name: values for name, values in figures.values.items() if METRICS[name].type in _LASTING}
    return found
