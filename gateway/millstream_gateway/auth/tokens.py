"""Tokens of an identity provider: JWTs, checked here, without asking anybody.

A token must be signed by a known key, be for us (audience), from the one we trust (issuer), and be
in its time. Tenant and roles are what its claims say. Everything else about it is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jwt

from millstream.errors import MillstreamError
from millstream.public_keys import ALGORITHMS, Key
from millstream_gateway.auth.keysets import Keys
from millstream_gateway.auth.principals import Principal, grants_of
from millstream_gateway.refusals import Unauthenticated

#: Clocks of two machines may differ by so much.
_LEEWAY_S = 30.0
_LONGEST = 8_000
_REASONS: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.ExpiredSignatureError, "the token has expired"),
    (jwt.ImmatureSignatureError, "the token is not valid yet"),
    (jwt.InvalidAudienceError, "the token is for somebody else (audience)"),
    (jwt.InvalidIssuerError, "the token is from somebody else (issuer)"),
    (jwt.MissingRequiredClaimError, "the token lacks exp, sub, aud or iss"),
)


class Tokens:
    """Turns a token into a principal."""

    def __init__(
        self,
        keys: Keys,
        *,
        audience: Sequence[str],
        issuer: Sequence[str],
        roles_claim: str,
        tenant_claim: str,
    ) -> None:
        self._keys = keys
        self._audience = tuple(audience)
        self._issuer = tuple(issuer)
        self._roles_claim = roles_claim
        self._tenant_claim = tenant_claim

    async def principal(self, token: str) -> Principal:
        """Return who a token is of. Raises `Unauthenticated`."""
        kid, algorithm = _header(token)
        keys = await self._keys.fitting(kid, algorithm)
        if not keys:
            raise _refused("no key is known that could have signed the token")
        claims = self._checked(token, keys)
        return Principal(
            name=f"token:{_text(claims, 'sub')}",
            tenant=_tenant(claims, self._tenant_claim),
            grants=grants_of(_words(_claim(claims, self._roles_claim))),
        )

    def _checked(self, token: str, keys: Sequence[Key]) -> dict[str, Any]:
        """Return the claims once one of the keys fits; what else is wrong is told by any."""
        wrong: jwt.PyJWTError | None = None
        for key in keys:
            try:
                return jwt.decode(
                    token,
                    key.key,
                    algorithms=[key.algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=_LEEWAY_S,
                    options={"require": ["exp", "sub", "aud", "iss"]},
                )
            except jwt.InvalidSignatureError as error:
                wrong = wrong or error
            except jwt.PyJWTError as error:
                wrong = error
            except (ValueError, TypeError, RecursionError) as error:
                raise _refused("the token cannot be read") from error
        reason = next((text for kind, text in _REASONS if isinstance(wrong, kind)), "")
        raise _refused(reason or "the token's signature is not right") from wrong


def _header(token: str) -> tuple[str | None, str]:
    if len(token) > _LONGEST:
        raise _refused("the token is too long")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise _refused("it is no token") from error

    kid, algorithm = header.get("kid"), header.get("alg")
    if algorithm not in ALGORITHMS:
        raise _refused(f"tokens are signed with {', '.join(ALGORITHMS)}")
    if kid is not None and not isinstance(kid, str):
        raise _refused("the token's key id is no text")
    return kid, algorithm


def _claim(claims: dict[str, Any], path: str) -> Any:
    """Return a claim; a dot leads into it: ``realm_access.roles``. A whole name goes first."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.split()
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _tenant(claims: dict[str, Any], path: str) -> str | None:
    tenant = _claim(claims, path)
    if tenant is None:
        return None
    if not isinstance(tenant, str) or not 1 <= len(tenant) <= 200 or not tenant.isprintable():
        raise _refused(f"the token's {path} is no name of a tenant")
    return tenant


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims[name]
    if not isinstance(value, str) or not 1 <= len(value) <= 200 or not value.isprintable():
        raise _refused(f"the token's {name} is no name")
    return value


def _refused(reason: str) -> MillstreamError:
    return Unauthenticated(reason, error="invalid_token")
