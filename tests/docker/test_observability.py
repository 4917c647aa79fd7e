"""The dashboard and the alert rules use metrics and labels of the server, and Prometheus accepts them."""

import importlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.promql import Used, used_by
from vipsrv.errors import Limit
from vipsrv.server.metrics.catalogue import METRICS, Metric, MetricType, Stage, exposed_names
from vipsrv.workers.process import EndCause

ROOT = Path(__file__).parents[2]
OBSERVABILITY = ROOT / "docker" / "observability"
PROMETHEUS = OBSERVABILITY / "prometheus"
DASHBOARD = json.loads((OBSERVABILITY / "grafana" / "dashboards" / "vipsrv.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "vipsrv.rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
TESTS = yaml.safe_load((PROMETHEUS / "vipsrv.rules.test.yml").read_text())["tests"]
DOCUMENTS = "https://github.com/vipsrv/vipsrv/blob/main/"

OF_PROMETHEUS = {"up": {"job", "instance"}, "ALERTS": {"alertname", "job", "instance"}}
"""What Prometheus itself adds: metrics with their labels."""

VALUES: dict[str, set[str]] = {
    "kind": {"resize", "info", "ping"},
    "lane": {"light", "heavy"},
    "limit": set(Limit),
    "process": {"gateway", "worker", "supervisor"},
    "stage": set(Stage),
    "store": {"memory", "disk"},
}
"""What a label may be, where an expression asks for a value of it."""

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str, str]]:
    """Title, expression and legend of each query of the dashboard."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"], annotation["titleFormat"] + annotation["textFormat"]


EXPRESSIONS = [
    *(
        pytest.param(expression, id=f"{title}-{index}")
        for index, (title, expression, _) in enumerate(queries())
    ),
    *(pytest.param(rule["expr"], id=rule["alert"]) for rule in RULES),
    *(
        pytest.param(entry["metric"], id=f"{test['name']}-{index}")
        for test in TESTS
        for index, entry in enumerate({"metric": one["series"]} for one in test["input_series"])
    ),
]


def metric_of(name: str) -> Metric | None:
    """The metric to which the name of a sample belongs."""
    return next((metric for metric in METRICS.values() if name in metric.exposed), None)


def labels_of(name: str) -> set[str]:
    """The labels that a sample with this name has when Prometheus has scraped it."""
    if name in OF_PROMETHEUS:
        return OF_PROMETHEUS[name]
    metric = metric_of(name)
    assert metric is not None, f"the server has no metric {name}"
    labels = {*metric.labels, "job", "instance"}
    return labels | {"le"} if name.endswith("_bucket") and metric.type is MetricType.HISTOGRAM else labels


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_uses_what_the_server_has(expression: str) -> None:
    used = used_by(expression)
    assert used.metrics
    for name, matchers in used.metrics:
        assert name in exposed_names() or name in OF_PROMETHEUS
        assert matchers.keys() <= labels_of(name), f"{name} has no such label"
        for label, value in matchers.items():
            known = (
                set(EndCause)
                if name == "vipsrv_worker_restarts_total" and label == "reason"
                else VALUES.get(label)
            )
            if known is not None and "$" not in value:
                assert set(value.split("|")) <= known, f"{label} is never that"
    assert used.grouping <= all_labels(used)


def all_labels(used: Used) -> set[str]:
    return set().union(*(labels_of(name) for name, _ in used.metrics))


@pytest.mark.parametrize(("title", "expression", "legend"), list(queries()))
def test_a_legend_names_labels_that_the_result_has(title: str, expression: str, legend: str) -> None:
    used = used_by(expression)
    named = set(re.findall(r"\{\{(\w+)\}\}", legend))
    is_aggregated = re.search(r"\b(?:sum|max|min|count)\b", expression) is not None
    assert named <= (used.grouping if is_aggregated else all_labels(used)), title


def test_the_extraction_finds_what_an_expression_uses() -> None:
    used = used_by(
        'sum by (job, le) (rate(a_total{x="{b}", y!~"c|d"}[5m]))'
        " / on (job) group_left (z) (e > 2 * time()) or f"
    )
    assert used.metrics == [("a_total", {"x": "{b}", "y": "c|d"}), ("e", {}), ("f", {})]
    assert used.grouping == {"job", "le", "z"}


# The dashboard


def test_the_dashboard_is_what_its_script_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(OBSERVABILITY))
    script = importlib.import_module("dashboard")
    assert script.FILE.read_text() == script.text(), "run python docker/observability/dashboard.py"


def test_panels_have_their_own_ids_and_places() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_panels_say_what_they_show() -> None:
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_variables_choose_by_what_the_server_has() -> None:
    chosen = {
        one["name"]: one["definition"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"
    }
    assert set(chosen) == {"job", "instance", "gateway"}
    for name, definition in chosen.items():
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", definition)
        assert found is not None
        (used,) = used_by(found.group(1)).metrics
        assert {name, *used[1]} <= labels_of(used[0])
        assert found.group(2) == name


def linked() -> Iterator[str]:
    for panel in [DASHBOARD, *panels()]:
        yield from (link["url"] for link in panel.get("links", []))
    yield from (rule["annotations"]["runbook_url"] for rule in RULES)


@pytest.mark.parametrize("url", sorted(set(linked())))
def test_a_link_leads_to_a_page_and_heading(url: str) -> None:
    assert url.startswith(DOCUMENTS)
    path, _, anchor = url.removeprefix(DOCUMENTS).partition("#")
    page = (ROOT / path).read_text()
    headings = {
        re.sub(r"[^a-z0-9-]", "", line.lstrip("# ").lower().replace(" ", "-"))
        for line in page.splitlines()
        if line.startswith("#")
    }
    assert not anchor or anchor in headings


# The alert rules


def test_each_alert_has_what_a_person_needs() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"].endswith(f"alerts.md#{rule['alert'].lower()}")


def test_each_alert_is_tested_to_fire() -> None:
    fired = {one["alertname"] for test in TESTS for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert fired == {rule["alert"] for rule in RULES}


def promtool(*arguments: str | Path) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_accepts_its_configuration_and_the_rules() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


@needs_promtool
def test_the_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", PROMETHEUS / "vipsrv.rules.test.yml")


@needs_promtool
def test_prometheus_parses_all_queries_of_the_dashboard(tmp_path: Path) -> None:
    # A recording rule is the one place where promtool parses an expression without a server.
    rules = [
        {"record": f"dashboard:{index}", "expr": without_variables(expression)}
        for index, (_, expression, _) in enumerate(queries())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


def without_variables(expression: str) -> str:
    """An expression of Grafana as Prometheus gets it."""
    return expression.replace("$__rate_interval", "1m").replace("$", "")


# Grafana's model of a dashboard


@pytest.fixture(scope="module")
def model_check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that reads a dashboard by Grafana's own Go types."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed")
    program = tmp_path_factory.mktemp("go") / "dashboardmodel"
    built = subprocess.run(
        [go, "build", "-o", program, "."],
        cwd=Path(__file__).parent / "dashboard_model",
        env={**os.environ, "GOPROXY": "off", "GOFLAGS": "-mod=readonly"},  # a test loads nothing
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if "module lookup disabled by GOPROXY=off" in built.stderr:
        pytest.skip(
            "the Go module grafana-foundation-sdk is not here: run 'go mod download' in dashboard_model"
        )
    assert built.returncode == 0, built.stderr
    return program


def test_the_dashboard_follows_the_model_of_grafana(model_check: Path) -> None:
    file = OBSERVABILITY / "grafana" / "dashboards" / "vipsrv.json"
    done = subprocess.run([model_check, file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_the_check_of_the_model_finds_a_wrong_option(model_check: Path, tmp_path: Path) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(DASHBOARD).replace('"graphMode"', '"grafMode"'))
    done = subprocess.run([model_check, file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "unexpected field 'grafMode'" in done.stdout
