"""Whether everything that is named exists: in the same place, or in a list with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from k8s.check.objects import Fault, Manifest, Place, Pod, labels, namespace_of, selects, where

#: What others bring, and why it is not here: (kind, name) -> who has it.
OTHERS = {
    ("Role", "extension-apiserver-authentication-reader"): "every cluster, in kube-system",
    ("ServiceAccount", "horizontal-pod-autoscaler"): "every cluster, in kube-system",
    ("ClusterSecretStore", "millstream"): "the platform; see components/external-secrets",
    ("ClusterIssuer", "public"): "the platform; see components/cert-manager",
    ("ClusterIssuer", "regions"): "the platform; see components/redis-region",
    ("Secret", "millstream-seal-keys"): "you, once; see components/sealing and docs/security.md",
}
#: Secrets that scripts/k8s_secrets.py makes, for places that hold none in Git.
MADE = {"millstream-redis", "redis-acl"}


@dataclass(frozen=True, slots=True)
class _Named:
    kind: str
    name: str
    keys: tuple[str, ...] = ()
    optional: bool = False


def dangling(place: Place) -> Iterator[Fault]:
    """Everything that a pod names exists, with the keys that it takes."""
    for pod in place.pods():
        for named in _of_pod(pod):
            if said := _missing(place, named):
                yield Fault("dangling", where(pod.owner), said)
    for manifest in place.manifests:
        for named in _of_object(manifest):
            if said := _missing(place, named):
                yield Fault("dangling", where(manifest), said)


def selectors(place: Place) -> Iterator[Fault]:
    """Every selector finds a pod, and every workload finds its own."""
    pods = list(place.pods())
    for pod in pods:
        wanted = pod.owner["spec"].get("selector")
        if wanted and not selects(wanted, pod.labels):
            yield Fault("selectors", where(pod.owner), "its selector does not match its own pods")
    for manifest in place.of("Service", "PodDisruptionBudget", "PodMonitor"):
        found = manifest["spec"].get("selector", {})
        wanted = {"matchLabels": found} if manifest["kind"] == "Service" else found
        if not any(selects(wanted, pod.labels) for pod in pods):
            yield Fault("selectors", where(manifest), "its selector finds no pod")
    yield from _disjoint(pods)


def unread(place: Place) -> Iterator[Fault]:
    """A setting that nobody reads promises what nobody does."""
    for config in place.of("ConfigMap"):
        name = config["metadata"]["name"]
        if labels(config).get("grafana_dashboard"):
            continue
        read = {key for pod in place.pods() for key in _read(pod, name)}
        if "*" not in read and (left := set(config.get("data") or {}) - read):
            yield Fault("unread", where(config), f"nobody reads {', '.join(sorted(left))}")


def accounts(place: Place) -> Iterator[Fault]:
    """Rights are given to what exists, and named one by one."""
    for binding in place.of("RoleBinding", "ClusterRoleBinding"):
        role = binding["roleRef"]
        for kind, name, namespace in [
            (role["kind"], role["name"], None),
            *((each["kind"], each["name"], each.get("namespace")) for each in binding["subjects"]),
        ]:
            if (kind, name) not in OTHERS and not place.find(kind, name, namespace):
                yield Fault("dangling", where(binding), f"there is no {kind} {name}")
    for role in place.of("Role", "ClusterRole"):
        for right in role.get("rules") or []:
            if "*" in [*right.get("verbs", []), *right.get("resources", []), *right["apiGroups"]]:
                yield Fault("rights", where(role), "a right is named, never *")


def _disjoint(pods: list[Pod]) -> Iterator[Fault]:
    for pod in pods:
        for other in pods:
            wanted = other.owner["spec"].get("selector")
            if pod.owner is not other.owner and wanted and selects(wanted, pod.labels):
                said = f"its pods are also selected by {where(other.owner)}"
                yield Fault("selectors", where(pod.owner), said)


def _of_pod(pod: Pod) -> Iterator[_Named]:
    spec = pod.spec
    yield _Named("ServiceAccount", spec.get("serviceAccountName", ""))
    if spec.get("priorityClassName"):
        yield _Named("PriorityClass", spec["priorityClassName"])
    for secret in spec.get("imagePullSecrets", []):
        yield _Named("Secret", secret["name"])
    claimed = {
        each["metadata"]["name"] for each in pod.owner["spec"].get("volumeClaimTemplates", [])
    }
    mountable = claimed | {each["name"] for each in pod.volumes}
    for volume in pod.volumes:
        yield from _of_volume(volume)
    for container in pod.containers:
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in mountable:
                yield _Named("volume", mount["name"])
        yield from _of_environment(container)


def _of_volume(volume: Manifest) -> Iterator[_Named]:
    if config := volume.get("configMap"):
        yield _Named("ConfigMap", config["name"], _items(config), config.get("optional", False))
    if secret := volume.get("secret"):
        optional = secret.get("optional", False)
        yield _Named("Secret", secret["secretName"], _items(secret), optional)
    if claim := volume.get("persistentVolumeClaim"):
        yield _Named("PersistentVolumeClaim", claim["claimName"])


def _of_environment(container: Manifest) -> Iterator[_Named]:
    for source in container.get("envFrom", []):
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if found := source.get(key):
                yield _Named(kind, found["name"], (), found.get("optional", False))
    for variable in container.get("env", []):
        for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            if found := variable.get("valueFrom", {}).get(key):
                yield _Named(kind, found["name"], (found["key"],), found.get("optional", False))


def _of_object(manifest: Manifest) -> Iterator[_Named]:
    spec = manifest.get("spec") or {}
    if manifest["kind"] in {"HorizontalPodAutoscaler", "ScaledObject"}:
        yield _Named(
            spec["scaleTargetRef"].get("kind", "Deployment"), spec["scaleTargetRef"]["name"]
        )
    if manifest["kind"] == "APIService":
        yield _Named("Service", spec["service"]["name"])
    if manifest["kind"] == "StatefulSet":
        yield _Named("Service", spec["serviceName"])
    if manifest["kind"] == "ExternalSecret":
        yield _Named(spec["secretStoreRef"]["kind"], spec["secretStoreRef"]["name"])
    if manifest["kind"] == "Certificate":
        yield _Named(spec["issuerRef"]["kind"], spec["issuerRef"]["name"])
    if manifest["kind"] == "Issuer" and "ca" in spec:
        yield _Named("Secret", spec["ca"]["secretName"])
    for server in spec.get("servers", []) if manifest["kind"] == "Gateway" else []:
        if credential := server.get("tls", {}).get("credentialName"):
            yield _Named("credential", credential)


def _missing(place: Place, named: _Named) -> str | None:
    if named.optional or (named.kind, named.name) in OTHERS:
        return None
    if named.kind == "Secret":
        return _missing_secret(place, named)
    if named.kind == "credential":
        # The ingress gateway looks for it in its own namespace.
        held = {"istio-system"} & {namespace_of(each) for each in _secrets(place, named.name)}
        return None if held else f"there is no Secret {named.name} in istio-system"
    found = place.find(named.kind, named.name)
    if found is None:
        claim = named.kind == "PersistentVolumeClaim" and _claimed(place, named.name)
        return None if claim else f"there is no {named.kind} {named.name or '(no name)'}"
    absent = set(named.keys) - set(found.get("data") or {}) if named.keys else set()
    return f"{named.kind} {named.name} has no key {min(absent)}" if absent else None


def _missing_secret(place: Place, named: _Named) -> str | None:
    for secret in _secrets(place, named.name):
        known = _keys_of(secret)
        if known is not None and (absent := set(named.keys) - known):
            return f"Secret {named.name} has no key {min(absent)}"
        return None
    return None if named.name in MADE else f"there is no Secret {named.name}"


def _secrets(place: Place, name: str) -> Iterator[Manifest]:
    """Return what ends up as a Secret of this name."""
    for each in place.of("Secret", "SealedSecret", "ExternalSecret", "Certificate"):
        spec = each.get("spec", {})
        made = {
            "ExternalSecret": spec.get("target", {}).get("name"),
            "Certificate": spec.get("secretName"),
        }.get(each["kind"], each["metadata"]["name"])
        if made == name:
            yield each


def _keys_of(secret: Manifest) -> set[str] | None:
    match secret["kind"]:
        case "Secret":
            return {*(secret.get("data") or {}), *(secret.get("stringData") or {})}
        case "SealedSecret":
            return set(secret["spec"]["encryptedData"])
        case "Certificate":
            return {"tls.crt", "tls.key", "ca.crt"}
        case _:
            if "data" not in secret["spec"]:
                return None
            return {each["secretKey"] for each in secret["spec"]["data"]}


def _claimed(place: Place, name: str) -> bool:
    """Whether a StatefulSet makes this claim for one of its pods."""
    return any(
        name.startswith(f"{template['metadata']['name']}-{each['metadata']['name']}-")
        for each in place.of("StatefulSet")
        for template in each["spec"].get("volumeClaimTemplates", [])
    )


def _items(source: Manifest) -> tuple[str, ...]:
    return tuple(item["key"] for item in source.get("items") or [])


def _read(pod: Pod, name: str) -> Iterator[str]:
    for volume in pod.volumes:
        if volume.get("configMap", {}).get("name") == name:
            yield from _items(volume["configMap"]) or ("*",)
    for container in pod.containers:
        for source in container.get("envFrom", []):
            if source.get("configMapRef", {}).get("name") == name:
                # Which of them mean something is the business of `programs.settings`.
                yield "*"
        for variable in container.get("env", []):
            found: dict[str, Any] = variable.get("valueFrom", {}).get("configMapKeyRef", {})
            if found.get("name") == name:
                yield found["key"]
