"""Writes the Grafana dashboards of ``monitoring/grafana`` from the tables below, or checks them.

A dashboard is code: one line a panel, so that a metric that is renamed is found by a test and not
by whoever looks at an empty panel at night. ``python scripts/dashboards.py --check`` names files
that are not what would be written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "monitoring" / "grafana"
#: The same for the component: kustomize reads nothing outside of its own folder.
COMPONENT = ROOT / "k8s" / "components" / "grafana"
#: Panels of a row, on Grafana's grid of 24 columns.
_ACROSS = 3
_WIDE, _HIGH = 24 // _ACROSS, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One graph: what it asks, in which unit, and what it is for."""

    title: str
    why: str
    unit: str
    #: Legend -> expression.
    asks: dict[str, str]
    kind: str = "timeseries"


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Rows of panels. The uid stays the same for ever: links point at it."""

    uid: str
    title: str
    rows: Sequence[tuple[str, Sequence[Panel]]] = field(default_factory=tuple)


def _rate(metric: str, by: str, more: str = "") -> str:
    where = f'namespace=~"$namespace"{more}'
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


def _quantile(share: float, metric: str, by: str) -> str:
    return f"histogram_quantile({share}, {_rate(f'{metric}_bucket', f'le, {by}')})"


def _latest(metric: str, by: str = "queue") -> str:
    return f'max by ({by}) ({metric}{{namespace=~"$namespace"}})'


def _total(metric: str, by: str) -> str:
    return f'sum by ({by}) ({metric}{{namespace=~"$namespace"}})'


_RUNS = (
    Panel(
        title="Runs that ended",
        why="By how they ended; a retry is no end.",
        unit="ops",
        asks={"{{status}}": _rate("workflow_executions_total", "status")},
    ),
    Panel(
        title="Failed share by workflow",
        why="The objective is one in a hundred.",
        unit="percentunit",
        asks={
            "{{workflow_type}}": _rate(
                "workflow_executions_total", "workflow_type", ', status="failed"'
            )
            + " / "
            + _rate("workflow_executions_total", "workflow_type")
        },
    ),
    Panel(
        title="Running time, 95 of 100",
        why="Of the last attempt; parked time does not count. Points are traces.",
        unit="s",
        asks={"{{workflow_type}}": _quantile(0.95, "workflow_duration_seconds", "workflow_type")},
    ),
    Panel(
        title="Wait before a worker takes a run",
        why="Between being due and being taken; a minute is late.",
        unit="s",
        asks={
            "half {{queue}}": _quantile(0.5, "millstream_run_wait_seconds", "queue"),
            "95 of 100 {{queue}}": _quantile(0.95, "millstream_run_wait_seconds", "queue"),
        },
    ),
    Panel(
        title="Steps",
        why="That ran; what was replayed does not count.",
        unit="ops",
        asks={"{{kind}} {{status}}": _rate("millstream_steps_total", "kind, status")},
    ),
    Panel(
        title="Errors",
        why="Failed attempts, lost runs and failed calls of Redis, by class.",
        unit="ops",
        asks={"{{error_type}}": _rate("errors_total", "error_type")},
    ),
)
_QUEUES = (
    Panel(
        title="Waiting and running",
        why="Waiting runs are held by nobody yet.",
        unit="short",
        asks={
            "waiting {{queue}}": _latest("millstream_queue_waiting"),
            "running {{queue}}": _latest("millstream_queue_running"),
        },
    ),
    Panel(
        title="Oldest run that waits",
        why="What callers feel; five minutes is an alert.",
        unit="s",
        asks={"{{queue}}": _latest("millstream_queue_oldest_age_seconds")},
    ),
    Panel(
        title="Scheduled, parked, limited, dead",
        why="They hold no worker. Limited ones wait for a permit, dead letters for somebody.",
        unit="short",
        asks={
            "scheduled {{queue}}": _latest("millstream_queue_scheduled"),
            "parked {{queue}}": _latest("millstream_queue_parked"),
            "limited {{queue}}": _latest("millstream_queue_limited"),
            "dead {{queue}}": _latest("millstream_queue_dead"),
        },
    ),
    Panel(
        title="Workers",
        why="That are alive, by the account of Redis.",
        unit="short",
        asks={"{{queue}}": _latest("millstream_queue_workers")},
    ),
    Panel(
        title="Slots",
        why="Runs that are held, beside what may be held.",
        unit="short",
        asks={
            "held": _total("active_workflows", "job"),
            "there are": _total("millstream_worker_slots", "job"),
        },
    ),
    Panel(
        title="Recovered",
        why="Runs of lost workers, queued again; and those that were given up.",
        unit="ops",
        asks={
            "queued again": _rate("millstream_runs_reclaimed_total", "job"),
            "given up": _rate("millstream_runs_poisoned_total", "job"),
        },
    ),
)
_TRIALS = (
    Panel(
        title="Runs of a trial that ended",
        why="By version: the share of the one that is tried is what was asked for.",
        unit="ops",
        asks={
            "{{workflow_type}} {{version}} {{arm}}": _rate(
                "millstream_trial_runs_total", "workflow_type, version, arm"
            )
        },
    ),
    Panel(
        title="Failed share by version",
        why="Of versions on trial, and of those beside them.",
        unit="percentunit",
        asks={
            "{{workflow_type}} {{version}} {{arm}}": _rate(
                "millstream_trial_runs_total", "workflow_type, version, arm", ', status="failed"'
            )
            + " / "
            + _rate("millstream_trial_runs_total", "workflow_type, version, arm")
        },
    ),
    Panel(
        title="Rolled back",
        why="Versions that failed more often than the kept one.",
        unit="short",
        asks={
            "{{workflow_type}} {{version}}": _total(
                "millstream_trial_rollbacks_total", "workflow_type, version"
            )
        },
    ),
)
_TOOLS = (
    Panel(
        title="MCP calls",
        why="By outcome.",
        unit="ops",
        asks={"{{server}} {{status}}": _rate("mcp_tool_calls_total", "server, status")},
    ),
    Panel(
        title="MCP calls, 95 of 100",
        why="Failed ones included. Points are traces.",
        unit="s",
        asks={"{{server}}/{{tool}}": _quantile(0.95, "mcp_tool_duration_seconds", "server, tool")},
    ),
    Panel(
        title="Circuit breakers",
        why="1 while a worker refuses a server's calls.",
        unit="short",
        asks={"{{server}}": _latest("millstream_circuit_open", "server")},
    ),
    Panel(
        title="Calls that wait for room at a server",
        why="Of servers with a limit; they hold the slots of their runs meanwhile.",
        unit="short",
        asks={"{{server}} {{queue}}": _total("millstream_tool_calls_waiting", "server, queue")},
    ),
    Panel(
        title="Inputs of a batch, half of them",
        why="The more, the better the device is used.",
        unit="short",
        asks={"{{model}}": _quantile(0.5, "millstream_infer_batch_items", "model")},
    ),
    Panel(
        title="Inputs that wait for a model",
        why="Calls hold a slot while they wait.",
        unit="short",
        asks={"{{model}}": _total("millstream_infer_queue_depth", "model")},
    ),
    Panel(
        title="Memory of devices",
        why="What is held by us and by neighbours, and what is left within the budget.",
        unit="bytes",
        asks={
            "ours {{device}}": _latest("millstream_infer_mem_held_bytes", "device"),
            "others {{device}}": _latest("millstream_infer_mem_others_bytes", "device"),
            "left {{device}}": _latest("millstream_infer_mem_headroom_bytes", "device"),
        },
    ),
)
_PROCESSES = (
    Panel(
        title="CPU",
        why="Share of one core; an event loop ends at 100.",
        unit="percent",
        asks={"{{instance}}": _latest("cpu_usage_percent", "instance")},
    ),
    Panel(
        title="Memory",
        why="Resident, of each process.",
        unit="bytes",
        asks={"{{instance}}": _latest("memory_usage_bytes", "instance")},
    ),
    Panel(
        title="Round trip of a lease",
        why="How Redis feels from a worker, 99 of 100.",
        unit="s",
        asks={"{{job}}": _quantile(0.99, "millstream_lease_renewal_seconds", "job")},
    ),
    Panel(
        title="Calls of Redis that failed",
        why="Nothing is lost, and nothing goes on.",
        unit="ops",
        asks={"{{during}}": _rate("millstream_store_failures_total", "during")},
    ),
    Panel(
        title="Leader",
        why="One scheduler leads.",
        unit="short",
        asks={"{{instance}}": _latest("millstream_leader", "instance")},
    ),
    Panel(
        title="Spans",
        why="Exported, failed, dropped.",
        unit="ops",
        asks={"{{outcome}}": _rate("millstream_spans_total", "outcome")},
    ),
)

DASHBOARDS = (
    Dashboard(
        uid="millstream-overview",
        title="millstream",
        rows=(
            ("Runs", _RUNS),
            ("Queues", _QUEUES),
            ("Versions on trial", _TRIALS),
            ("Tools and models", _TOOLS),
            ("Processes", _PROCESSES),
        ),
    ),
)


def written() -> dict[Path, str]:
    """The files as they should be."""
    return {
        folder / f"{each.uid}.json": json.dumps(_document(each), indent=2) + "\n"
        for each in DASHBOARDS
        for folder in (FOLDER, COMPONENT)
    }


def expressions() -> list[tuple[str, str]]:
    """Every panel's title and what it asks."""
    return [
        (panel.title, ask)
        for each in DASHBOARDS
        for _, panels in each.rows
        for panel in panels
        for ask in panel.asks.values()
    ]


def _document(dashboard: Dashboard) -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in dashboard.rows:
        place = {"x": 0, "y": top, "w": 24, "h": 1}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "gridPos": place, "panels": []}
        )
        top += 1
        for index, panel in enumerate(row):
            across, down = index % _ACROSS, index // _ACROSS
            place = {"x": across * _WIDE, "y": top + down * _HIGH, "w": _WIDE, "h": _HIGH}
            panels.append(_panel(panel, len(panels) + 1, place))
        top += -(-len(row) // _ACROSS) * _HIGH
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["millstream"],
        "editable": False,
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [_datasource(), _namespace()]},
        "panels": panels,
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": source,
            "expr": ask,
            "legendFormat": legend,
            "exemplar": "_bucket" in ask,
        }
        for index, (legend, ask) in enumerate(panel.asks.items())
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.why,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": targets,
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Source"}


def _namespace() -> dict[str, Any]:
    return {
        "name": "namespace",
        "type": "query",
        "label": "Namespace",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": "label_values(agent_info, namespace)",
        "includeAll": True,
        # Also where there is no such label.
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
    }


def main(arguments: list[str]) -> int:
    """Write what differs; with ``--check`` only name it."""
    check = "--check" in arguments
    stale = 0
    for path, text in written().items():
        if not path.exists() or path.read_text("utf-8") != text:
            stale += 1
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
            print(f"{path.relative_to(ROOT)}: {'stale, run `make docs`' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
