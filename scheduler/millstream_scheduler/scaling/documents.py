"""The documents of the two metrics APIs, and of discovery in each of its three forms.

Discovery says what is served, from what stands in the code: it is right also while Redis and the
leader are away. An API server asks for it again and again, and a group that answers nothing, or
with an empty list, keeps every namespace of its cluster from being deleted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from millstream_scheduler.scaling.figures import FIGURES, Value

Document = dict[str, Any]

CUSTOM = "custom.metrics.k8s.io"
EXTERNAL = "external.metrics.k8s.io"
#: The preferred version first.
VERSIONS: Mapping[str, tuple[str, ...]] = {CUSTOM: ("v1beta2", "v1beta1"), EXTERNAL: ("v1beta1",)}
#: What a metric of the custom group can be said to belong to.
OBJECTS: Mapping[str, tuple[str, str]] = {
    "services": ("Service", "v1"),
    "deployments.apps": ("Deployment", "apps/v1"),
}
#: Kinds of the documents that answer a query.
_KINDS = {CUSTOM: "MetricValueList", EXTERNAL: "ExternalMetricValueList"}
_DISCOVERY = "apidiscovery.k8s.io"
PLAIN = "application/json"


# -- discovery ---------------------------------------------------------------------------------


def discovery_version(accept: str) -> str | None:
    """Return the form of discovery that a client accepts: v2, v2beta1, or '' for the plain one.

    None when it accepts none of them: a refusal makes an API server ask in another way.
    """
    for part in accept.split(",") if accept.strip() else ["*/*"]:
        kind, *rest = (piece.strip() for piece in part.split(";"))
        if kind not in {PLAIN, "application/*", "*/*"}:
            continue
        options = dict(piece.split("=", 1) for piece in rest if "=" in piece)
        if "as" not in options:
            return ""
        known = options.get("g") == _DISCOVERY and options["as"] == "APIGroupDiscoveryList"
        if known and options.get("v") in {"v2", "v2beta1"}:
            return options["v"]

    return None


def discovery_type(version: str) -> str:
    """Return the content type of a form of discovery."""
    return f"{PLAIN};g={_DISCOVERY};v={version};as=APIGroupDiscoveryList" if version else PLAIN


def groups(version: str) -> Document:
    """Return what ``/apis`` answers: all groups, with all that is in them or by name alone."""
    if not version:
        found = [_without(group(name), "kind", "apiVersion") for name in VERSIONS]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}

    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"{_DISCOVERY}/{version}",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": name},
                "versions": [
                    {"version": each, "resources": _discovered(name), "freshness": "Current"}
                    for each in versions
                ],
            }
            for name, versions in VERSIONS.items()
        ],
    }


def group(name: str) -> Document:
    """Return a group with its versions."""
    versions = [{"groupVersion": f"{name}/{each}", "version": each} for each in VERSIONS[name]]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": versions,
        "preferredVersion": versions[0],
    }


def resources(name: str, version: str) -> Document:
    """Return what a version of a group has."""
    parents = [""] if name == EXTERNAL else [f"{each}/" for each in OBJECTS]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{name}/{version}",
        "resources": [
            {
                "name": parent + figure,
                "singularName": "",
                "namespaced": True,
                "kind": _KINDS[name],
                "verbs": ["get"],
            }
            for parent in parents
            for figure in FIGURES
        ],
    }


def _discovered(name: str) -> list[Document]:
    if name == EXTERNAL:
        return [
            {
                "resource": figure,
                "responseKind": _response(EXTERNAL),
                "scope": "Namespaced",
                "singularResource": "",
                "verbs": ["get"],
            }
            for figure in FIGURES
        ]

    return [
        {
            "resource": parent,
            # Some clients stumble over a resource without one.
            "responseKind": {"group": "", "version": "", "kind": ""},
            "scope": "Namespaced",
            "singularResource": "",
            "verbs": [],
            "subresources": [
                {"subresource": figure, "responseKind": _response(CUSTOM), "verbs": ["get"]}
                for figure in FIGURES
            ],
        }
        for parent in OBJECTS
    ]


def _response(name: str) -> Document:
    return {"group": "", "version": "", "kind": _KINDS[name]}


def _without(document: Document, *names: str) -> Document:
    return {name: value for name, value in document.items() if name not in names}


# -- answers -----------------------------------------------------------------------------------


def external(metric: str, found: Sequence[Value], now: datetime) -> Document:
    """Return values of a metric that belongs to nothing in the cluster. Its reader adds them up."""
    return {
        "kind": _KINDS[EXTERNAL],
        "apiVersion": f"{EXTERNAL}/v1beta1",
        "metadata": {},
        "items": [
            {
                "metricName": metric,
                "metricLabels": {"queue": each.queue},
                "timestamp": _timestamp(now, each.age_s),
                "value": quantity(each.value),
            }
            for each in found
        ],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The object that a value of the custom group is said to belong to."""

    namespace: str
    #: As it stands in the path: ``services``.
    resource: str
    name: str


def custom(  # noqa: PLR0917 - what stands in such a document
    version: str, metric: str, selector: str, described: Described, found: Value, now: datetime
) -> Document:
    """Return the value of a metric of an object."""
    kind, api_version = OBJECTS[described.resource]
    named = (
        {"metricName": metric} if version == "v1beta1" else {"metric": _metric(metric, selector)}
    )
    return {
        "kind": _KINDS[CUSTOM],
        "apiVersion": f"{CUSTOM}/{version}",
        "metadata": {},
        "items": [
            {
                "describedObject": {
                    "kind": kind,
                    "namespace": described.namespace,
                    "name": described.name,
                    "apiVersion": api_version,
                },
                **named,
                "timestamp": _timestamp(now, found.age_s),
                "value": quantity(found.value),
            }
        ],
    }


def quantity(value: float) -> str:
    """Write a number as Kubernetes does: whole, or in thousandths. Never less than it is."""
    whole = round(value)
    return str(whole) if abs(value - whole) < 1e-9 else f"{math.ceil(value * 1000 - 1e-6)}m"


def _metric(name: str, selector: str) -> Document:
    """Return how v1beta2 names a metric: with the labels that it was asked by."""
    equal = dict(re.findall(r"([^\s,=!]+)\s*==?\s*([^\s,]*)", selector))
    return {"name": name, "selector": {"matchLabels": equal}} if equal else {"name": name}


def _timestamp(now: datetime, age_s: float) -> str:
    return (now - timedelta(seconds=age_s)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- refusals ----------------------------------------------------------------------------------

_REASONS: Mapping[int, str] = {
    HTTPStatus.BAD_REQUEST: "BadRequest",
    HTTPStatus.UNAUTHORIZED: "Unauthorized",
    HTTPStatus.FORBIDDEN: "Forbidden",
    HTTPStatus.NOT_FOUND: "NotFound",
    HTTPStatus.METHOD_NOT_ALLOWED: "MethodNotAllowed",
    HTTPStatus.NOT_ACCEPTABLE: "NotAcceptable",
    HTTPStatus.SERVICE_UNAVAILABLE: "ServiceUnavailable",
}


def refusal(status: int, message: str) -> Document:
    """Return why there is no answer."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS.get(status, "InternalError"),
        "code": status,
    }


def listed(names: Iterable[str]) -> str:
    """Write names as people read them."""
    return ", ".join(names) or "none"
