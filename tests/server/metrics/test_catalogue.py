"""The declarations of the metrics follow the rules of Prometheus."""

import re

import pytest

from vipsrv.server.metrics.catalogue import METRICS, Metric, MetricType, exposed_names

ALL = pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))


@ALL
def test_a_name_is_that_of_its_type(metric: Metric) -> None:
    assert re.fullmatch(r"vipsrv_[a-z]+(?:_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.type is MetricType.COUNTER)
    assert metric.name.endswith("_info") == (metric.type is MetricType.INFO)
    # Suffixes of the samples of a histogram.
    assert not metric.name.endswith(("_bucket", "_sum", "_count"))


@ALL
def test_labels_are_valid(metric: Metric) -> None:
    assert len(set(metric.labels)) == len(metric.labels)
    for label in metric.labels:
        assert re.fullmatch(r"[a-z]+(?:_[a-z]+)*", label)
        assert label not in {"le", "quantile", "job", "instance"}


@ALL
def test_texts_are_sentences(metric: Metric) -> None:
    assert re.fullmatch(r"[A-Z1].+[.]", metric.help)
    assert "\n" not in metric.help
    for text in (metric.moves, metric.alert):
        assert not text.endswith(".")
        assert "|" not in text


@ALL
def test_only_a_histogram_has_buckets_in_rising_order(metric: Metric) -> None:
    assert bool(metric.buckets) == (metric.type is MetricType.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))


def test_a_histogram_is_exposed_under_three_names() -> None:
    names = exposed_names([METRICS["vipsrv_request_seconds"], METRICS["vipsrv_queue_length"]])
    assert names == {
        "vipsrv_request_seconds_bucket",
        "vipsrv_request_seconds_sum",
        "vipsrv_request_seconds_count",
        "vipsrv_queue_length",
    }


def test_units() -> None:
    assert METRICS["vipsrv_upload_bytes_total"].unit == "bytes"
    assert METRICS["vipsrv_process_cpu_seconds_total"].unit == "seconds"
    assert METRICS["vipsrv_requests_total"].unit == ""
