"""What goes wrong with a Redis in each of two regions, put in one at a time, is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from k8s.check.objects import Manifest, Place
from k8s.check.regions import let_in, replicated
from tests.k8s.test_faults import get

pytestmark = pytest.mark.k8s


def data(place: Place) -> dict[str, str]:
    """The files of its Redis."""
    found: dict[str, str]
    (found,) = [x["data"] for x in place.of("ConfigMap") if "replica.conf" in x["data"]]
    return found


@pytest.mark.parametrize(
    ("key", "old", "new", "says"),
    [
        ("pair.conf", "tls-replication yes", "tls-replication no", "in the clear"),
        ("pair.conf", "port 0", "port 6380", "without TLS"),
        ("pair.conf", "min-replicas-to-write 1", "", "left behind goes on writing"),
        ("pair.conf", "min-replicas-max-lag 10", "min-replicas-max-lag 60", "at most the 10 s"),
        ("region.conf", "include /data/role/*.conf", "", "forgets who is the master"),
        ("region.conf", "replica-announce-ip redis-a.example.com", "", "node's address"),
        ("region.conf", "redis-a.example", "redis-c.example", "certificate does not say"),
        ("region.conf", "replica-announce-port", "replicaof b 6379\nreplica-announce-port",
         "a restart makes the new master a replica"),
        ("replica.conf", "redis-b.example", "redis-a.example", "a replica of itself"),
    ],
)  # fmt: skip
def test_a_line_that_is_missing_or_wrong_is_found(
    key: str, old: str, new: str, says: str, place: Callable[[str], Place]
) -> None:
    """In the configuration of region a, of which nothing is wrong before."""
    found = place("region-a")
    files = data(found)
    assert old in files[key]
    files[key] = files[key].replace(old, new)

    assert says in " ".join(map(str, replicated(found)))


def open_door(door: Manifest, _policy: Manifest) -> None:
    del door["spec"]["loadBalancerSourceRanges"]


def half_the_world(door: Manifest, _policy: Manifest) -> None:
    door["spec"]["loadBalancerSourceRanges"] = ["0.0.0.0/1"]


def foreign_senders(door: Manifest, _policy: Manifest) -> None:
    door["spec"]["externalTrafficPolicy"] = "Cluster"


def wider_policy(_door: Manifest, policy: Manifest) -> None:
    policy["spec"]["ingress"][0]["from"].append({"ipBlock": {"cidr": "10.0.0.0/8"}})


def forgotten_policy(_door: Manifest, policy: Manifest) -> None:
    policy["spec"]["ingress"] = []


@pytest.mark.parametrize(
    "breaks", [open_door, half_the_world, foreign_senders, wider_policy, forgotten_policy]
)
def test_a_way_in_for_somebody_else_is_found(
    breaks: Callable[[Manifest, Manifest], None], place: Callable[[str], Place]
) -> None:
    """At the load balancer, at the pod, and between the two."""
    found = place("region-b")
    assert not list(let_in(found))
    breaks(
        get(found, "Service", "redis-region"), get(found, "NetworkPolicy", "redis-between-regions")
    )

    assert list(let_in(found))
