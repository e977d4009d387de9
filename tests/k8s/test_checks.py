"""The checks themselves: each can fail, and what they take for granted holds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from k8s.check import references, schemas, store
from k8s.check.__main__ import gitops, main
from k8s.check.objects import Manifest, Place
from k8s.check.quantities import quantity, redis_bytes
from k8s.check.render import ROOT
from millstream.store.addresses import parse_address
from scripts import k8s_secrets

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
    assert users["default"] == ["off"]
    assert k8s_secrets.manifests() != k8s_secrets.manifests()


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
