"""Traces and metrics by OpenTelemetry, exported over OTLP: the extra ``vipsrv[otel]`` and ``--otel``."""
