"""Latencies in a histogram with three significant digits from a microsecond to an hour.

The histogram is HdrHistogram (https://hdrhistogram.github.io/HdrHistogram/): that project's tools can read
its text form, and the histograms of several processes can be added without loss.
"""

from typing import Self

from hdrh.histogram import HdrHistogram

from bench.load.record import Percentiles

_LOWEST = 1
_HIGHEST = 3_600_000_000
_DIGITS = 3
_MICROSECONDS = 1e6


class Latencies:
    """A histogram of latencies in seconds; one above an hour counts as an hour."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(_LOWEST, _HIGHEST, _DIGITS)

    def __len__(self) -> int:
        return int(self._histogram.total_count)

    def record(self, seconds: float) -> None:
        """Count one latency."""
        self._histogram.record_value(_microseconds(seconds))

    def record_corrected(self, seconds: float, interval: float) -> None:
        """Count one latency, and those of the requests that could not be sent during it.

        A closed loop that should send every ``interval`` seconds sends nothing while it waits. Each missed
        request is counted with the time it would have waited: ``seconds - interval``, ``seconds - 2 *
        interval`` and so on while positive. This is HdrHistogram's correction for coordinated omission (G.
        Tene, "How NOT to Measure Latency").
        """
        self._histogram.record_corrected_value(_microseconds(seconds), round(interval * _MICROSECONDS))

    def encode(self) -> str:
        """The histogram in microseconds as text (HdrHistogram V2, compressed, base64)."""
        return bytes(self._histogram.encode()).decode("ascii")

    def add(self, encoded: str) -> Self:
        """Add another histogram, as encoded by ``encode``."""
        self._histogram.decode_and_add(encoded.encode("ascii"))
        return self

    def percentile(self, percent: float) -> float:
        """The latency in milliseconds that ``percent`` % of all do not exceed."""
        return float(self._histogram.get_value_at_percentile(percent)) / 1e3

    def summary(self) -> Percentiles | None:
        """The usual percentiles; ``None`` if nothing was recorded."""
        if not len(self):
            return None
        return Percentiles(
            count=len(self),
            mean_ms=float(self._histogram.get_mean_value()) / 1e3,
            p50_ms=self.percentile(50),
            p90_ms=self.percentile(90),
            p99_ms=self.percentile(99),
            p999_ms=self.percentile(99.9),
            max_ms=float(self._histogram.get_max_value()) / 1e3,
            histogram=self.encode(),
        )


def _microseconds(seconds: float) -> int:
    return min(max(_LOWEST, round(seconds * _MICROSECONDS)), _HIGHEST)
