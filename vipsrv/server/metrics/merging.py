"""Merges the snapshots of all gateways, so that no counter goes back when a gateway ends.

::

    gateway 1, run A ── 500 ──┐                 ┌── 500 ── run A has ended: its counters are kept
    gateway 2, run B ── 300 ──┴── 800    then   ├── 310
                                                └──  10 ── gateway 1, run C          together 820

A scraper would take a counter that has become smaller for one that began again at 0, and count all of it
once more.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vipsrv.server.metrics.catalogue import METRICS, MetricType
from vipsrv.server.metrics.snapshot import Figures, merged

_LASTING = frozenset({MetricType.COUNTER, MetricType.HISTOGRAM})
"""The types whose values stay when the gateway that had them has ended."""


@dataclass(slots=True)
class _Last:
    run: str
    figures: Figures


class Merger:
    """Merges snapshots again and again. It keeps the last counters of each gateway: of one that has ended,
    and of one that does not answer for a while.
    """

    def __init__(self) -> None:
        self._last: dict[int, _Last] = {}
        self._ended = Figures()

    def merge(self, snapshots: Iterable[dict[str, Any]]) -> Figures:
        """Return the figures of the whole server."""
        answered: dict[int, _Last] = {}
        for one in snapshots:
            answered[one["gateway"]] = _Last(one["run"], Figures.from_json(one["figures"]))
        for gateway, last in answered.items():
            before = self._last.get(gateway)
            if before is not None and before.run != last.run:
                self._ended.update(_lasting(before.figures))
            self._last[gateway] = last
        silent = [_lasting(last.figures) for gateway, last in self._last.items() if gateway not in answered]
        return merged([*(last.figures for last in answered.values()), self._ended, *silent])


def _lasting(figures: Figures) -> Figures:
    lasting = Figures()
    lasting.values = {
        name: values for name, values in figures.values.items() if METRICS[name].type in _LASTING
    }
    return lasting
