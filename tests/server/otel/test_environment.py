"""What the standard variables say, and which of their values are refused."""

import pytest

from vipsrv.errors import StartFailed
from vipsrv.server.otel.environment import OtelEnvironment, resource_of


def test_the_defaults_export_everything() -> None:
    environment = OtelEnvironment.read({})
    assert (environment.traces, environment.metrics, environment.interval) == (True, True, 60)


def test_the_variables_are_taken_over() -> None:
    environment = OtelEnvironment.read(
        {
            "OTEL_BSP_MAX_QUEUE_SIZE": "50",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "70",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_METRIC_EXPORT_INTERVAL": "1500",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc",  # of no interest then
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
    )
    assert environment == OtelEnvironment(
        traces=True, metrics=False, queue=50, batch=50, delay_ms=200, interval=1.5
    )


@pytest.mark.parametrize("text", ["true", " TRUE "])
def test_the_sdk_can_be_disabled(text: str) -> None:
    environment = OtelEnvironment.read({"OTEL_SDK_DISABLED": text, "OTEL_TRACES_SAMPLER": "nonsense"})
    assert (environment.traces, environment.metrics) == (False, False)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "http/protobuf"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp or none"),
        ("OTEL_METRICS_EXPORTER", "prometheus", "otlp or none"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "parentbased_traceidratio"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta", "cumulative"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "from 1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "5s", "whole number"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-1", "whole number"),
    ],
)
def test_a_wrong_value_is_refused(name: str, value: str, says: str) -> None:
    with pytest.raises(StartFailed) as refused:
        OtelEnvironment.read({name: value})
    assert str(refused.value).startswith(f"{name}: ")
    assert says in str(refused.value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("ratio", ["2", "-0.1", "nan", "ten"])
def test_a_wrong_ratio_is_refused(ratio: str) -> None:
    with pytest.raises(StartFailed, match="from 0 to 1"):
        OtelEnvironment.read({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": ratio})


def test_the_variables_describe_the_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "thumbnails")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,host.name=seven")
    attributes = resource_of(None).attributes
    assert attributes["service.name"] == "thumbnails"
    assert attributes["deployment.environment.name"] == "test"
    assert attributes["host.name"] == "seven"
    assert "vipsrv.gateway" not in attributes


def test_each_process_has_an_instance_id_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (resource_of(None).attributes["service.instance.id"] for _ in range(2))
    assert first != second
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-3")
    assert resource_of(None).attributes["service.instance.id"] == "pod-3"
    assert resource_of(0).attributes["service.instance.id"] == "pod-3-1"
    assert resource_of(0).attributes["vipsrv.gateway"] == 1
