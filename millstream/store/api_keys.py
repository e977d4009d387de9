"""Keys with which programs show who they are: what is stored of them is never enough to be them.

A key has a public name and a secret. The secret is 256 random bits, so one SHA-256 of it tells
nothing of it; only that is stored. Revoking is a write of its own, which no other write undoes.
It does not know HTTP, nor what a role may do.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

import msgspec

from millstream.errors import UsageError
from millstream.store.connection import Connection

#: Keys that may exist at the same time.
MOST_KEYS = 10_000
#: Hash: public name -> what is known of a key; and -> when it was revoked.
KEYS = "millstream:{keys}:known"
REVOKED = "millstream:{keys}:revoked"
_FORM = re.compile(r"ms_([a-z2-7]{16})_([A-Za-z0-9_-]{43})")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
#: What a secret of an unknown key is compared with, so that both take the same time.
_NOBODY = hashlib.sha256(b"nobody").hexdigest()


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key."""

    id: str
    #: SHA-256 of the secret, in hexadecimal.
    digest: str
    #: What it is for, as whoever made it said.
    name: str
    #: ``role`` or ``role:queue``.
    roles: tuple[str, ...]
    #: None: the runs that belong to no tenant; ``*``: all.
    tenant: str | None
    #: Epoch seconds.
    created: float
    expires: float | None = None
    revoked: float | None = None

    def valid(self, now: float) -> bool:
        """Whether it opens anything at a moment."""
        return self.revoked is None and (self.expires is None or now < self.expires)


async def create(
    connection: Connection,
    *,
    name: str,
    roles: Sequence[str],
    tenant: str | None,
    lasts_s: float | None,
) -> tuple[ApiKey, str]:
    """Make a key; return it with its text, which is kept nowhere. Raises `UsageError` if full."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(16))
    secret = secrets.token_urlsafe(32)
    with connection.translated():
        if await connection.client.hlen(KEYS) >= MOST_KEYS:
            raise UsageError(
                f"there are {MOST_KEYS:,} keys already; remove those that are over:"
                " millstream keys prune"
            )
        now = await _now(connection)
        key = ApiKey(
            id=key_id,
            digest=_digest(secret),
            name=name,
            roles=tuple(roles),
            tenant=tenant,
            created=now,
            expires=None if lasts_s is None else now + lasts_s,
        )
        await connection.client.hset(KEYS, key_id, msgspec.json.encode(key))
    return key, f"ms_{key_id}_{secret}"


def taken_apart(text: str) -> tuple[str, str] | None:
    """Return the id and the secret of a key's text; None when it has not the form of one."""
    found = _FORM.fullmatch(text)
    return (found[1], found[2]) if found else None


def fits(key: ApiKey | None, secret: str) -> bool:
    """Whether a secret is that of a key, in a time that says nothing of either."""
    same = hmac.compare_digest(_digest(secret), _NOBODY if key is None else key.digest)
    return same and key is not None


async def find(connection: Connection, key_id: str) -> ApiKey | None:
    """Return a key by its id, revoked or not. Raises `StoreError`."""
    with connection.translated():
        pipe = connection.client.pipeline(transaction=False)
        pipe.hget(KEYS, key_id)
        pipe.hget(REVOKED, key_id)
        row, revoked = await pipe.execute()

    return None if row is None else _read(row, revoked)


async def every(connection: Connection) -> list[ApiKey]:
    """Return all keys, the newest first. Raises `StoreError`."""
    with connection.translated():
        pipe = connection.client.pipeline(transaction=False)
        pipe.hgetall(KEYS)
        pipe.hgetall(REVOKED)
        rows, revoked = await pipe.execute()

    keys = [_read(row, revoked.get(key_id)) for key_id, row in rows.items()]
    return sorted(keys, key=lambda key: key.created, reverse=True)


async def revoke(connection: Connection, key_id: str) -> bool:
    """Have a key open nothing any more; False when there is no such key. Safe to send twice."""
    with connection.translated():
        if not await connection.client.hexists(KEYS, key_id):
            return False
        await connection.client.hsetnx(REVOKED, key_id, f"{await _now(connection):.3f}")
    return True


async def prune(connection: Connection) -> int:
    """Forget the keys that open nothing any more; return how many. Raises `StoreError`."""
    with connection.translated():
        now = await _now(connection)
    over = [key.id for key in await every(connection) if not key.valid(now)]
    if over:
        with connection.translated():
            # The mark of a revoked key goes last: in between it is revoked still, or gone.
            await connection.client.hdel(KEYS, *over)
            await connection.client.hdel(REVOKED, *over)
    return len(over)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _read(row: bytes, revoked: bytes | None) -> ApiKey:
    key = msgspec.json.decode(row, type=ApiKey)
    return key if revoked is None else msgspec.structs.replace(key, revoked=float(revoked))


async def _now(connection: Connection) -> float:
    seconds, micros = await connection.client.time()
    return int(seconds) + int(micros) / 1e6
