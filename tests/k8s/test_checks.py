"""The checks themselves: each can fail, and what they take for granted holds."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k8s.check import programs, references, schemas, store
from k8s.check.__main__ import gitops, main
from k8s.check.objects import Manifest, Place
from k8s.check.quantities import quantity, redis_bytes
from k8s.check.render import ROOT
from millstream.store.addresses import parse_address
from scripts import k8s_monitoring, k8s_secrets

pytestmark = pytest.mark.k8s


@pytest.fixture
def deployment(place: Callable[[str], Place]) -> Manifest:
    return copy.deepcopy(place("dev").of("Deployment")[0])


@pytest.mark.parametrize("version", schemas.VERSIONS)
def test_every_version_refuses_a_field_that_does_not_exist(
    version: str, deployment: Manifest
) -> None:
    """An API server drops it without a word, and so would a validator that is not strict."""
    assert not list(schemas.core([deployment], [version]))

    deployment["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["timeoutSecond"] = 5
    assert "timeoutSecond" in str(*schemas.core([deployment], [version]))


def test_a_kind_that_no_version_knows_is_no_warning(deployment: Manifest) -> None:
    """What cannot be judged was not judged."""
    deployment["apiVersion"] = "apps/v1beta2"

    assert len(list(schemas.core([deployment]))) == len(schemas.VERSIONS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"host": None}, "host"),
        ({"trafficPolicy": {"loadBalancer": {"simple": "LEAST_CON"}}}, "allowed values"),
        ({"trafficPolicy": {"circuitBreaker": {}}}, "no field circuitBreaker"),
    ],
)
def test_an_operator_s_schema_refuses_what_its_project_does(
    change: dict[str, Any], says: str, place: Callable[[str], Place]
) -> None:
    """Types and values by its validator, fields by its declarations."""
    if not schemas.can_judge_custom():
        pytest.skip("node or the schemas of operators are missing: make k8s-check")
    (rule,) = place("istio").of("DestinationRule")
    rule["spec"] = {x: y for x, y in {**rule["spec"], **change}.items() if y is not None}

    assert says in " ".join(str(each) for each in schemas.custom([rule]))


def test_an_operator_s_kind_without_a_schema_is_a_fault() -> None:
    """A new operator brings its schema along, or its objects are believed to be right."""
    if not schemas.can_judge_custom():
        pytest.skip("node or the schemas of operators are missing: make k8s-check")
    unknown = {"apiVersion": "example.io/v1", "kind": "Thing", "metadata": {"name": "x"}}

    assert "no schema" in str(*schemas.custom([unknown]))


def test_the_examples_for_gitops_name_overlays_that_exist() -> None:
    """A path that is wrong shows in the cluster only."""
    there = {path.name for path in (ROOT / "overlays").iterdir()}
    (applications,) = [each for each in gitops() if each["kind"] == "ApplicationSet"]
    (flux,) = [each for each in gitops() if each["kind"] == "Kustomization"]
    named = {each["overlay"] for each in applications["spec"]["generators"][0]["list"]["elements"]}

    assert named | {flux["spec"]["path"].rpartition("/")[2]} <= there


def test_the_script_makes_the_secrets_that_places_count_on() -> None:
    """And Redis gets no password, only what checks one."""
    made = {x["metadata"]["name"]: x["stringData"] for x in k8s_secrets.manifests()["items"]}
    address = parse_address(made["millstream-redis"]["url"])
    users = store.users(made["redis-acl"]["users.acl"])

    assert set(made) == references.MADE
    assert address.username in users
    assert address.password
    assert address.password not in made["redis-acl"]["users.acl"]
    assert users["default"][:2] == ["off", "resetpass"]
    assert k8s_secrets.manifests() != k8s_secrets.manifests()


def test_the_script_makes_what_two_regions_share() -> None:
    """One output for both, which nothing in it tells apart; and the operator is in no pod."""
    made = {
        x["metadata"]["name"]: x["stringData"] for x in k8s_secrets.manifests(pair=True)["items"]
    }
    address = parse_address(made["millstream-redis"]["url"])
    users = store.users(made["redis-acl"]["users.acl"])

    assert set(made) == references.MADE | {"redis-replication", "redis-operator"}
    assert address.tls
    assert {"millstream", "replica", "operator", "probe"} < set(users)
    for secret in (made["redis-operator"]["password"], address.password or ""):
        assert secret
        assert secret not in made["redis-acl"]["users.acl"]


def test_rules_and_dashboards_become_objects_of_their_operators(tmp_path: Path) -> None:
    """They are tested where they stand, and applied from there."""
    rule = {"alert": "QueueStandsStill", "expr": "vector(1)", "for": "5m"}
    (tmp_path / "alerts").mkdir()
    (tmp_path / "grafana").mkdir()
    text = json.dumps({"groups": [{"name": "queues", "rules": [rule]}]})
    (tmp_path / "alerts" / "queues.yml").write_text(text, "utf-8")
    (tmp_path / "grafana" / "overview.json").write_text("{}", "utf-8")

    (made,) = k8s_monitoring.rules(tmp_path)
    (shown,) = k8s_monitoring.dashboards(tmp_path)

    assert made["metadata"]["name"] == "millstream-alerts-queues"
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert not list(schemas.core([shown]))
    if schemas.can_judge_custom():
        assert not list(schemas.custom([made]))
        made["spec"]["groups"][0]["rules"][0]["for"] = "5minutes"
        assert list(schemas.custom([made]))


def test_a_release_is_refused_while_something_stands_in(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Digests of zeros, hosts of examples, sealed secrets that nobody sealed."""
    assert main(["--release", "production"]) == 1
    assert "stands in for something of yours" in capsys.readouterr().out


def test_quantities_are_read_as_kubernetes_and_redis_do() -> None:
    """`2gb` of Redis is 2Gi; `2g` is not."""
    assert quantity("250m") * 4 == 1
    assert quantity("1Gi") == 2**30
    assert (redis_bytes("2gb"), redis_bytes("2g")) == (2 * 2**30, 2 * 10**9)
    with pytest.raises(ValueError, match="12Qx"):
        quantity("12Qx")


def test_each_region_has_a_redis_of_its_own_and_one_of_them_is_open(
    place: Callable[[str], Place],
) -> None:
    """Two regions at one address are one region; two that are open run everything twice."""
    keys, replicas, jobs, called = {}, {}, {}, {}
    for region in ("region-a", "region-b"):
        found = place(region)
        secret = found.find("ExternalSecret", "millstream-redis")
        assert secret is not None
        keys[region] = secret["spec"]["data"][0]["remoteRef"]["key"]
        worker = found.find("Deployment", "millstream-worker")
        assert worker is not None
        replicas[region] = worker["spec"].get("replicas")
        job = found.find("CronJob", "millstream-backup")
        assert job is not None
        jobs[region] = job["spec"].get("suspend", False)
        (config,) = [x["data"] for x in found.of("ConfigMap") if "replica.conf" in x["data"]]
        called[region] = (
            store.settings(config["region.conf"])["replica-announce-ip"],
            store.settings(config["replica.conf"])["replicaof"].split()[0],
        )

    here, there = called["region-a"]
    assert called["region-b"] == (there, here), "each is called what the other calls it"
    assert keys == {
        "region-a": "millstream/region-a/redis",
        "region-b": "millstream/region-b/redis",
    }
    assert replicas == {"region-a": None, "region-b": 0}
    assert jobs == {"region-a": False, "region-b": True}


def test_probes_ask_the_port_that_lets_them_in(place: Callable[[str], Place]) -> None:
    """The kubelet shows no certificate: on the port of the API every pod would be killed."""
    found = place("gateway-mtls")
    assert not list(programs.ports(found))
    (gateway,) = [each for each in programs.processes(found) if each.command == "gateway"]

    gateway.container["livenessProbe"]["httpGet"]["port"] = "http"
    assert "on the port probes" in str(*programs.ports(found))
    gateway.container["livenessProbe"]["httpGet"]["port"] = "probes"
    del gateway.container["ports"][0]
    assert "listens on 8082 for probes" in str(*programs.ports(found))
