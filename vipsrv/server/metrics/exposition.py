"""Renders figures as text for Prometheus, in the format that a scraper asks for.

prometheus-client writes the text: names, labels, escapes, types and help. It takes 5 µs for a line, too long
for a page of hundreds of lines that is asked for while images are waiting. So it writes each page once with
places for the values, which are filled in until there is another set of labels (decision 41).
"""

import math
from collections.abc import Iterator

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from vipsrv.server.metrics.catalogue import METRICS, Metric, MetricType
from vipsrv.server.metrics.snapshot import Figures, Histogram, Labels

_MOST_FORMATS = 8
"""Formats whose pages are kept: there are two, and more only if a scraper asks for versions at random."""

_Shape = tuple[tuple[str, tuple[Labels, ...]], ...]


class Exposition:
    """Renders the figures of a server, again and again."""

    def __init__(self) -> None:
        self._shape: _Shape = ()
        self._pages: dict[str, str] = {}  # with %s for each value, by the type of their content

    def render(self, figures: Figures, accept: str) -> tuple[bytes, str]:
        """Return a page and its content type, for the field ``Accept`` of a request."""
        shape = tuple((name, tuple(figures.values[name])) for name in METRICS if name in figures.values)
        if shape != self._shape:
            self._shape = shape
            self._pages.clear()
        encode, content_type = choose_encoder(accept)
        page = self._pages.get(content_type)
        if page is None:
            if len(self._pages) >= _MOST_FORMATS:
                self._pages.clear()
            page = self._pages[content_type] = _with_places(encode(_Places(shape)).decode())
        return (page % tuple(_values(figures, shape))).encode(), content_type


class _Places(Collector):
    """A page whose values are the numbers 0, 1, 2 and so on."""

    def __init__(self, shape: _Shape) -> None:
        self._shape = shape

    def collect(self) -> Iterator[Family]:
        place = 0
        for name, label_sets in self._shape:
            metric = METRICS[name]
            family = Family(metric.family, metric.help, metric.type, metric.unit)
            for labels in label_sets:
                for sample_name, sample_labels in _samples(metric, labels):
                    family.samples.append(Sample(sample_name, sample_labels, place))
                    place += 1
            yield family


def _samples(metric: Metric, labels: Labels) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the names and labels of the samples of one value, in the order of ``_values``."""
    named = dict(zip(metric.labels, labels, strict=True))
    if metric.type is not MetricType.HISTOGRAM:
        yield metric.name, named
        return
    for bound in (*metric.buckets, math.inf):
        yield f"{metric.name}_bucket", {**named, "le": _float(bound)}
    yield f"{metric.name}_count", named
    yield f"{metric.name}_sum", named


def _values(figures: Figures, shape: _Shape) -> Iterator[object]:
    for name, _ in shape:
        for value in figures.values[name].values():
            if isinstance(value, Histogram):
                total = 0
                for count in value.counts:
                    total += count
                    yield total
                yield total
                yield value.sum
            elif isinstance(value, int):
                yield value
            else:
                yield _float(value)


def _float(value: float) -> str:
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text


def _with_places(text: str) -> str:
    """Return a page with %s in the place of each value, which must be in order."""
    lines = []
    place = 0
    for line in text.splitlines():
        escaped = line.replace("%", "%%")
        if not line.startswith("#"):
            start, _, value = escaped.rpartition(" ")
            assert float(value) == place, line  # noqa: S101 - else values would get the names of others
            place += 1
            escaped = f"{start} %s"
        lines.append(escaped)
    return "\n".join([*lines, ""])
