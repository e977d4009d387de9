"""Whether the API servers would take the manifests: the schemas of Kubernetes, and those of CRDs.

Unknown fields are refused in both. An API server drops them without a word, and what was meant to
be a circuit breaker is nothing.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from k8s.check.objects import Fault, Manifest, where

#: The versions that are supported; the newest is that of the package.
VERSIONS = ("1.33", "1.34", "1.35", "1.36", "1.37")
_BUILT_IN = {
    "apps",
    "autoscaling",
    "batch",
    "policy",
    "networking.k8s.io",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "apiregistration.k8s.io",
}
MODELS = Path(__file__).resolve().parents[2] / ".tools" / "k8s"


def is_core(manifest: Manifest) -> bool:
    """Whether every cluster knows the kind."""
    group = manifest["apiVersion"].rpartition("/")[0]
    return not group or group in _BUILT_IN


def core(manifests: Iterable[Manifest], versions: Iterable[str] = VERSIONS) -> Iterator[Fault]:
    """Validate what every cluster knows, for each version."""
    for manifest in manifests:
        for version in versions:
            validator = _validator(version, manifest["apiVersion"], manifest["kind"])
            if validator is None:
                said = f"{version} has no {manifest['apiVersion']} {manifest['kind']}"
                yield Fault("schema", where(manifest), said)
                continue
            for error in validator.iter_errors(manifest):
                at = ".".join(map(str, error.absolute_path))
                yield Fault("schema", where(manifest), f"{version}: {at}: {error.message}")


def custom(manifests: list[Manifest]) -> Iterator[Fault]:
    """Validate what an operator brings, with the schemas of its own project."""
    script = Path(__file__).with_name("crds.mjs")
    done = subprocess.run(
        ["node", str(script), str(MODELS)],
        input=json.dumps(manifests),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    answers: list[list[Any]] = json.loads(done.stdout)
    for manifest, said in zip(manifests, answers, strict=True):
        for each in said:
            yield Fault("schema", where(manifest), str(each))


def can_judge_custom() -> bool:
    """Whether the schemas of the operators are at hand."""
    return shutil.which("node") is not None and (MODELS / "node_modules").is_dir()


# The package would read its files anew for every object: half a second each.


@cache
def _validator(version: str, api_version: str, kind: str) -> Draft202012Validator | None:
    # rbac.authorization.k8s.io/v1 is in the file of rbac-v1.
    name = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    file = _schemas(version) / f"{kind.lower()}-{name}.json"
    if not file.is_file():
        return None
    schema = json.loads(file.read_text("utf-8"))
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _shared(version))


@cache
def _shared(version: str) -> Registry[Any]:
    definitions = json.loads((_schemas(version) / "_definitions.json").read_text("utf-8"))
    return Resource.from_contents(definitions) @ Registry()


def _schemas(version: str) -> Any:
    return files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
