"""``python -m k8s.check``: render every place and judge it. The exit code is that of a gate."""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from k8s.check import prometheus, schemas
from k8s.check.objects import Fault, Manifest, Place, strings, where
from k8s.check.render import ROOT, NotRendered, Target, render, targets
from k8s.check.rules import judged
from scripts import k8s_monitoring

#: What stands in for something that only the owner of a cluster knows.
_PLACEHOLDERS = ("0" * 64, "example.com", "REPLACE-WITH", "192.0.2.")


def main(arguments: list[str]) -> int:
    """Judge all places, or say whether one of them may be released."""
    parser = argparse.ArgumentParser(prog="python -m k8s.check", description=__doc__)
    parser.add_argument("--release", metavar="OVERLAY", help="refuse placeholders in an overlay")
    release = parser.parse_args(arguments).release
    if release:
        return _tell(_placeholders(release), f"{release} may be applied")

    places, faults = _rendered(targets())
    for place in places:
        faults += [(place.name, fault) for fault in judged(place)]
    different = _different(places)
    faults += [("schemas", fault) for fault in _schemas(different)]
    faults += [("monitoring", fault) for fault in _monitoring()]
    said = f"{len(places)} places, {len(different)} different objects, "
    return _tell(faults, said + f"Kubernetes {schemas.VERSIONS[0]} to {schemas.VERSIONS[-1]}")


def gitops() -> list[Manifest]:
    """Return the examples for Argo CD and Flux."""
    files = sorted((ROOT / "gitops").rglob("*.yaml"))
    return [each for path in files for each in yaml.safe_load_all(path.read_text("utf-8"))]


def _rendered(wanted: list[Target]) -> tuple[list[Place], list[tuple[str, Fault]]]:
    places, faults = [], []

    def attempt(target: Target) -> Place | Fault:
        try:
            return render(target)
        except NotRendered as error:
            return Fault("render", f"Place/{target.name}", str(error))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for target, found in zip(wanted, pool.map(attempt, wanted), strict=True):
            if isinstance(found, Place):
                places.append(found)
            else:
                faults.append((target.name, found))
    return places, faults


def _different(places: list[Place]) -> list[Manifest]:
    """Return what the places hold, each once: most of it is the same."""
    everything = [each for place in places for each in place.manifests] + gitops()
    everything += [*k8s_monitoring.rules(), *k8s_monitoring.dashboards()]
    return list({json.dumps(_shape(each), sort_keys=True): each for each in everything}.values())


def _shape(manifest: Manifest) -> Manifest:
    """Return an object without what tells places apart, which no schema looks at."""
    metadata = {**manifest["metadata"], "labels": None}
    return {**manifest, "metadata": metadata}


def _schemas(manifests: list[Manifest]) -> list[Fault]:
    faults = list(schemas.core(each for each in manifests if schemas.is_core(each)))
    custom = [each for each in manifests if not schemas.is_core(each)]
    if schemas.can_judge_custom():
        return faults + list(schemas.custom(custom))
    print("the objects of operators were not validated: node or .tools/k8s is missing")
    return faults


def _monitoring() -> list[Fault]:
    path = ROOT.parent / "monitoring" / "prometheus.yml"
    if not path.exists():
        return []
    return list(
        prometheus.discovery("monitoring/prometheus.yml", yaml.safe_load(path.read_text("utf-8")))
    )


def _placeholders(name: str) -> list[tuple[str, Fault]]:
    place = render(Target(name, overlay=Path(ROOT / "overlays" / name)))
    return [
        (name, Fault("release", where(manifest), f"{mark} stands in for something of yours"))
        for manifest in place.manifests
        for mark in _PLACEHOLDERS
        if any(mark in text for text in strings(manifest))
    ]


def _tell(faults: list[tuple[str, Fault]], said: str) -> int:
    told: dict[Fault, list[str]] = {}
    for place, fault in faults:
        told.setdefault(fault, []).append(place)
    for fault, names in sorted(told.items()):
        print(f"{fault}  ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})")
    print(f"{said}: {len(told)} faults" if told else f"{said}: nothing found")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
