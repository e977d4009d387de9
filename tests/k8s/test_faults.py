"""Each fault that deployments of this kind are known for, put in one at a time, is found.

They are the faults of a widely read course on deploying agents; docs/deploy.md lists them with what
is done instead. A rule that finds nothing wrong in a sound place is shown by the first test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from k8s.check import prometheus, schemas
from k8s.check.objects import Fault, Manifest, Place, Pod, where
from k8s.check.render import targets
from k8s.check.rules import judged

pytestmark = pytest.mark.k8s

DEV, PRODUCTION = "dev", "production"
_FAULTS: list[Any] = []


@dataclass(frozen=True)
class Seeded:
    """A way to break a place, and the rule that must say so."""

    place: str
    rule: str
    breaks: Callable[[Place], None]


def fault(number: int, place: str, rule: str) -> Callable[[Callable[[Place], None]], None]:
    """Register a fault under its number in docs/deploy.md."""

    def register(breaks: Callable[[Place], None]) -> None:
        name = f"{number:02}-{breaks.__name__}"
        _FAULTS.append(pytest.param(Seeded(place, rule, breaks), id=name))

    return register


def get(place: Place, kind: str, name: str = "") -> Manifest:
    """Return an object; without a name the first of its kind."""
    found = place.find(kind, name) if name else place.of(kind)[0]
    assert found is not None, f"there is no {kind} {name}"
    return found


def pod(place: Place, name: str) -> Pod:
    """Return the pods of a workload."""
    return next(each for each in place.pods() if each.owner["metadata"]["name"] == name)


def container(place: Place, name: str) -> Manifest:
    """Return the first container of a workload."""
    return pod(place, name).containers[0]


@pytest.mark.parametrize("name", [target.name for target in targets()])
def test_every_place_is_sound(name: str, place: Callable[[str], Place]) -> None:
    """What is shipped passes every rule, alone and together."""
    assert [str(each) for each in judged(place(name))] == []


def test_every_fault_of_the_list_is_put_in() -> None:
    """29 are listed; one that no test puts in would be believed to be found."""
    numbers = {int(each.id.partition("-")[0]) for each in _FAULTS}

    assert numbers == set(range(1, 30))


# -- the mesh ----------------------------------------------------------------------------------


@fault(1, PRODUCTION, "schema")
def circuit_breaker(place: Place) -> None:
    policy = get(place, "DestinationRule")["spec"]["trafficPolicy"]
    policy["circuitBreaker"] = {"consecutiveErrors": 5, **policy.pop("outlierDetection")}


@fault(1, PRODUCTION, "mesh")
def no_outlier_detection(place: Place) -> None:
    del get(place, "DestinationRule")["spec"]["trafficPolicy"]["outlierDetection"]


@fault(2, PRODUCTION, "mesh")
def least_conn(place: Place) -> None:
    policy = get(place, "DestinationRule")["spec"]["trafficPolicy"]
    policy["loadBalancer"]["simple"] = "LEAST_CONN"


@fault(3, PRODUCTION, "outdated")
def old_version_of_istio(place: Place) -> None:
    get(place, "VirtualService")["apiVersion"] = "networking.istio.io/v1beta1"


@fault(4, PRODUCTION, "mesh")
def service_without_gateway(place: Place) -> None:
    spec = get(place, "VirtualService")["spec"]
    del spec["gateways"]
    spec["hosts"] = ["millstream-gateway"]


@fault(5, PRODUCTION, "mesh")
def chaos_in_production(place: Place) -> None:
    delay = {"percentage": {"value": 0.1}, "fixedDelay": "5s"}
    get(place, "VirtualService")["spec"]["http"][0]["fault"] = {"delay": delay}


@fault(6, PRODUCTION, "mesh")
def ten_requests_per_connection(place: Place) -> None:
    policy = get(place, "DestinationRule")["spec"]["trafficPolicy"]
    policy["connectionPool"]["http"]["maxRequestsPerConnection"] = 10


@fault(7, PRODUCTION, "mesh")
def mesh_without_mutual_tls(place: Place) -> None:
    place.manifests[:] = [each for each in place.manifests if each["kind"] != "PeerAuthentication"]


@fault(7, PRODUCTION, "mesh")
def mesh_that_lets_everybody_in(place: Place) -> None:
    place.manifests[:] = [each for each in place.manifests if each["kind"] != "AuthorizationPolicy"]


# -- the namespace -----------------------------------------------------------------------------


@fault(8, DEV, "outdated")
def node_selector_of_a_plugin(place: Place) -> None:
    told = {"scheduler.alpha.kubernetes.io/node-selector": "workload=ai-agents"}
    get(place, "Namespace")["metadata"]["annotations"] = told


@fault(9, DEV, "quota")
def limits_of_an_extended_resource(place: Place) -> None:
    get(place, "ResourceQuota")["spec"]["hard"]["limits.nvidia.com/gpu"] = "20"


@fault(10, DEV, "quota")
def quota_without_limit_range(place: Place) -> None:
    place.manifests.remove(get(place, "LimitRange"))


@fault(10, PRODUCTION, "quota")
def fleet_larger_than_its_quota(place: Place) -> None:
    get(place, "HorizontalPodAutoscaler", "millstream-worker")["spec"]["maxReplicas"] = 500


@fault(29, DEV, "namespaces")
def namespace_without_pod_security(place: Place) -> None:
    del get(place, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]


# -- names -------------------------------------------------------------------------------------


@fault(11, DEV, "dangling")
def another_config_map(place: Place) -> None:
    container(place, "millstream-worker")["envFrom"][0]["configMapRef"]["name"] = "agent-config"


@fault(11, DEV, "dangling")
def key_that_is_not_there(place: Place) -> None:
    reference = {"name": "redis-config", "key": "log.level"}
    variable = {"name": "LOG_LEVEL", "valueFrom": {"configMapKeyRef": reference}}
    container(place, "millstream-worker")["env"].append(variable)


@fault(11, DEV, "dangling")
def account_that_is_not_there(place: Place) -> None:
    pod(place, "millstream-worker").spec["serviceAccountName"] = "agent-service-account"


@fault(11, DEV, "dangling")
def registry_secret_that_is_not_there(place: Place) -> None:
    pod(place, "millstream-worker").spec["imagePullSecrets"] = [{"name": "registry-secret"}]


@fault(11, DEV, "selectors")
def service_that_finds_nobody(place: Place) -> None:
    get(place, "Service", "millstream-gateway")["spec"]["selector"] = {"app": "mcp-agent"}


@fault(12, DEV, "settings")
def config_that_claims_tls_and_a_cluster(place: Place) -> None:
    name = container(place, "millstream-worker")["envFrom"][0]["configMapRef"]["name"]
    get(place, "ConfigMap", name)["data"] |= {"REDIS_SSL_ENABLED": "true"}


@fault(12, DEV, "unread")
def setting_that_nobody_reads(place: Place) -> None:
    data = {"redis.ssl.enabled": "true", "redis.cluster.enabled": "true"}
    place.manifests.append(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "agent"}, "data": data}
    )


# -- secrets -----------------------------------------------------------------------------------


@fault(13, PRODUCTION, "outdated")
def secret_that_names_an_account(place: Place) -> None:
    told = {"kubernetes.io/service-account.name": "agentic-ai-service"}
    get(place, "ExternalSecret")["metadata"]["annotations"] = told


@fault(14, DEV, "secrets")
def key_in_the_environment(place: Place) -> None:
    reference = {"name": "millstream-tools", "key": "openai-api-key"}
    variable = {"name": "API_KEY", "valueFrom": {"secretKeyRef": reference}}
    container(place, "millstream-worker")["env"].append(variable)


@fault(14, DEV, "secrets")
def secret_in_git(place: Place) -> None:
    metadata = {"name": "agentic-ai-secrets", "namespace": "millstream"}
    place.manifests.append(
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"jwt": "eA=="}}
    )


# -- Redis -------------------------------------------------------------------------------------


@fault(15, DEV, "secrets")
def password_in_the_command_line(place: Place) -> None:
    container(place, "redis")["args"] += ["--requirepass", "$(REDIS_PASSWORD)"]


@fault(16, DEV, "probes")
def probe_with_an_empty_password(place: Place) -> None:
    command = ["redis-cli", "--no-auth-warning", "-a", "$(REDIS_PASSWORD)", "ping"]
    container(place, "redis")["livenessProbe"]["exec"]["command"] = command


@fault(16, DEV, "probes")
def probe_that_cannot_fail(place: Place) -> None:
    container(place, "redis")["readinessProbe"]["exec"]["command"] = ["redis-cli", "ping"]


@fault(17, DEV, "volumes")
def store_as_a_deployment(place: Place) -> None:
    store = get(place, "StatefulSet", "redis")
    store["kind"] = "Deployment"
    del store["spec"]["volumeClaimTemplates"]
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "redis-pvc"}}
    store["spec"]["template"]["spec"]["volumes"].append(claim)


def _redis_conf(place: Place, old: str, new: str) -> None:
    (config,) = [x for x in place.of("ConfigMap") if "redis.conf" in (x.get("data") or {})]
    assert old in config["data"]["redis.conf"]
    config["data"]["redis.conf"] = config["data"]["redis.conf"].replace(old, new)


@fault(18, DEV, "durable")
def store_that_forgets(place: Place) -> None:
    _redis_conf(place, "appendonly yes", "appendonly no")


@fault(18, DEV, "durable")
def store_that_evicts(place: Place) -> None:
    _redis_conf(place, "noeviction", "allkeys-lru")


@fault(18, DEV, "durable")
def store_that_is_killed_before_it_refuses(place: Place) -> None:
    _redis_conf(place, "maxmemory 2gb", "maxmemory 4gb")


@fault(19, DEV, "images")
def tag_that_moves(place: Place) -> None:
    container(place, "redis")["image"] = "redis:7-alpine"


# -- pods --------------------------------------------------------------------------------------


@fault(20, DEV, "drains")
def killed_in_the_middle_of_a_drain(place: Place) -> None:
    del pod(place, "millstream-worker").spec["terminationGracePeriodSeconds"]


@fault(21, DEV, "probes")
def delay_on_top_of_a_startup_probe(place: Place) -> None:
    container(place, "millstream-worker")["livenessProbe"]["initialDelaySeconds"] = 60


@fault(21, DEV, "probes")
def liveness_that_asks_redis(place: Place) -> None:
    container(place, "millstream-worker")["livenessProbe"]["httpGet"]["path"] = "/ready"


@fault(22, DEV, "scraped")
def metrics_on_the_port_of_the_api(place: Place) -> None:
    told = {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"}
    pod(place, "millstream-worker").template["metadata"]["annotations"] = told


@fault(22, PRODUCTION, "scraped")
def scraped_twice(place: Place) -> None:
    told = {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"}
    pod(place, "millstream-worker").template["metadata"].setdefault("annotations", {}).update(told)


@fault(24, DEV, "owned")
def replicas_beside_an_autoscaler(place: Place) -> None:
    get(place, "Deployment", "millstream-worker")["spec"]["replicas"] = 3


@fault(24, PRODUCTION, "autoscalers")
def memory_as_a_measure(place: Place) -> None:
    metrics = get(place, "HorizontalPodAutoscaler", "millstream-worker")["spec"]["metrics"]
    metrics[1]["resource"]["target"]["averageUtilization"] = 80


@fault(24, DEV, "autoscalers")
def metric_that_nobody_serves(place: Place) -> None:
    target = {"type": "AverageValue", "averageValue": "10"}
    metric = {"type": "Pods", "pods": {"metric": {"name": "active_workflows"}, "target": target}}
    get(place, "HorizontalPodAutoscaler", "millstream-worker")["spec"]["metrics"].append(metric)


@fault(24, PRODUCTION, "autoscalers")
def value_in_the_place_of_an_average(place: Place) -> None:
    metrics = get(place, "HorizontalPodAutoscaler", "millstream-worker")["spec"]["metrics"]
    metrics[-1]["external"]["target"] = {"type": "Value", "value": "30"}


@fault(24, PRODUCTION, "autoscalers")
def a_minute_before_it_grows(place: Place) -> None:
    scaler = get(place, "HorizontalPodAutoscaler", "millstream-worker")
    scaler["spec"]["behavior"]["scaleUp"]["stabilizationWindowSeconds"] = 60


@fault(25, DEV, "hardened")
def no_security_context(place: Place) -> None:
    del pod(place, "millstream-worker").spec["securityContext"]
    del container(place, "millstream-worker")["securityContext"]


@fault(25, DEV, "tokens")
def token_that_nobody_needs(place: Place) -> None:
    del pod(place, "millstream-worker").spec["automountServiceAccountToken"]


@fault(25, DEV, "available")
def no_disruption_budget(place: Place) -> None:
    place.manifests.remove(get(place, "PodDisruptionBudget", "millstream-worker"))


@fault(25, DEV, "available")
def not_spread(place: Place) -> None:
    del pod(place, "millstream-worker").spec["topologySpreadConstraints"]


@fault(25, DEV, "available")
def without_priority(place: Place) -> None:
    del pod(place, "millstream-worker").spec["priorityClassName"]


@fault(25, DEV, "isolated")
def everybody_may_reach_everybody(place: Place) -> None:
    place.manifests.remove(get(place, "NetworkPolicy", "default-deny"))


@fault(25, DEV, "sized")
def limits_that_throttle(place: Place) -> None:
    container(place, "millstream-worker")["resources"]["limits"]["cpu"] = "1000m"


@fault(26, PRODUCTION, "outdated")
def exporter_that_is_gone(place: Place) -> None:
    for variable in container(place, "millstream-worker")["env"]:
        if variable["name"] == "OTEL_EXPORTER_OTLP_ENDPOINT":
            variable["value"] = "http://jaeger-collector.monitoring:14268/api/traces"


@fault(27, DEV, "labelled")
def labels_of_old(place: Place) -> None:
    get(place, "Deployment", "millstream-worker")["metadata"]["labels"]["app"] = "mcp-agent"


@fault(27, DEV, "outdated")
def managed_by_an_annotation(place: Place) -> None:
    told = {"kubernetes.io/managed-by": "enterprise-platform"}
    get(place, "Namespace")["metadata"]["annotations"] = told


@fault(28, PRODUCTION, "devices")
def device_without_toleration(place: Place) -> None:
    del pod(place, "millstream-worker-gpu").spec["tolerations"]


@fault(28, PRODUCTION, "devices")
def device_without_node_selector(place: Place) -> None:
    del pod(place, "millstream-worker-gpu").spec["nodeSelector"]


# -- what no list has, and the checks find all the same -------------------------------------------


@fault(29, PRODUCTION, "rights")
def right_to_everything(place: Place) -> None:
    get(place, "Role", "millstream-external-metrics")["rules"][0]["resources"] = ["*"]


@fault(29, DEV, "commands")
def flag_that_does_not_exist(place: Place) -> None:
    container(place, "millstream-worker")["args"].append("--max-workflows=100")


@fault(29, DEV, "settings")
def setting_out_of_bounds(place: Place) -> None:
    variable = {"name": "MILLSTREAM_CONCURRENCY", "value": "100000"}
    container(place, "millstream-worker")["env"].append(variable)


@fault(29, DEV, "settings")
def setting_that_is_misspelt(place: Place) -> None:
    container(place, "millstream-worker")["env"].append({"name": "MILLSTREAM_LAESE", "value": "1"})


@fault(29, DEV, "ports")
def port_that_nobody_listens_on(place: Place) -> None:
    container(place, "millstream-worker")["ports"][0]["containerPort"] = 8000


@fault(23, DEV, "outdated")
def endpoints_in_the_place_of_slices(place: Place) -> None:
    config = """
    scrape_configs:
      - job_name: mcp-agents
        kubernetes_sd_configs:
          - role: endpoints
    """
    place.manifests.append(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "prometheus", "labels": {"grafana_dashboard": "no"}},
            "data": {"prometheus.yml": config},
        }
    )


@pytest.mark.parametrize("seeded", _FAULTS)
def test_a_fault_is_found(seeded: Seeded, place: Callable[[str], Place]) -> None:
    """Each by the rule that is meant for it, in a place that was sound before."""
    broken = place(seeded.place)
    seeded.breaks(broken)

    found = list(_found(broken, seeded.rule))

    assert found, f"nothing was said by {seeded.rule}"


def _found(place: Place, rule: str) -> Iterator[Fault]:
    if rule == "schema":
        rules = place.of("DestinationRule")
        if not schemas.can_judge_custom():
            pytest.skip("node or the schemas of operators are missing: make k8s-check")
        yield from schemas.custom(rules)
    for config in place.of("ConfigMap"):
        for name, text in (config.get("data") or {}).items():
            if name == "prometheus.yml":
                yield from prometheus.discovery(where(config), yaml.safe_load(text))
    yield from (each for each in judged(place) if each.rule == rule)
