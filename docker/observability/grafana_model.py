"""Grafana's JSON model of a dashboard, as far as that of vipsrv needs it."""
# ruff: noqa: INP001 -- what a script beside it imports, in no package

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DOCS = "https://github.com/vipsrv/vipsrv/blob/main/docs/operations"

SELECTED = 'job=~"$job", instance=~"$instance"'
"""The labels that the variables at the top of the dashboard choose."""

OK, WARN, BAD = "green", "orange", "red"

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH = 24  # columns of Grafana's grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel. ``queries`` are PromQL with the legend of each;"""

    title: str
    about: str
    queries: Sequence[tuple[str, str]]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    stack: bool = False
    thresholds: Sequence[tuple[str, float | None]] = ()
    mappings: Sequence[tuple[str, str, str]] = ()
    """Values with the text and the colour that a stat shows for them."""
    runbook: str = ""
    """The page and anchor that say what to do."""
    table: bool = False
    decimals: int | None = None
    dashed: Sequence[str] = ()
    """Legends of the limits, which are drawn as dashed lines."""


def dashboard(rows: Mapping[str, Sequence[Panel]]) -> dict[str, Any]:
    """Return the dashboard with these rows as Grafana's JSON model has it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in rows.items():
        panels.append(
            {
                "type": "row",
                "id": len(panels) + 1,
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": 1},
                "panels": [],
            }
        )
        top += 1
        left, height = 0, 0
        for panel in row:
            if left + panel.width > _WIDTH:
                top, left, height = top + height, 0, 0
            position = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            panels.append(_panel(panel, len(panels) + 1, position))
            left, height = left + panel.width, max(height, panel.height)
        top += height
    return {
        "uid": "vipsrv",
        "title": "vipsrv",
        "description": "Is it up, how fast is it, what is refused and why, which worker is sick, who asks?",
        "tags": ["vipsrv", "images"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [
            _link("Runbooks of the alerts", f"{DOCS}/alerts.md"),
            _link("All metrics", f"{DOCS}/monitoring.md"),
        ],
        "annotations": {"list": [_restarts()]},
        "templating": {
            "list": [
                {
                    "type": "datasource",
                    "name": "datasource",
                    "label": "Data source",
                    "query": "prometheus",
                    "hide": 0,
                },
                _variable("job", "Job", "label_values(vipsrv_build_info, job)"),
                _variable("instance", "Instance", 'label_values(vipsrv_build_info{job=~"$job"}, instance)'),
                _variable(
                    "gateway",
                    "Gateway",
                    f"label_values(vipsrv_process_resident_memory_bytes{{{SELECTED}}}, gateway)",
                ),
            ]
        },
        "panels": panels,
    }


def _panel(panel: Panel, number: int, position: dict[str, int]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": panel.kind,
        "id": number,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": position,
        "targets": [_target(panel, index) for index in range(len(panel.queries))],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": [_dashes(name) for name in panel.dashed]},
        "options": _options(panel),
    }
    if panel.runbook:
        made["links"] = [_link("What to do", f"{DOCS}/{panel.runbook}")]
    if panel.table:
        made["transformations"] = [
            {
                "id": "organize",
                "options": {
                    "excludeByName": dict.fromkeys(["Time", "Value", "__name__"], True),
                    "indexByName": {},
                    "renameByName": {},
                },
            }
        ]
    return made


def _target(panel: Panel, index: int) -> dict[str, Any]:
    query, legend = panel.queries[index]
    target: dict[str, Any] = {
        "refId": chr(ord("A") + index),
        "datasource": _SOURCE,
        "expr": query,
        "legendFormat": legend,
        "instant": panel.table,
        "range": not panel.table,
    }
    if panel.table:
        target["format"] = "table"
    return target


def _defaults(panel: Panel) -> dict[str, Any]:
    steps = panel.thresholds or [(OK, None)]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"color": colour, "value": value} for colour, value in steps],
        },
        "mappings": [
            {"type": "value", "options": {value: {"text": text, "color": colour, "index": index}}}
            for index, (value, text, colour) in enumerate(panel.mappings)
        ],
    }
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stack else 5,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
        }
        defaults["min"] = 0
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    return defaults


def _dashes(name: str) -> dict[str, Any]:
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [
            {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}},
            {"id": "custom.fillOpacity", "value": 0},
            {"id": "color", "value": {"mode": "fixed", "fixedColor": "text"}},
        ],
    }


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "auto",
            "wideLayout": True,
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
        }
    if panel.kind == "table":
        return {"frameIndex": 0, "showHeader": True, "cellHeight": "sm"}
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _link(title: str, url: str) -> dict[str, Any]:
    return {
        "type": "link",
        "title": title,
        "url": url,
        "targetBlank": True,
        "asDropdown": False,
        "icon": "doc",
        "includeVars": False,
        "keepTime": False,
        "tags": [],
        "tooltip": "",
    }


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "includeAll": True,
        "multi": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "refresh": 2,  # whenever the time range changes
        "sort": 1,
        "hide": 0,
    }


def _restarts() -> dict[str, Any]:
    return {
        "name": "Starts",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": f"changes(vipsrv_process_start_time_seconds{{{SELECTED}}}[1m]) > 0",
        "titleFormat": "start of a {{process}}",
        "textFormat": "{{instance}} {{gateway}}",
    }
