"""Whether a Redis of ours keeps what it acknowledged, as its own configuration says."""

from __future__ import annotations

import re
from collections.abc import Iterator

from k8s.check.objects import Fault, Manifest, Place, Pod, where
from k8s.check.quantities import quantity, redis_bytes

_REQUIRED = {
    "appendonly": ("yes", "a restart forgets every run"),
    "maxmemory-policy": ("noeviction", "an evicted stream is lost work"),
}
#: Rewriting the append-only file copies every page that changes meanwhile.
_ROOM = 0.75


def durable(place: Place) -> Iterator[Fault]:
    """It writes before it forgets, refuses before it evicts, and knows its users from a file."""
    for pod in place.pods():
        for container in pod.containers:
            line = [*container.get("command", []), *container.get("args", [])]
            if "redis-server" in line:
                yield from _durable(place, pod, container, line)


def settings(text: str) -> dict[str, str]:
    """Return what a redis.conf sets; of repeated lines the last."""
    lines = (line.split(None, 1) for line in text.splitlines() if line and line[0] != "#")
    return {line[0].lower(): line[1].strip() for line in lines if len(line) == 2}


def users(text: str) -> dict[str, list[str]]:
    """Return the users of an ACL file with their rules."""
    return {
        words[1]: words[2:] for words in map(str.split, text.splitlines()) if words[:1] == ["user"]
    }


def _durable(place: Place, pod: Pod, container: Manifest, line: list[str]) -> Iterator[Fault]:
    at = where(pod.owner)
    if pod.owner["kind"] != "StatefulSet":
        yield Fault("durable", at, "a store is a StatefulSet: one pod, one volume, one name")
    if any(word.startswith("--requirepass") for word in line):
        yield Fault("secrets", at, "a password in its command line shows in the list of processes")
    found = settings(_config(place, pod, line))
    for name, (wanted, why) in _REQUIRED.items():
        if found.get(name) != wanted:
            yield Fault("durable", at, f"{name} is {wanted}, or {why}")
    if "aclfile" not in found:
        yield Fault("durable", at, "its users stand in an ACL file")
    limit = quantity(container["resources"]["limits"]["memory"])
    bound = redis_bytes(found.get("maxmemory", "0"))
    if not 0 < bound <= float(limit) * _ROOM:
        said = f"maxmemory is set, and leaves a quarter of {limit:.0f} bytes for rewriting"
        yield Fault("durable", at, said)
    grace = pod.spec.get("terminationGracePeriodSeconds", 30)
    if grace <= int(found.get("shutdown-timeout", 10)):
        yield Fault("drains", at, "it is killed before it has written everything")


def configuration(place: Place, pod: Pod) -> dict[str, str]:
    """Return what the Redis of a pod is told, with everything that its file includes."""
    line = [word for each in pod.containers for word in each.get("args", [])]
    return settings(_config(place, pod, line))


def _config(place: Place, pod: Pod, line: list[str]) -> str:
    """Return the configuration file that the command names, from what is mounted."""
    path = next((word for word in line if re.search(r"\.conf$", word)), "")
    return _expanded(place, pod, path)


def _expanded(place: Place, pod: Pod, path: str) -> str:
    """Return a file with what it includes in its place; a Secret and a pattern stay unknown."""
    lines = []
    for line in _mounted(place, pod, path).splitlines():
        words = line.split()
        if words[:1] == ["include"] and words[1:] != [path]:
            lines.append(_expanded(place, pod, words[1]))
        lines.append(line)
    return "\n".join(lines)


def _mounted(place: Place, pod: Pod, path: str) -> str:
    for container in pod.containers:
        for mount in container.get("volumeMounts", []):
            if path.startswith(mount["mountPath"] + "/"):
                volume = next((x for x in pod.volumes if x["name"] == mount["name"]), {})
                config = place.find("ConfigMap", volume.get("configMap", {}).get("name", ""))
                key = path.removeprefix(mount["mountPath"] + "/")
                return str(((config or {}).get("data") or {}).get(key, ""))
    return ""
