"""Rendered manifests, and the ways to find one's way in them.

A place is everything that one `kubectl apply -k` would create. Nothing here judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]

#: Kind -> where its pod template is.
_TEMPLATES = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """Something that is wrong: which rule says so, of which object, and what to do."""

    rule: str
    where: str
    said: str

    def __str__(self) -> str:
        return f"{self.where}: {self.said} [{self.rule}]"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod template and what owns it."""

    owner: Manifest
    template: Manifest

    @property
    def spec(self) -> Manifest:
        """The specification of the pods."""
        found: Manifest = self.template["spec"]
        return found

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels that the pods have."""
        return labels(self.template)

    @property
    def containers(self) -> list[Manifest]:
        """All containers, those that run first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def volumes(self) -> list[Manifest]:
        """What is mounted."""
        return list(self.spec.get("volumes", []))

    @property
    def long_running(self) -> bool:
        """Whether it is meant to stay."""
        return self.owner["kind"] in {"Deployment", "StatefulSet"}


class Place:
    """What one `kubectl apply -k` would create."""

    def __init__(self, name: str, manifests: list[Manifest]) -> None:
        self.name = name
        self.manifests = manifests

    def of(self, *kinds: str) -> list[Manifest]:
        """Return the objects of some kinds."""
        return [each for each in self.manifests if each["kind"] in kinds]

    def find(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """Return the object with this name, or None."""
        for each in self.of(kind):
            if each["metadata"]["name"] == name and namespace in {None, namespace_of(each)}:
                return each
        return None

    def pods(self) -> Iterator[Pod]:
        """All pod templates."""
        for each in self.manifests:
            if path := _TEMPLATES.get(each["kind"]):
                yield Pod(each, _at(each, path))


Rule = Callable[[Place], Iterator[Fault]]


def where(manifest: Manifest) -> str:
    """Name an object as kubectl does."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def labels(manifest: Manifest) -> Mapping[str, str]:
    """Return the labels of an object or a template."""
    found: Mapping[str, str] = manifest.get("metadata", {}).get("labels") or {}
    return found


def annotations_of(manifest: Manifest) -> Mapping[str, str]:
    """Return the annotations of an object or a template."""
    found: Mapping[str, str] = manifest.get("metadata", {}).get("annotations") or {}
    return found


def namespace_of(manifest: Manifest) -> str | None:
    """Return the namespace of an object; None for what belongs to the cluster."""
    found: str | None = manifest["metadata"].get("namespace")
    return found


def selects(selector: Mapping[str, Any], found: Mapping[str, str]) -> bool:
    """Whether a LabelSelector matches labels. An empty one matches everything."""
    wanted = selector.get("matchLabels") or {}
    if any(found.get(key) != value for key, value in wanted.items()):
        return False
    return all(_expression(each, found) for each in selector.get("matchExpressions") or [])


def strings(value: Any) -> Iterator[str]:
    """All texts in a manifest, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


def _expression(expression: Mapping[str, Any], found: Mapping[str, str]) -> bool:
    value = found.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case operator:
            raise ValueError(f"{operator!r} is no operator of a selector")


def _at(manifest: Manifest, path: tuple[str, ...]) -> Manifest:
    for part in path:
        manifest = manifest[part]
    return manifest
