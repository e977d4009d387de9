"""Who may reach whom, what the mesh is told, and what no manifest should say any more."""

from __future__ import annotations

from collections.abc import Iterator

from k8s.check.objects import (
    Fault,
    Manifest,
    Place,
    Pod,
    annotations_of,
    labels,
    selects,
    strings,
    where,
)

#: The one place that may delay and refuse requests on purpose.
FAULTY_PLACES = ("fault-tests", "istio-faults")
_MARKS = (
    # (what a manifest says, why it should not)
    (":14268", "the exporters of Jaeger are gone: send OTLP to port 4318"),
    ("insecureSkipTLSVerify", "an API without an authority can be anybody's"),
)
_OLD_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/node-selector": "read by a plugin that is off; use nodeSelector",
    "kubernetes.io/service-account.name": "means something on a token of an account only",
    "kubernetes.io/managed-by": "the label is app.kubernetes.io/managed-by",
}
_OLD_VERSIONS = ("v1alpha3", "v1beta1")


def isolated(place: Place) -> Iterator[Fault]:
    """Everything is denied in both directions, and each pod has its ways."""
    policies = place.of("NetworkPolicy")
    closed = [each for each in policies if not each["spec"]["podSelector"]]
    both = {"Ingress", "Egress"}
    if not any(set(each["spec"]["policyTypes"]) == both and _silent(each) for each in closed):
        yield Fault("isolated", f"Place/{place.name}", "there is no policy that denies everything")
    for policy in policies:
        pods = [pod for pod in place.pods() if selects(policy["spec"]["podSelector"], pod.labels)]
        if not pods:
            yield Fault("isolated", where(policy), "it selects no pod")
        yield from _known_ports(policy, pods)


def namespaces(place: Place) -> Iterator[Fault]:
    """The namespace enforces what the pods keep to."""
    for namespace in place.of("Namespace"):
        if labels(namespace).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield Fault("namespaces", where(namespace), "Pod Security enforces `restricted`")
    for manifest in place.manifests:
        if manifest["metadata"].get("namespace") == "default":
            yield Fault("namespaces", where(manifest), "it is in the namespace `default`")


def outdated(place: Place) -> Iterator[Fault]:
    """What other times needed."""
    for manifest in place.manifests:
        for name in annotations_of(manifest):
            if name in _OLD_ANNOTATIONS:
                yield Fault("outdated", where(manifest), f"{name}: {_OLD_ANNOTATIONS[name]}")
        group, _, version = manifest["apiVersion"].partition("/")
        if group.endswith("istio.io") and version in _OLD_VERSIONS:
            yield Fault("outdated", where(manifest), f"{group} is at v1")
        text = [*strings(manifest), *_keys(manifest)]
        for mark, why in _MARKS:
            if any(mark in each for each in text):
                yield Fault("outdated", where(manifest), f"{mark}: {why}")


def secrets(place: Place) -> Iterator[Fault]:
    """A secret is a file of whoever needs it: not in Git, an environment or a command line."""
    for secret in place.of("Secret"):
        yield Fault("secrets", where(secret), "its value stands in Git")
    for pod in place.pods():
        for container in pod.containers:
            yield from _secret_uses(where(pod.owner), container)


def mesh(place: Place) -> Iterator[Fault]:
    """The door leads somewhere, everything is encrypted, and nothing is broken on purpose."""
    services = place.of("VirtualService")
    for gateway in place.of("Gateway"):
        hosts = {host for server in gateway["spec"]["servers"] for host in server["hosts"]}
        name = gateway["metadata"]["name"]
        bound = [each for each in services if name in each["spec"].get("gateways", [])]
        if not any(hosts & set(each["spec"]["hosts"]) for each in bound):
            yield Fault(
                "mesh", where(gateway), "no VirtualService is bound to it by one of its hosts"
            )
    for service in services:
        yield from _routes(place, service)
    for rule in place.of("DestinationRule"):
        yield from _traffic(rule)
    if place.of("VirtualService", "Gateway", "DestinationRule"):
        modes = [
            each["spec"].get("mtls", {}).get("mode") for each in place.of("PeerAuthentication")
        ]
        if "STRICT" not in modes:
            yield Fault(
                "mesh", f"Place/{place.name}", "no PeerAuthentication makes mutual TLS STRICT"
            )
        if not any(each["spec"] == {} for each in place.of("AuthorizationPolicy")):
            yield Fault("mesh", f"Place/{place.name}", "no AuthorizationPolicy denies by default")


def scraped(place: Place) -> Iterator[Fault]:
    """Each pod is scraped once, where its metrics are."""
    monitors = [each["spec"]["selector"] for each in place.of("PodMonitor")]
    for pod in place.pods():
        told = annotations_of(pod.template)
        if told.get("prometheus.io/scrape") != "true":
            continue
        ports = {
            str(port["containerPort"])
            for each in pod.containers
            for port in each.get("ports", [])
            if port["name"] == "metrics"
        }
        if told.get("prometheus.io/port") not in ports:
            said = f"its metrics are not on port {told.get('prometheus.io/port')}"
            yield Fault("scraped", where(pod.owner), said)
        if any(selects(each, pod.labels) for each in monitors):
            yield Fault("scraped", where(pod.owner), "it is scraped twice: every sum counts double")


def _silent(policy: Manifest) -> bool:
    return not policy["spec"].get("ingress") and not policy["spec"].get("egress")


def _known_ports(policy: Manifest, pods: list[Pod]) -> Iterator[Fault]:
    """A way in leads to a port that somebody listens on."""
    for way in policy["spec"].get("ingress") or []:
        for port in way.get("ports", []):
            if pods and not any(port["port"] in _listening(pod) for pod in pods):
                yield Fault(
                    "isolated", where(policy), f"no pod that it selects has port {port['port']}"
                )


def _listening(pod: Pod) -> set[int]:
    return {port["containerPort"] for each in pod.containers for port in each.get("ports", [])}


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield str(key)
            yield from _keys(each)
    elif isinstance(value, list):
        for each in value:
            yield from _keys(each)


def _secret_uses(at: str, container: Manifest) -> Iterator[Fault]:
    taken = {
        variable["name"]
        for variable in container.get("env", [])
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    for name in sorted(taken):
        yield Fault("secrets", at, f"{name}: an environment is inherited and shown; mount a file")
    for source in container.get("envFrom", []):
        if "secretRef" in source:
            yield Fault("secrets", at, "a whole Secret in the environment: mount what is needed")
    line = " ".join([*container.get("command", []), *container.get("args", [])])
    for name in sorted(taken):
        if f"$({name})" in line:
            yield Fault("secrets", at, f"{name} shows in the list of processes")


def _routes(place: Place, service: Manifest) -> Iterator[Fault]:
    for route in service["spec"].get("http", []):
        if "fault" in route and place.name not in FAULTY_PLACES:
            yield Fault("mesh", where(service), "it delays or refuses requests on purpose")
        for each in route.get("route", []):
            destination = each["destination"]
            name = destination["host"].partition(".")[0]
            found = place.find("Service", name)
            numbers = {port["port"] for port in found["spec"]["ports"]} if found else set()
            if destination.get("port", {}).get("number") not in numbers:
                yield Fault("mesh", where(service), f"{destination['host']} has no such port")


def _traffic(rule: Manifest) -> Iterator[Fault]:
    policy = rule["spec"].get("trafficPolicy", {})
    if policy.get("loadBalancer", {}).get("simple") == "LEAST_CONN":
        yield Fault("mesh", where(rule), "LEAST_CONN is LEAST_REQUEST now")
    if "maxRequestsPerConnection" in policy.get("connectionPool", {}).get("http", {}):
        said = "maxRequestsPerConnection ends connections that HTTP/2 would keep"
        yield Fault("mesh", where(rule), said)
    if "outlierDetection" not in policy:
        yield Fault("mesh", where(rule), "it has no outlierDetection: that is the circuit breaker")
