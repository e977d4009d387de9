"""Prints the Secrets that a first installation needs, with passwords drawn here and now.

    python3 scripts/k8s_secrets.py | kubectl apply -f -

For `redis-standalone` nothing else is needed; for a Redis elsewhere give its address with
``--redis``. ``--pair`` makes those of two regions, which have the same: apply one output in both,
or put it into the vault. Redis gets hashes only, so its own Secret opens nothing; as a replica it
must know its password at the master. Nothing is stored: applied again, it changes every password.
Only the standard library, so any Python runs it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import sys
from collections.abc import Sequence
from typing import Any

NAMESPACE = "millstream"
HOST = f"redis.{NAMESPACE}.svc.cluster.local"
#: What docs/operations.md asks for, less what could empty or stop a server.
RIGHTS = (
    "~millstream:* &millstream:* +@read +@write +@stream +@scripting +@pubsub +@connection"
    " +@transaction -@dangerous +info +time"
)
#: What a replica asks of its master, and what `millstream failover` asks of both.
REPLICATES = "+psync +replconf +ping"
OPERATES = "+@connection -@dangerous +failover +replicaof +info +config|set"
AUTHORITY = "/run/secrets/millstream/redis-ca/ca.crt"


def manifests(redis: str | None = None, *, pair: bool = False) -> dict[str, Any]:
    """Return a List of Secrets; ``redis`` is the address of a Redis elsewhere."""
    if pair:
        return _list(_of_pair())
    password = secrets.token_hex(24)
    made = [
        _secret(
            "millstream-redis", {"url": redis or f"redis://millstream:{password}@{HOST}:6379/0"}
        )
    ]
    if redis is None:
        made.append(_secret("redis-acl", {"users.acl": users(password)}))
    return _list(made)


def users(password: str, *, more: Sequence[str] = (), probe: str = "+ping") -> str:
    """Return the ACL file of a Redis whose user has this password, with ``more`` users."""
    return "\n".join(
        [
            # Off, so nobody can be it. But Redis replays its append-only file with its rights, and
            # drops a transaction that it may not do (redis/redis#14541): without any rights, a
            # restart would forget all that scripts have written.
            "user default off resetpass ~* &* +@all",
            f"user millstream on #{_hash(password)} {RIGHTS}",
            # Its password stands in a script, so it may do nothing.
            f"user probe on #{_hash('probe')} {probe}",
            *more,
            "",
        ]
    )


def _of_pair() -> list[dict[str, Any]]:
    password, replica, operator = (secrets.token_hex(24) for _ in range(3))
    more = [
        f"user replica on #{_hash(replica)} {REPLICATES}",
        f"user operator on #{_hash(operator)} {OPERATES}",
    ]
    # The probe of a region keeps what Redis is, master or replica.
    acl = users(password, more=more, probe="+ping +role")
    address = f"rediss://millstream:{password}@{HOST}:6379/0?ssl_ca_certs={AUTHORITY}"
    lines = f"masteruser replica\nmasterauth {replica}\n"
    return [
        _secret("millstream-redis", {"url": address}),
        _secret("redis-acl", {"users.acl": acl}),
        _secret("redis-replication", {"replication.conf": lines}),
        # No pod has it: it is for whoever runs `millstream failover`.
        _secret("redis-operator", {"password": operator}),
    ]


def _list(made: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": made}


def _secret(name: str, values: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/part-of": "millstream"},
        },
        "type": "Opaque",
        "stringData": values,
    }


def _hash(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def main(arguments: list[str]) -> int:
    """Print the Secrets as JSON, which kubectl and kubeseal take like YAML."""
    parser = argparse.ArgumentParser(description="Print the Secrets of a first installation.")
    parser.add_argument("--redis", metavar="URL", help="the address of a Redis elsewhere")
    parser.add_argument("--pair", action="store_true", help="those that two regions share")
    given = parser.parse_args(arguments)
    if given.pair and given.redis:
        parser.error("the Redis of a pair is in its region: --pair or --redis")
    print(json.dumps(manifests(given.redis, pair=given.pair), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
