"""An identity provider of a test: keys of each kind, and tokens signed with them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from jwt.algorithms import get_default_algorithms

ISSUER = "https://issuer.test"
AUDIENCE = "millstream"


class Issuer:
    """Signs tokens. ``path`` is a JWKS file that is always up to date."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: dict[str, tuple[str, Any]] = {}
        self.add("ed", "EdDSA")

    def add(self, kid: str, algorithm: str) -> None:
        """Sign with another key as well, and publish it."""
        made = {
            "RS256": lambda: generate_rsa_key(65537, 2048),
            "ES256": lambda: generate_private_key(SECP256R1()),
            "EdDSA": Ed25519PrivateKey.generate,
        }
        self._keys[kid] = (algorithm, made[algorithm]())
        self.publish()

    def drop(self, kid: str) -> None:
        """Publish a key no more, and go on signing with it when asked to."""
        self.publish(without=kid)

    def publish(self, without: str = "") -> None:
        """Write the file."""
        rows = []
        for kid, (algorithm, key) in self._keys.items():
            if kid != without:
                row = json.loads(get_default_algorithms()[algorithm].to_jwk(key.public_key()))
                rows.append({**row, "kid": kid, "use": "sig", "alg": algorithm})
        self.path.write_text(json.dumps({"keys": rows}), "utf-8")

    def public(self, kid: str) -> Any:
        """A public key."""
        return self._keys[kid][1].public_key()

    def token(
        self,
        *roles: str,
        kid: str = "ed",
        tenant: Any = None,
        headers: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Return a token that is right but for what is said. None takes a claim away."""
        algorithm, key = self._keys[kid]
        given = {
            "sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 600,
            "roles": list(roles), "tenant": tenant, **claims,
        }  # fmt: skip
        kept = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(kept, key, algorithm, headers={"kid": kid, **(headers or {})})
