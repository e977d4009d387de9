"""What monitoring/ says, as tests read it: its rules, what they ask, and promtool to judge them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from millstream.telemetry.metrics import TABLE
from tests.house import tree

MONITORING = tree.ROOT / "monitoring"
ALERTS = sorted((MONITORING / "alerts").glob("*.yml"))
RULES = sorted((MONITORING / "rules").glob("*.yml"))
#: What Prometheus and kube-state-metrics bring.
OTHERS = {
    "up",
    "kube_horizontalpodautoscaler_spec_max_replicas",
    "kube_horizontalpodautoscaler_status_condition",
    "kube_horizontalpodautoscaler_status_current_replicas",
    "kube_pod_container_resource_limits",
}
#: Labels that the scrape adds.
SCRAPED = {"namespace", "job", "instance", "pod", "le"}
_WORDS = {"and", "or", "unless", "offset", "bool", "by", "without", "on", "ignoring", "group_left"}


def program(name: str) -> Path:
    """Return where a program of Prometheus is; skip the test where it is not."""
    found = shutil.which(name)
    if found:
        return Path(found)
    unpacked = tree.ROOT / ".tools" / "prometheus" / "usr" / "bin" / name
    if not unpacked.exists():
        pytest.skip(f"{name} is not installed; `make servers` unpacks it")
    return unpacked


def promtool(*arguments: str | Path) -> tuple[int, str]:
    """Run promtool; return how it ended and what it said."""
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def rules(files: list[Path]) -> list[dict[str, Any]]:
    """Return every rule of some files."""
    return [
        rule
        for file in files
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]


def named(expression: str) -> set[str]:
    """Return the metrics that an expression names."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left)\s*\([^)]*\)", "", bare)
    words = re.findall(r"(?<![\w.:])([a-zA-Z_:][\w:]*)\b(?!\s*\()", bare)
    return {word for word in words if word not in _WORDS}


def grouped_by(expression: str) -> set[str]:
    """Return the labels that an expression keeps."""
    clauses = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
    return {label.strip() for clause in clauses for label in clause.split(",") if label.strip()}


def known() -> set[str]:
    """Return every name that an expression may use."""
    series = {row.name for row in TABLE}
    parts = {
        f"{row.name}{part}"
        for row in TABLE
        if row.kind == "histogram"
        for part in ("_bucket", "_count", "_sum")
    }
    return series | parts | OTHERS | {rule["record"] for rule in rules(RULES)}


def labels_of(name: str) -> set[str]:
    """Return the labels that a metric of ours has; everything for what is not ours."""
    plain = re.sub(r"_(bucket|count|sum)$", "", name)
    for row in TABLE:
        if row.name in {name, plain}:
            return set(row.labels) | SCRAPED
    return {"queue", "condition", *SCRAPED}
