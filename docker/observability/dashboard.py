"""Writes the Grafana dashboard of vipsrv: ``python docker/observability/dashboard.py``.

A row asks one question that an operator has, and its panels answer it. The file that this writes is the one
that Grafana reads; a test compares them.
"""
# ruff: noqa: INP001 -- a script and what it imports, in no package

import json
from pathlib import Path

from grafana_model import BAD, OK, SELECTED, WARN, Panel, dashboard

FILE = Path(__file__).parent / "grafana" / "dashboards" / "vipsrv.json"


def rate(metric: str, by: str = "", labels: str = "") -> str:
    """Return the rate of a counter, added up by some labels."""
    more = f", {labels}" if labels else ""
    return f"sum{_by(by)}(rate({metric}{{{SELECTED}{more}}}[$__rate_interval]))"


def total(metric: str, by: str = "", labels: str = "") -> str:
    """Return a gauge, added up by some labels."""
    more = f", {labels}" if labels else ""
    return f"sum{_by(by)}({metric}{{{SELECTED}{more}}})"


def quantile(share: float, metric: str, by: str = "", labels: str = "") -> str:
    """Return a quantile of a histogram for each value of the label ``by``."""
    buckets = rate(f"{metric}_bucket", f"{by}, le" if by else "le", labels)
    return f"histogram_quantile({share:g}, {buckets})"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""


_RESTARTS = "vipsrv_worker_restarts_total"
_IMAGES = 'kind=~"resize|info"'


def share_of_images(status: str) -> str:
    """Return the share of the requests with an image that have a status; 0 if none has had it yet."""
    some, all_of_them = (
        rate("vipsrv_requests_total", labels=one) for one in (f"{_IMAGES}, {status}", _IMAGES)
    )
    return f"({some} or vector(0)) / {all_of_them}"


ROWS: dict[str, tuple[Panel, ...]] = {
    "Is it up?": (
        Panel(
            title="Ready",
            about="Whether a worker is ready and the server accepts requests; the worst of all instances.",
            queries=[(f"min(vipsrv_ready{{{SELECTED}}})", "")],
            kind="stat",
            width=3,
            height=4,
            mappings=[("0", "no", BAD), ("1", "yes", OK)],
            runbook="alerts.md#vipsrvnotready",
        ),
        Panel(
            title="Instances",
            about="Servers that Prometheus reaches, and those that it should.",
            queries=[(f"sum(up{{{SELECTED}}})", "reached"), (f"count(up{{{SELECTED}}})", "expected")],
            kind="stat",
            width=4,
            height=4,
            runbook="alerts.md#vipsrvdown",
        ),
        Panel(
            title="Workers",
            about="Worker processes, and how many there should be.",
            queries=[(total("vipsrv_workers"), "running"), (total("vipsrv_workers_wanted"), "wanted")],
            kind="stat",
            width=4,
            height=4,
            runbook="alerts.md#vipsrvworkersmissing",
        ),
        Panel(
            title="Gateways",
            about="Gateway processes, and how many there should be.",
            queries=[(total("vipsrv_gateways"), "running"), (total("vipsrv_gateways_wanted"), "wanted")],
            kind="stat",
            width=4,
            height=4,
            runbook="alerts.md#vipsrvgatewaysmissing",
        ),
        Panel(
            title="Draining",
            about="Servers that finish their requests before they stop.",
            queries=[(total("vipsrv_draining"), "")],
            kind="stat",
            width=3,
            height=4,
            thresholds=[(OK, None), (WARN, 1)],
        ),
        Panel(
            title="Certificate expires",
            about="Time until the first certificate expires; only with a TLS listener.",
            queries=[(f"min(vipsrv_tls_certificate_expiry_timestamp_seconds{{{SELECTED}}}) - time()", "")],
            kind="stat",
            unit="s",
            width=3,
            height=4,
            thresholds=[(BAD, None), (WARN, 14 * 86400), (OK, 30 * 86400)],
            runbook="alerts.md#vipsrvcertificateexpires",
        ),
        Panel(
            title="Sandbox layers missing",
            about="Essential layers of the workers' sandbox that a system does not offer.",
            queries=[(f"max(vipsrv_sandbox_missing_layers{{{SELECTED}}})", "")],
            kind="stat",
            width=3,
            height=4,
            thresholds=[(OK, None), (BAD, 1)],
            runbook="alerts.md#vipsrvsandboxmissing",
        ),
        Panel(
            title="Alerts",
            about="Alerts of vipsrv that are pending or firing. Each has a runbook.",
            queries=[('ALERTS{alertname=~"Vipsrv.+", job=~"$job", instance=~"$instance|"}', "")],
            kind="table",
            width=12,
            height=7,
            table=True,
            runbook="alerts.md",
        ),
        Panel(
            title="Versions",
            about="What each instance runs.",
            queries=[(f"vipsrv_build_info{{{SELECTED}}}", "")],
            kind="table",
            width=12,
            height=7,
            table=True,
        ),
    ),
    "How fast is it?": (
        Panel(
            title="Requests",
            about="Requests that have ended in a second, by kind.",
            queries=[(rate("vipsrv_requests_total", "kind"), "{{kind}}")],
            unit="reqps",
        ),
        Panel(
            title="Time of a request",
            about="From the header of a request with an image to the last byte of its reply: the median, and "
            "what 5 % and 1 % of the requests exceed. The upload is a part of it.",
            queries=[
                (quantile(share, "vipsrv_request_seconds"), name)
                for share, name in ((0.5, "50 %"), (0.95, "95 %"), (0.99, "99 %"))
            ],
            unit="s",
            runbook="monitoring.md",
        ),
        Panel(
            title="Time in each stage (95 %)",
            about="What 5 % of the requests exceed. receive is the client's upload, queue the wait for a "
            "worker, process the work, send the client's reading of the reply.",
            queries=[(quantile(0.95, "vipsrv_stage_seconds", "stage"), "{{stage}}")],
            unit="s",
            runbook="alerts.md#vipsrvqueueslow",
        ),
        Panel(
            title="Bytes",
            about="Bytes of the images that arrived and of the results that were sent, in a second.",
            queries=[
                (rate("vipsrv_upload_bytes_total"), "images"),
                (rate("vipsrv_result_bytes_total"), "results"),
            ],
            unit="Bps",
        ),
        Panel(
            title="Compression ratio",
            about="Bytes of an image divided by those of its results.",
            queries=[
                (quantile(0.5, "vipsrv_compression_ratio"), "median"),
                (
                    " / ".join(rate(f"vipsrv_compression_ratio_{part}") for part in ("sum", "count")),
                    "mean",
                ),
            ],
            decimals=1,
        ),
        Panel(
            title="Jobs",
            about="Jobs that workers have answered in a second, and those that they gave back as heavy.",
            queries=[
                (rate("vipsrv_jobs_total"), "answered"),
                (rate("vipsrv_heavy_jobs_total"), "found heavy"),
            ],
            unit="ops",
        ),
    ),
    "What is refused, and why?": (
        Panel(
            title="Requests with an image that fail",
            about="By status: 429 is busy, 499 given up by its client, 5xx the server's own fault.",
            queries=[(rate("vipsrv_requests_total", "status", f'{_IMAGES}, status!="200"'), "{{status}}")],
            unit="reqps",
            stack=True,
            runbook="alerts.md#vipsrvservererrors",
        ),
        Panel(
            title="Share that fails",
            about="The server's own faults, refusals as busy, and what clients did wrong, of all requests "
            "with an image.",
            queries=[
                (share_of_images(status), name)
                for status, name in (
                    ('status=~"5.."', "server"),
                    ('status="429"', "busy"),
                    ('status=~"4..", status!="429"', "client"),
                )
            ],
            unit="percentunit",
            runbook="alerts.md#vipsrvbusy",
        ),
        Panel(
            title="Limits hit",
            about="How often a limit has refused or ended a request or a connection. The limits are in the "
            "documentation of the metrics.",
            queries=[(rate("vipsrv_limits_hit_total", "limit"), "{{limit}}")],
            unit="ops",
            stack=True,
            runbook="monitoring.md",
        ),
        Panel(
            title="Replies that are lost",
            about="Requests whose reply could not be sent completely, by the status that it had.",
            queries=[(rate("vipsrv_requests_lost_total", "status"), "{{status}}")],
            unit="reqps",
        ),
        Panel(
            title="Connections that are refused",
            about="By reason, those that were closed for another client, and TLS handshakes that failed.",
            queries=[
                (rate("vipsrv_connections_refused_total", "reason"), "{{reason}}"),
                (rate("vipsrv_connections_displaced_total"), "idle, displaced"),
                (rate("vipsrv_tls_handshake_failures_total"), "TLS handshake failed"),
            ],
            unit="ops",
            runbook="alerts.md#vipsrvconnectionsrefused",
        ),
        Panel(
            title="Lines of the log that are missing",
            about="Lines that nothing read, and lines that were left out because one kind had too many.",
            queries=[
                (rate("vipsrv_log_lines_dropped_total"), "dropped"),
                (rate("vipsrv_log_lines_left_out_total"), "left out"),
            ],
            unit="ops",
            runbook="alerts.md#vipsrvloglinesdropped",
        ),
    ),
    "How full is it?": (
        Panel(
            title="Queue",
            about="Jobs that wait for a worker by lane, and how many may wait in each lane of all instances.",
            queries=[
                (total("vipsrv_queue_length", "lane"), "{{lane}}"),
                (total("vipsrv_queue_limit"), "limit"),
            ],
            dashed=["limit"],
            runbook="alerts.md#vipsrvqueuefull",
        ),
        Panel(
            title="In flight",
            about="Requests with an image that were accepted and have no outcome yet.",
            queries=[(total("vipsrv_in_flight_requests", "instance"), "{{instance}}")],
            stack=True,
        ),
        Panel(
            title="Connections",
            about="Open connections by state, and how many may be open.",
            queries=[
                (total("vipsrv_connections", "state"), "{{state}}"),
                (total("vipsrv_connections_limit"), "limit"),
            ],
            dashed=["limit"],
            runbook="alerts.md#vipsrvconnectionsfull",
        ),
    ),
    "Which worker is sick?": (
        Panel(
            title="Workers",
            about="Worker processes by state.",
            queries=[
                (total("vipsrv_workers", "state"), "{{state}}"),
                (total("vipsrv_workers_wanted"), "wanted"),
            ],
            dashed=["wanted"],
            runbook="alerts.md#vipsrvworkersmissing",
        ),
        Panel(
            title="Workers that have ended",
            about="In 5 minutes, by reason; each is replaced. jobs, memory and settings are on purpose.",
            queries=[
                (
                    f"sum by (instance, reason) (increase({_RESTARTS}{{{SELECTED}}}[5m])) > 0",
                    "{{instance}} {{reason}}",
                )
            ],
            runbook="alerts.md#vipsrvworkersdie",
        ),
        Panel(
            title="Memory of the largest worker",
            about="Resident memory of the worker that has most.",
            queries=[
                (
                    f"max by (instance) (vipsrv_worker_resident_memory_max_bytes{{{SELECTED}}})",
                    "{{instance}}",
                )
            ],
            unit="bytes",
        ),
        Panel(
            title="Jobs that run",
            about="Jobs that a worker has, by lane.",
            queries=[(total("vipsrv_jobs_running", "lane"), "{{lane}}")],
        ),
        Panel(
            title="Gateways that have died",
            about="In 15 minutes; each is replaced.",
            queries=[
                (
                    f"sum by (instance) (increase(vipsrv_gateway_restarts_total{{{SELECTED}}}[15m]))",
                    "{{instance}}",
                )
            ],
            runbook="alerts.md#vipsrvgatewaydied",
        ),
        Panel(
            title="Memory of heavy jobs",
            about="Memory that the running heavy jobs were allowed, and what all of them may take.",
            queries=[
                (total("vipsrv_decode_memory_bytes"), "allowed"),
                (total("vipsrv_decode_memory_limit_bytes"), "limit"),
            ],
            unit="bytes",
            dashed=["limit"],
        ),
    ),
    "Memory, disk and CPU": (
        Panel(
            title="Memory of processes",
            about="Resident memory. Memory that processes share counts for each of them.",
            queries=[
                (
                    total("vipsrv_process_resident_memory_bytes", "process", 'gateway=~"$gateway|"'),
                    "{{process}}",
                )
            ],
            unit="bytes",
            stack=True,
        ),
        Panel(
            title="CPU by process",
            about="Cores in use, user and system.",
            queries=[
                (
                    rate("vipsrv_process_cpu_seconds_total", "process", 'gateway=~"$gateway|"'),
                    "{{process}}",
                )
            ],
            unit="none",
            stack=True,
            decimals=2,
        ),
        Panel(
            title="CPU of each gateway",
            about="A gateway that uses nearly a core is the bottleneck: more gateways help.",
            queries=[
                (
                    rate(
                        "vipsrv_process_cpu_seconds_total",
                        "instance, gateway",
                        'process="gateway", gateway=~"$gateway|"',
                    ),
                    "{{instance}} {{gateway}}",
                )
            ],
            unit="percentunit",
            runbook="alerts.md#vipsrvgatewaybusy",
        ),
        Panel(
            title="Spool",
            about="Bytes of uploads and results, in memory and on the disk, and their limits.",
            queries=[
                (total("vipsrv_spool_bytes", "store"), "{{store}}"),
                (total("vipsrv_spool_limit_bytes", "store"), "limit of {{store}}"),
            ],
            unit="bytes",
            dashed=["limit of disk", "limit of memory"],
            runbook="alerts.md#vipsrvspooldiskfull",
        ),
        Panel(
            title="Uploads that moved to the disk",
            about="Small uploads and results that moved to a file because the spool's memory was used up.",
            queries=[(rate("vipsrv_limits_hit_total", "instance", 'limit="spool_memory"'), "{{instance}}")],
            unit="ops",
            runbook="alerts.md#vipsrvspoolmemoryshort",
        ),
        Panel(
            title="Open files",
            about="File descriptors of each gateway, of those that it may have.",
            queries=[
                (
                    " / ".join(
                        f'vipsrv_process_open_files{end}{{{SELECTED}, gateway=~"$gateway|"}}'
                        for end in ("", "_limit")
                    ),
                    "{{instance}} {{gateway}}",
                )
            ],
            unit="percentunit",
            runbook="alerts.md#vipsrvopenfiles",
        ),
    ),
    "Who asks, and for what?": tuple(
        Panel(
            title=title,
            about=about,
            queries=[(rate("vipsrv_requests_total", label, _IMAGES), f"{{{{{label}}}}}")],
            unit="reqps",
            width=6,
            stack=True,
        )
        for title, about, label in (
            (
                "Identity",
                "How clients of requests with an image log in: token, certificate or none.",
                "identity",
            ),
            ("Protocol", "Requests with an image by protocol and TLS.", "protocol"),
            ("Formats of images", "Requests with an image by the format that was uploaded.", "format_in"),
            ("Formats of results", "Requests with an image by the format of the results.", "format_out"),
        )
    ),
}


def text() -> str:
    """Return the text of the file."""
    return json.dumps(dashboard(ROWS), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
