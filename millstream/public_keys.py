"""Public keys with which something that others have signed is checked: tokens, cards of agents.

Each key is bound to the one algorithm that it is made for; what is said beside a signature only
chooses among keys, never how a key is used. Symmetric keys are passed over: whoever can check with
one can also sign. It does not know where keys come from, nor what their owners are trusted with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK, PyJWTError
from jwt.api_jws import PyJWS
from jwt.utils import base64url_encode

from millstream.errors import MillstreamError
from millstream.model.limits import KIB

#: The algorithms of signatures that are ever believed.
ALGORITHMS = ("RS256", "ES256", "EdDSA")
#: What is read of a set of keys, and how many of them are used.
MOST_BYTES = 256 * KIB
_MOST_KEYS = 100
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)
_JWS = PyJWS()


class KeysUnreadable(MillstreamError):
    """A source of keys did not answer, or what it said is no set of keys."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and the one algorithm it is used with."""

    kid: str | None
    algorithm: str
    key: Any


def chosen(keys: Iterable[Key], kid: str | None, algorithm: str) -> list[Key]:
    """Return those that may have made a signature which names a key and an algorithm."""
    return [
        key
        for key in keys
        if key.algorithm == algorithm and (kid is None or key.kid in {None, kid})
    ]


def has_signed(key: Key, protected: str, payload: bytes, signature: str) -> bool:
    """Whether a key has made a signature (JWS) over a payload that stands apart from it."""
    token = f"{protected}.{base64url_encode(payload).decode()}.{signature}"
    try:
        _JWS.decode(token, key.key, algorithms=[key.algorithm])
    except (PyJWTError, ValueError, TypeError, RecursionError):
        return False
    return True


def parsed(data: bytes) -> list[Key]:
    """Return the usable keys of a JWKS document or of PEM text. Raises `KeysUnreadable`."""
    if data.lstrip().startswith(b"{"):
        keys = _of_jwks(data)
    else:
        try:
            keys = [_bound(None, load_pem_public_key(text)) for text in _PEM.findall(data)]
        except ValueError as error:
            raise KeysUnreadable(f"a PEM block is no public key: {error}") from error
    usable = [key for key in keys if key is not None][:_MOST_KEYS]
    if not usable:
        raise KeysUnreadable("there is no key for RS256, ES256 or EdDSA in it")
    return usable


def _of_jwks(data: bytes) -> list[Key | None]:
    try:
        rows = msgspec.json.decode(data, type=dict[str, Any])["keys"]
        return [_of_jwk(row) for row in rows if isinstance(row, dict)]
    except (msgspec.MsgspecError, KeyError, TypeError, UnicodeError) as error:
        raise KeysUnreadable("it is no JWKS document") from error


def _of_jwk(row: dict[str, Any]) -> Key | None:
    if row.get("kty") not in {"RSA", "EC", "OKP"} or row.get("use", "sig") != "sig":
        return None
    try:
        key = _bound(row.get("kid"), PyJWK(row, _algorithm_of(row)).key)
    except (PyJWTError, ValueError, TypeError):
        return None
    return key if key is not None and row.get("alg", key.algorithm) == key.algorithm else None


def _algorithm_of(row: dict[str, Any]) -> str:
    return {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[row["kty"]]


def _bound(kid: str | None, key: Any) -> Key | None:
    """Return the key with its algorithm; None for one that is weak, private or of another kind."""
    match key:
        case RSAPublicKey() if key.key_size >= 2048:
            return Key(kid, "RS256", key)
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            return Key(kid, "ES256", key)
        case Ed25519PublicKey():
            return Key(kid, "EdDSA", key)
        case _:
            return None
