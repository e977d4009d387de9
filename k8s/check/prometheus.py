"""What a Prometheus configuration of ours must not say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k8s.check.objects import Fault


def discovery(name: str, config: dict[str, Any]) -> Iterator[Fault]:
    """Pods are found by their slices, and once."""
    keepers = 0
    for job in config.get("scrape_configs", []):
        for found in job.get("kubernetes_sd_configs", []):
            if found["role"] == "endpoints":
                said = f"{job['job_name']}: Endpoints are deprecated; the role is endpointslice"
                yield Fault("outdated", name, said)
            keepers += found["role"] in {"pod", "endpoints", "endpointslice"}
    if keepers > 1:
        yield Fault("scraped", name, "two jobs find the same pods: every sum counts double")
