"""What every pod template has, and why: the list that a reviewer would go through by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator

from k8s.check.objects import Fault, Manifest, Place, Pod, labels, selects, where
from k8s.check.quantities import quantity

#: Lowest user that no image has by itself.
_LOWEST_USER = 10_000
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
#: The one image that is built where it runs, and the one place that may.
LOCAL_IMAGE, LOCAL_PLACES = "millstream:dev", ("dev",)


def hardened(place: Place) -> Iterator[Fault]:
    """Pod Security "restricted", a root that cannot be written, and no token nobody needs."""
    for pod in place.pods():
        at = where(pod.owner)
        context = pod.spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or context.get("runAsUser", 0) < _LOWEST_USER:
            yield Fault(
                "hardened", at, f"it runs as a number of {_LOWEST_USER} or more, and not as root"
            )
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield Fault("hardened", at, "its seccomp profile is RuntimeDefault")
        if pod.spec.get("enableServiceLinks") is not False:
            yield Fault("hardened", at, "enableServiceLinks is false")
        for container in pod.containers:
            yield from _hardened_container(at, container)


def _hardened_container(at: str, container: Manifest) -> Iterator[Fault]:
    context = container.get("securityContext", {})
    for key, wanted in (("allowPrivilegeEscalation", False), ("readOnlyRootFilesystem", True)):
        if context.get(key) is not wanted:
            yield Fault("hardened", at, f"{container['name']}: {key} is {str(wanted).lower()}")
    if context.get("capabilities", {}).get("drop") != ["ALL"]:
        yield Fault("hardened", at, f"{container['name']}: it drops all capabilities")


def tokens(place: Place) -> Iterator[Fault]:
    """A pod has the token of its account only when that account has a right."""
    granted = {
        subject["name"]
        for binding in place.of("RoleBinding", "ClusterRoleBinding")
        for subject in binding["subjects"]
    }
    for pod in place.pods():
        mounted = pod.spec.get("automountServiceAccountToken", True)
        needed = pod.spec.get("serviceAccountName") in granted
        if mounted and not needed:
            yield Fault("tokens", where(pod.owner), "it mounts a token that has no right")
        if needed and not mounted:
            yield Fault("tokens", where(pod.owner), "its account has rights, and it has no token")


def sized(place: Place) -> Iterator[Fault]:
    """Memory is bounded by what was asked for; CPU is asked for and not bounded."""
    for pod in place.pods():
        for container in pod.containers:
            at = f"{where(pod.owner)} {container['name']}"
            resources = container.get("resources", {})
            asked, bound = resources.get("requests", {}), resources.get("limits", {})
            if "cpu" not in asked or "memory" not in asked or "memory" not in bound:
                yield Fault("sized", at, "it asks for CPU and memory, and bounds memory")
            elif place.name not in LOCAL_PLACES and quantity(asked["memory"]) != quantity(
                bound["memory"]
            ):
                yield Fault(
                    "sized", at, "its memory limit is its request: memory is not given back"
                )
            if "cpu" in bound:
                yield Fault("sized", at, "a CPU limit throttles an event loop and spares nobody")
            yield from _sized_device(at, pod, asked, bound)


def _sized_device(at: str, pod: Pod, asked: Manifest, bound: Manifest) -> Iterator[Fault]:
    device = "nvidia.com/gpu"
    if device not in {*asked, *bound}:
        return
    if asked.get(device) != bound.get(device):
        yield Fault("devices", at, "it asks for as many devices as it is bounded to")
    if not any(each.get("key") == device for each in pod.spec.get("tolerations", [])):
        yield Fault("devices", at, f"it tolerates the taint {device} of the nodes with devices")
    if not pod.spec.get("nodeSelector"):
        yield Fault("devices", at, "it selects the nodes that have devices")


def available(place: Place) -> Iterator[Fault]:
    """What stays is spread, budgeted and ranked, and is rolled out without a gap."""
    budgets = place.of("PodDisruptionBudget")
    for pod in place.pods():
        if not pod.spec.get("priorityClassName"):
            yield Fault("available", where(pod.owner), "it has a priority class")
        if not pod.long_running:
            continue
        if not any(selects(each["spec"]["selector"], pod.labels) for each in budgets):
            yield Fault("available", where(pod.owner), "it has a PodDisruptionBudget")
        if pod.owner["kind"] == "Deployment":
            yield from _rolls_out(pod)


def _rolls_out(pod: Pod) -> Iterator[Fault]:
    at, spec = where(pod.owner), pod.owner["spec"]
    if not pod.spec.get("topologySpreadConstraints"):
        yield Fault("available", at, "it is spread over zones and nodes")
    if spec.get("strategy", {}).get("rollingUpdate", {}).get("maxUnavailable") != 0:
        yield Fault("available", at, "a rollout takes no pod away before the next is ready")
    claims = [each for each in pod.volumes if "persistentVolumeClaim" in each]
    if any(not each["persistentVolumeClaim"].get("readOnly") for each in claims):
        said = "a rollout starts a second writer on its volume: that is a StatefulSet"
        yield Fault("volumes", at, said)


def images(place: Place) -> Iterator[Fault]:
    """An image is named by its digest: what was tested is what runs."""
    for pod in place.pods():
        for container in pod.containers:
            image = container["image"]
            local = image == LOCAL_IMAGE and place.name in LOCAL_PLACES
            if not local and not _DIGEST.search(image):
                yield Fault("images", where(pod.owner), f"{image} is not named by its digest")


def labelled(place: Place) -> Iterator[Fault]:
    """The labels that every tool knows, and none of the old ones."""
    for pod in place.pods():
        for name in ("name", "component", "part-of"):
            if f"app.kubernetes.io/{name}" not in pod.labels:
                yield Fault("labelled", where(pod.owner), f"its pods have app.kubernetes.io/{name}")
    for manifest in place.manifests:
        if "app" in labels(manifest):
            yield Fault("labelled", where(manifest), "`app` says nothing: app.kubernetes.io/name")
