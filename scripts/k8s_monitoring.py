"""Prints the rules and dashboards of monitoring/ as objects that a cluster's operators pick up.

    python3 scripts/k8s_monitoring.py | kubectl apply -f -              # all
    python3 scripts/k8s_monitoring.py rules > rules.yaml                # for Git

Rules become a PrometheusRule each, for the Prometheus operator; dashboards one ConfigMap with the
label that Grafana's sidecar looks for. They stand once, in monitoring/, where they are tested.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MONITORING = Path(__file__).resolve().parent.parent / "monitoring"
NAMESPACE = "millstream"


def rules(monitoring: Path = MONITORING) -> Iterator[dict[str, Any]]:
    """Return a PrometheusRule for each file of rules and alerts."""
    for path in sorted([*monitoring.glob("rules/*.yml"), *monitoring.glob("alerts/*.yml")]):
        groups = yaml.safe_load(path.read_text("utf-8"))["groups"]
        name = f"millstream-{path.parent.name}-{path.stem}"
        yield _object("monitoring.coreos.com/v1", "PrometheusRule", name, spec={"groups": groups})


def dashboards(monitoring: Path = MONITORING) -> Iterator[dict[str, Any]]:
    """Return a ConfigMap with all dashboards, if there are any."""
    found = {
        path.name: path.read_text("utf-8") for path in sorted(monitoring.glob("grafana/*.json"))
    }
    if found:
        made = _object("v1", "ConfigMap", "millstream-dashboards", data=found)
        made["metadata"]["labels"]["grafana_dashboard"] = "1"
        yield made


def _object(version: str, kind: str, name: str, **body: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": "millstream"}
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


KINDS = {"rules": rules, "dashboards": dashboards}


def main(arguments: list[str]) -> int:
    """Print what is asked for as YAML."""
    parser = argparse.ArgumentParser(description="Print monitoring/ as objects of a cluster.")
    parser.add_argument("kind", nargs="*", choices=[*KINDS, []], help="default: both")
    wanted = parser.parse_args(arguments).kind or list(KINDS)
    made = [each for kind in wanted for each in KINDS[kind]()]
    if not made:
        raise SystemExit(f"there are no {' and no '.join(wanted)} in {MONITORING}")
    yaml.safe_dump_all(made, sys.stdout, sort_keys=False, width=100)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
