"""Sign agent cards, so that whoever has our public key knows a card for ours wherever it lies.

A signature (JWS, over the card in the canonical form of RFC 8785) names its key by a hash of the
public one. The same card is signed once: elliptic curves sign anew each time, and the card's tag
must not change with that. The key is read once, at start.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from a2a.types.a2a_pb2 import AgentCard
from a2a.utils.signing import ProtectedHeader, create_agent_card_signer
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from millstream.errors import ConfigError

Signs = Callable[[AgentCard], AgentCard]
#: Cards that are at hand: one for each address under which we are asked, and each caller's rights.
_MOST = 256
_LEAST_RSA_BITS = 2048


def signs_with(path: str | None) -> Signs:
    """Return what signs cards with the private key of a PEM file; none leaves them as they are.

    Raises `ConfigError`.
    """
    return _as_it_is if path is None else Signer(*_key_in(path))


def _as_it_is(card: AgentCard) -> AgentCard:
    return card


class Signer:
    """Signs with one key."""

    def __init__(self, key: Any, algorithm: str, kid: str) -> None:
        # Without an address of keys: whoever followed that would believe the card about itself.
        header = cast("ProtectedHeader", {"kid": kid, "alg": algorithm, "typ": "JOSE"})
        self._sign = create_agent_card_signer(key, header)
        self._known: OrderedDict[bytes, AgentCard] = OrderedDict()

    def __call__(self, card: AgentCard) -> AgentCard:
        """Return the card with its signature: always the same one for the same card."""
        content = card.SerializeToString(deterministic=True)
        known = self._known.get(content)
        if known is None:
            known = self._known[content] = self._sign(card)
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        self._known.move_to_end(content)
        return known


def _key_in(path: str) -> tuple[Any, str, str]:
    """Return a private key, its algorithm, and what it is called. Raises `ConfigError`."""
    try:
        key = load_pem_private_key(Path(path).read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"--card-key: cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError):
        # What stands there must not be shown, nor what of it could not be read.
        raise ConfigError(f"--card-key: {path} is no private key in PEM without password") from None
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return key, _algorithm(key, path), hashlib.sha256(public).hexdigest()[:32]


def _algorithm(key: Any, path: str) -> str:
    match key:
        case EllipticCurvePrivateKey() if isinstance(key.curve, SECP256R1):
            return "ES256"
        case Ed25519PrivateKey():
            return "EdDSA"
        case RSAPrivateKey() if key.key_size >= _LEAST_RSA_BITS:
            return "RS256"
        case _:
            raise ConfigError(
                f"--card-key: {path} is a key for none of ES256, EdDSA and RS256 (2048 bits)"
            )
