"""Whether the Redis of a region replicates in a way that survives a change of regions.

What is judged is one region. That the two know each other under the same names is a matter of both
overlays, and has a test.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from k8s.check.objects import Fault, Manifest, Place, Pod, selects, where
from k8s.check.store import configuration, settings

#: What makes a link between regions private, and a master that was left behind harmless.
_REQUIRED = {
    "port": ("0", "somebody speaks without TLS"),
    "tls-replication": ("yes", "everything crosses the network in the clear"),
    "min-replicas-to-write": ("1", "a master that was left behind goes on writing"),
}
#: Of --fence in docs/deploy.md.
_FENCE_S = 10
#: Where it finds out what it was when it last ran: on its volume.
_ROLE = "/data/role/*.conf"


def replicated(place: Place) -> Iterator[Fault]:
    """It is encrypted, fenced, known by a name, and still itself after a restart."""
    for pod in _paired(place):
        at, told = where(pod.owner), configuration(place, pod)
        for name, (wanted, why) in _REQUIRED.items():
            if told.get(name) != wanted:
                yield Fault("replicated", at, f"{name} is {wanted}, or {why}")
        if not 0 < int(told.get("min-replicas-max-lag", 10)) <= _FENCE_S:
            said = f"min-replicas-max-lag is at most the {_FENCE_S} s that a failover waits"
            yield Fault("replicated", at, said)
        if told.get("include") != _ROLE:
            said = f"the last it includes is {_ROLE}: a restart forgets who is the master"
            yield Fault("replicated", at, said)
        if "replicaof" in told:
            said = "replicaof is for the role file: a restart makes the new master a replica"
            yield Fault("replicated", at, said)
        announced = told.get("replica-announce-ip")
        if not announced:
            said = "replica-announce-ip is its name; the master would call it by a node's address"
            yield Fault("replicated", at, said)
        elif announced not in _certified(place):
            yield Fault("replicated", at, f"its certificate does not say {announced}")
        if announced == _peer(place, pod):
            yield Fault("replicated", at, "it is a replica of itself")


def let_in(place: Place) -> Iterator[Fault]:
    """A store is open to the network of the other region, at the door and the pod, and no other."""
    pods = list(_paired(place))
    doors = [each for each in place.of("Service") if each["spec"].get("type") == "LoadBalancer"]
    for door in doors:
        led = [
            pod for pod in pods if selects({"matchLabels": door["spec"]["selector"]}, pod.labels)
        ]
        if not led:
            continue
        ranges = set(door["spec"].get("loadBalancerSourceRanges", []))
        if not ranges or any(ipaddress.ip_network(each).prefixlen < 8 for each in ranges):
            yield Fault("let-in", where(door), "it lets everybody in: loadBalancerSourceRanges")
        if door["spec"].get("externalTrafficPolicy") != "Local":
            said = "externalTrafficPolicy is Local: no policy knows a sender with a node's address"
            yield Fault("let-in", where(door), said)
        for pod in led:
            if ranges != (found := _blocks(place, pod)):
                said = f"its pods let in {sorted(found)}, and it lets in {sorted(ranges)}"
                yield Fault("let-in", where(door), said)


def _paired(place: Place) -> Iterator[Pod]:
    for pod in place.pods():
        line = [word for each in pod.containers for word in each.get("args", [])]
        if "redis-server" in line and _peer(place, pod):
            yield pod


def _peer(place: Place, pod: Pod) -> str | None:
    """Return what the other region is called, from any file that the pod has."""
    names = [each.get("configMap", {}).get("name") for each in pod.volumes]
    files = [
        text
        for each in place.of("ConfigMap")
        if each["metadata"]["name"] in names
        for text in each["data"].values()
    ]
    told = [settings(text).get("replicaof", "").split() for text in files]
    return next((words[0] for words in told if words), None)


def _certified(place: Place) -> set[str]:
    return {name for each in place.of("Certificate") for name in each["spec"].get("dnsNames", [])}


def _blocks(place: Place, pod: Pod) -> set[str]:
    """Return the networks that the policies of a pod let in."""
    policies = [
        each
        for each in place.of("NetworkPolicy")
        if selects(each["spec"]["podSelector"], pod.labels)
    ]
    return {block for each in policies for block in _of_policy(each)}


def _of_policy(policy: Manifest) -> Iterator[str]:
    for way in policy["spec"].get("ingress") or []:
        for peer in way.get("from", []):
            if "ipBlock" in peer:
                yield peer["ipBlock"]["cidr"]
