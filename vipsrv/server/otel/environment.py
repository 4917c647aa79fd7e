"""The standard variables ``OTEL_*`` that the SDK does not check itself, and the resource that they describe.

The SDK reads the others: ``OTEL_TRACES_SAMPLER`` and its argument, limits of spans, and all of the exporters
(``OTEL_EXPORTER_OTLP_ENDPOINT``, ``_HEADERS``, ``_TIMEOUT``, ``_COMPRESSION``, ``_CERTIFICATE`` and so on).
"""

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_BSP_SCHEDULE_DELAY,
    OTEL_EXPORTER_OTLP_METRICS_PROTOCOL,
    OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE,
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
    OTEL_METRIC_EXPORT_INTERVAL,
    OTEL_SDK_DISABLED,
    OTEL_TRACES_SAMPLER,
    OTEL_TRACES_SAMPLER_ARG,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from vipsrv.errors import StartFailed
from vipsrv.version import __version__

_TRACES_EXPORTER, _METRICS_EXPORTER = "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"
_PROTOCOL = "http/protobuf"
_TEMPORALITY = "cumulative"

_QUEUE, _BATCH, _DELAY, _INTERVAL = 2048, 128, 5000, 60_000
"""Spans, spans, milliseconds and milliseconds: the defaults of the specification, but for the batch. It says
512, which take 25 ms to encode, and the event loop shares the interpreter with that."""

_SAMPLERS = frozenset(
    prefix + name for name in ("always_on", "always_off", "traceidratio") for prefix in ("", "parentbased_")
)
_MOST = 10**9  # of any number here, so that none overflows


@dataclass(frozen=True, slots=True, kw_only=True)
class OtelEnvironment:
    """What the variables say."""

    traces: bool
    """Whether traces are exported."""
    metrics: bool
    """Whether metrics are exported."""
    queue: int = _QUEUE
    """Spans that wait to be exported; further ones are dropped."""
    batch: int = _BATCH
    """Spans that are exported together."""
    delay_ms: int = _DELAY
    """Milliseconds that a span waits for others."""
    interval: float = _INTERVAL / 1000
    """Seconds between two exports of metrics."""

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> "OtelEnvironment":
        """Read them. Raises ``StartFailed``."""
        if variables.get(OTEL_SDK_DISABLED, "").strip().lower() == "true":
            return cls(traces=False, metrics=False)
        traces = _is_exported(variables, _TRACES_EXPORTER, OTEL_EXPORTER_OTLP_TRACES_PROTOCOL)
        metrics = _is_exported(variables, _METRICS_EXPORTER, OTEL_EXPORTER_OTLP_METRICS_PROTOCOL)
        if traces:
            _check_sampler(variables)
        if metrics:
            _check_word(variables, OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, [_TEMPORALITY])
        queue = _number(variables, OTEL_BSP_MAX_QUEUE_SIZE, _QUEUE)
        return cls(
            traces=traces,
            metrics=metrics,
            queue=queue,
            batch=min(queue, _number(variables, OTEL_BSP_MAX_EXPORT_BATCH_SIZE, _BATCH)),
            delay_ms=_number(variables, OTEL_BSP_SCHEDULE_DELAY, _DELAY),
            interval=_number(variables, OTEL_METRIC_EXPORT_INTERVAL, _INTERVAL) / 1000,
        )


def resource_of(gateway: int | None) -> Resource:
    """Return what describes this process: what the variables say, or the defaults.

    ``gateway`` is the number of one of several, counted from 0. It makes an instance id of the variables
    unique.
    """
    named = dict(OTELResourceDetector().detect().attributes)
    attributes = {
        "service.name": "vipsrv",
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
        **named,
    }
    if gateway is not None:
        attributes["vipsrv.gateway"] = gateway + 1  # as in the log
        if "service.instance.id" in named:
            attributes["service.instance.id"] = f"{named['service.instance.id']}-{gateway + 1}"
    return Resource.create(attributes)


def _is_exported(variables: Mapping[str, str], exporter: str, protocol: str) -> bool:
    if _check_word(variables, exporter, ["otlp", "none"]) == "none":
        return False
    if not variables.get(protocol, "").strip():
        protocol = OTEL_EXPORTER_OTLP_PROTOCOL
    _check_word(variables, protocol, [_PROTOCOL])
    return True


def _check_sampler(variables: Mapping[str, str]) -> None:
    # The SDK would log a fault and sample everything, which is the most expensive of all samplers.
    sampler = _check_word(variables, OTEL_TRACES_SAMPLER, sorted(_SAMPLERS))
    ratio = variables.get(OTEL_TRACES_SAMPLER_ARG, "").strip()
    if sampler.endswith("traceidratio") and ratio:
        try:
            valid = 0 <= float(ratio) <= 1
        except ValueError:
            valid = False
        if not valid:
            raise StartFailed(f"{OTEL_TRACES_SAMPLER_ARG}: must be a number from 0 to 1, not {ratio!r}")


def _check_word(variables: Mapping[str, str], name: str, words: list[str]) -> str:
    word = variables.get(name, "").strip().lower()
    if word and word not in words:
        raise StartFailed(f"{name}: must be {' or '.join(words)}, not {word!r}")
    return word


def _number(variables: Mapping[str, str], name: str, default: int) -> int:
    text = variables.get(name, "").strip()
    if not text:
        return default
    if text.isdecimal() and 0 < int(text) <= _MOST:
        return int(text)
    raise StartFailed(f"{name}: must be a whole number from 1 to {_MOST}, not {text!r}")
