"""The page for Prometheus, read by the parsers of its own libraries."""

import math
from collections.abc import Iterable

import pytest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from tests.support.promtool import check_metrics
from vipsrv.server.metrics import catalogue
from vipsrv.server.metrics.catalogue import METRICS, MetricType
from vipsrv.server.metrics.exposition import Exposition
from vipsrv.server.metrics.snapshot import Figures, Histogram, Value

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def all_figures(start: int = 1) -> Figures:
    """A value of every metric, and two for each with labels."""
    figures, number = Figures(), start
    for metric in METRICS.values():
        for suffix in "ab" if metric.labels else "a":
            value: Value = 1 if metric.type is MetricType.INFO else number
            if metric.type is MetricType.HISTOGRAM:
                value = Histogram(list(range(len(metric.buckets) + 1)), number + 0.5)
            figures.add(metric, value, *(f"{label}-{suffix}" for label in metric.labels))
            number += 1
    return figures


def samples(page: bytes, accept: str) -> Samples:
    text = page.decode()
    parse = openmetrics_parser.text_string_to_metric_families if accept else text_string_to_metric_families
    families: Iterable[Family] = parse(text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def expected(figures: Figures) -> Samples:
    found: Samples = {}
    for name, values in figures.values.items():
        metric = METRICS[name]
        for labels, value in values.items():
            named = frozenset(zip(metric.labels, labels, strict=True))
            if isinstance(value, Histogram):
                for index, bound in enumerate((*metric.buckets, math.inf)):
                    le = "+Inf" if bound == math.inf else str(bound)
                    found[f"{name}_bucket", named | {("le", le)}] = sum(value.counts[: index + 1])
                found[f"{name}_count", named] = value.count
                found[f"{name}_sum", named] = value.sum
            else:
                found[name, named] = value
    return found


@pytest.mark.parametrize("accept", ["", OPENMETRICS], ids=["classic", "openmetrics"])
def test_every_value_is_on_the_page_under_its_name_and_labels(accept: str) -> None:
    exposition, figures = Exposition(), all_figures()
    page, content_type = exposition.render(figures, accept)
    assert samples(page, accept) == expected(figures)
    assert ("openmetrics-text" in content_type) == bool(accept)

    later = all_figures(start=1000)  # with the same labels, so that only the values change
    assert samples(exposition.render(later, accept)[0], accept) == expected(later)


def test_new_labels_appear_and_old_ones_go() -> None:
    exposition, figures = Exposition(), Figures()
    figures.add(catalogue.QUEUE_LENGTH, 3, "light")
    exposition.render(figures, "")
    other = Figures()
    other.add(catalogue.QUEUE_LENGTH, 4, "heavy")
    other.add(catalogue.QUEUE_LENGTH, 5, "light")
    assert samples(exposition.render(other, "")[0], "") == expected(other)
    assert samples(exposition.render(figures, "")[0], "") == expected(figures)


def test_labels_are_escaped() -> None:
    figures = Figures()
    figures.add(catalogue.BUILD, 1, 'a "quoted" \\ text', "100 %s\nof it", "ü")
    assert samples(Exposition().render(figures, "")[0], "") == expected(figures)


def test_the_value_of_a_float_is_exact() -> None:
    figures = Figures()
    figures.add(catalogue.DEADLINE, 0.1 + 0.2)
    figures.add(catalogue.MAX_UPLOAD, 2**40 + 1)
    figures.add(catalogue.START_TIME, 1_795_000_000.123456, "gateway", "1")
    assert samples(Exposition().render(figures, "")[0], "") == expected(figures)


def test_formats_that_scrapers_make_up_are_not_all_kept() -> None:
    exposition, figures = Exposition(), all_figures()
    for number in range(50):
        exposition.render(figures, f"application/openmetrics-text;version=1.{number}.0")
    assert len(exposition._pages) <= 8


def test_promtool_finds_nothing() -> None:
    page, _ = Exposition().render(all_figures(), "")
    check_metrics(page)
