"""Whether an autoscaler can do what it is for: known metrics, served, as averages, both ways."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from k8s.check.objects import Fault, Manifest, Place, where
from k8s.check.programs import processes
from k8s.check.quantities import quantity
from millstream.telemetry.metrics import TABLE

#: Python gives little memory back: a lower mark keeps a fleet from ever shrinking.
_MEMORY_GUARD = 85
_GROUPS = {
    "Object": "custom.metrics.k8s.io",
    "Pods": "custom.metrics.k8s.io",
    "External": "external.metrics.k8s.io",
}
#: What the simulation of an autoscaler found best.
_RECOMMENDED = Path(__file__).parents[2] / "benchmarks" / "autoscaling" / "recommended.json"
_MOVES_OTHERWISE = "copy its behavior from benchmarks/autoscaling/recommended.json"
_NAME = re.compile(r"\b(?:millstream|active|workflow|mcp|a2a|http|agent)_[a-z0-9_]+\b")


def autoscalers(place: Place) -> Iterator[Fault]:
    """Each metric exists, is served here, and is an average."""
    for scaler in place.of("HorizontalPodAutoscaler"):
        for metric in scaler["spec"]["metrics"]:
            for said in _metric(place, metric):
                yield Fault("autoscalers", where(scaler), said)
        yield from _bounds(scaler)


def owned(place: Place) -> Iterator[Fault]:
    """The number of pods has one owner."""
    scaled = [
        each["spec"]["scaleTargetRef"]["name"]
        for each in place.of("HorizontalPodAutoscaler", "ScaledObject")
    ]
    for deployment in place.of("Deployment"):
        name = deployment["metadata"]["name"]
        if name in scaled and "replicas" in deployment["spec"]:
            said = "an autoscaler owns its number: with `replicas` each apply would reset it"
            yield Fault("owned", where(deployment), said)
        if scaled.count(name) > 1:
            yield Fault("owned", where(deployment), "two autoscalers would pull at it")
        if name not in scaled and "replicas" not in deployment["spec"]:
            yield Fault("owned", where(deployment), "nobody says how many there are")


def queries(place: Place) -> Iterator[Fault]:
    """What is asked of Prometheus exists, and not known is not zero."""
    for scaler in place.of("ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            given = trigger["metadata"]
            for name in _NAME.findall(given.get("query", "")):
                if name not in known():
                    yield Fault("autoscalers", where(scaler), f"{name} is no metric of ours")
            if trigger["type"] == "prometheus" and given.get("ignoreNullValues") != "false":
                said = "an absent metric would count as zero, and scale in"
                yield Fault("autoscalers", where(scaler), said)


def concurrency(place: Place) -> Iterator[Fault]:
    """A pod is counted for less than it can hold: the rest is what bursts are met with."""
    held = {
        process.pod.owner["metadata"]["name"]: int(process.environment["MILLSTREAM_CONCURRENCY"])
        for process in processes(place)
        if "MILLSTREAM_CONCURRENCY" in process.environment
    }
    for scaler in place.of("HorizontalPodAutoscaler"):
        slots = held.get(scaler["spec"]["scaleTargetRef"]["name"])
        for metric in scaler["spec"]["metrics"]:
            target = metric.get("external", metric.get("object", {})).get("target", {})
            if slots and "averageValue" in target and int(target["averageValue"]) > slots:
                said = f"a pod holds {slots} runs, and is counted for {target['averageValue']}"
                yield Fault("autoscalers", where(scaler), said)


def known() -> set[str]:
    """Return the names of all metrics."""
    return {row.name for row in TABLE}


def _metric(place: Place, metric: Manifest) -> Iterator[str]:
    kind = metric["type"]
    if kind == "Resource":
        resource = metric["resource"]
        mark = resource["target"].get("averageUtilization", 0)
        if resource["name"] == "memory" and mark < _MEMORY_GUARD:
            yield f"memory at {mark} % of the request never falls again; it is a guard only"
        return
    if kind not in _GROUPS:
        return
    body = metric[kind.lower()]
    name = body["metric"]["name"]
    if name not in known():
        yield f"{name} is no metric of ours"
    if body["target"]["type"] != "AverageValue":
        yield f"{name}: `Value` is multiplied by the pods that there are; take AverageValue"
    if kind == "Pods":
        yield f"{name}: what each pod holds is full at its own bound; take the queue's demand"
    served = {each["spec"]["group"] for each in place.of("APIService")}
    if _GROUPS[kind] not in served and not place.of("ScaledObject"):
        yield f"{name}: nobody here serves {_GROUPS[kind]}, and an unknown metric stops scaling in"


def _bounds(scaler: Manifest) -> Iterator[Fault]:
    spec = scaler["spec"]
    if spec["minReplicas"] > spec["maxReplicas"]:
        yield Fault("autoscalers", where(scaler), "its least is more than its most")
    if spec["minReplicas"] == 0:
        kinds = {metric["type"] for metric in spec["metrics"]}
        policies = spec.get("behavior", {}).get("scaleUp", {}).get("policies", [])
        if not kinds & {"External", "Object"}:
            yield Fault("autoscalers", where(scaler), "at zero pods only a queue can be measured")
        if policies and not any(each["type"] == "Pods" for each in policies):
            yield Fault("autoscalers", where(scaler), "a percentage of zero pods is none")
    window = spec.get("behavior", {}).get("scaleUp", {}).get("stabilizationWindowSeconds", 0)
    if window:
        said = f"it waits {window} s before it grows, while runs wait"
        yield Fault("autoscalers", where(scaler), said)


def recommended(place: Place) -> Iterator[Fault]:
    """The fleet moves as the simulation found best, where there is one to ask."""
    if not _RECOMMENDED.exists():
        return
    wanted = json.loads(_RECOMMENDED.read_text("utf-8"))
    for scaler in place.of("ScaledObject"):
        advanced = scaler["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
        if advanced["behavior"] != wanted["behavior"]:
            yield Fault("recommended", where(scaler), _MOVES_OTHERWISE)
    for scaler in place.of("HorizontalPodAutoscaler"):
        if scaler["metadata"]["name"] != "millstream-worker":
            continue
        if scaler["spec"]["behavior"] != wanted["behavior"]:
            yield Fault("recommended", where(scaler), _MOVES_OTHERWISE)
        for metric in scaler["spec"]["metrics"]:
            target = metric.get("external", metric.get("object", {})).get("target")
            planned = round(_slots(place, scaler) * wanted["headroom"])
            if target and target.get("averageValue") != str(planned):
                said = f"a pod is planned with {planned} runs: averageValue is {planned}"
                yield Fault("recommended", where(scaler), said)


def _slots(place: Place, scaler: Manifest) -> int:
    name = scaler["spec"]["scaleTargetRef"]["name"]
    (process,) = (x for x in processes(place) if x.pod.owner["metadata"]["name"] == name)
    return int(process.environment.get("MILLSTREAM_CONCURRENCY", 100))


def described(place: Place) -> Iterator[Fault]:
    """The object of a metric exists."""
    for scaler in place.of("HorizontalPodAutoscaler"):
        for metric in scaler["spec"]["metrics"]:
            named = metric.get("object", {}).get("describedObject")
            if named and not place.find(named["kind"], named["name"]):
                yield Fault(
                    "dangling", where(scaler), f"there is no {named['kind']} {named['name']}"
                )


def quota(place: Place) -> Iterator[Fault]:
    """The quota says what it can mean, what has no number gets one, and the fleet fits into it."""
    for each in place.of("ResourceQuota"):
        hard = each["spec"]["hard"]
        for name in hard:
            resource = name.removeprefix("limits.")
            if name.startswith("limits.") and "/" in resource:
                said = f"{name}: of an extended resource only requests.{resource} is counted"
                yield Fault("quota", where(each), said)
        bounded = any(name.startswith(("requests.", "limits.")) for name in hard)
        if bounded and not place.of("LimitRange"):
            yield Fault(
                "quota", where(each), "a pod that names no numbers is refused: add a LimitRange"
            )
        if "limits.cpu" in hard:
            yield Fault("quota", where(each), "then every pod needs a CPU limit, and is throttled")
        yield from _fits(place, each, hard)


def _fits(place: Place, quota_: Manifest, hard: Manifest) -> Iterator[Fault]:
    most = {
        each["spec"]["scaleTargetRef"]["name"]: each["spec"].get(
            "maxReplicas", each["spec"].get("maxReplicaCount")
        )
        for each in place.of("HorizontalPodAutoscaler", "ScaledObject")
    }
    for name in ("cpu", "memory", "nvidia.com/gpu"):
        total = sum(
            quantity(container.get("resources", {}).get("requests", {}).get(name, 0))
            * most.get(pod.owner["metadata"]["name"], pod.owner["spec"].get("replicas", 1))
            for pod in place.pods()
            for container in pod.containers
        )
        bound = hard.get(f"requests.{name}")
        if bound is not None and total > quantity(bound):
            said = f"the fleet at its largest asks for {total} of {name}, and {bound} are granted"
            yield Fault("quota", where(quota_), said)
