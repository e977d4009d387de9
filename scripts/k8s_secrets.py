"""Prints the Secrets that a first installation needs, with passwords drawn here and now.

    python3 scripts/k8s_secrets.py | kubectl apply -f -

For `redis-standalone` nothing else is needed; for a Redis elsewhere give its address with
``--redis``. Redis gets hashes only, so its own Secret opens nothing. Nothing is stored: applied
again, it changes every password. Only the standard library, so any Python runs it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import sys
from typing import Any

NAMESPACE = "millstream"
HOST = f"redis.{NAMESPACE}.svc.cluster.local"
#: What docs/operations.md asks for, less what could empty or stop a server.
RIGHTS = (
    "~millstream:* &millstream:* +@read +@write +@stream +@scripting +@pubsub +@connection"
    " +@transaction -@dangerous +info +time"
)


def manifests(redis: str | None = None) -> dict[str, Any]:
    """Return a List of Secrets; ``redis`` is the address of a Redis elsewhere."""
    password = secrets.token_hex(24)
    made = [
        _secret(
            "millstream-redis", {"url": redis or f"redis://millstream:{password}@{HOST}:6379/0"}
        )
    ]
    if redis is None:
        made.append(_secret("redis-acl", {"users.acl": users(password)}))
    return {"apiVersion": "v1", "kind": "List", "items": made}


def users(password: str) -> str:
    """Return the ACL file of a Redis whose user has this password."""
    return "\n".join(
        [
            "user default off",
            f"user millstream on #{_hash(password)} {RIGHTS}",
            # Its password stands in a script, so it may do nothing.
            f"user probe on #{_hash('probe')} +ping",
            "",
        ]
    )


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
    print(json.dumps(manifests(parser.parse_args(arguments).redis), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
