"""Who is signed in, for pages: what a browser shows instead of a key, for some hours.

A session is kept under the hash of its text, so that what stands here opens nothing. It ends by
itself. It does not know HTTP.
"""

from __future__ import annotations

import hashlib
import secrets

import msgspec

from millstream.store.connection import Connection


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who signed in, with what they may do at that time."""

    name: str
    tenant: str | None
    #: Queue -> role.
    grants: dict[str, int]
    #: What every form of theirs has to bring.
    form_token: str


async def begin(connection: Connection, session: Session, lasts_s: float) -> str:
    """Keep a session; return its text. Raises `StoreError`."""
    text = secrets.token_urlsafe(32)
    with connection.translated():
        data = msgspec.json.encode(session)
        await connection.client.set(_key(text), data, px=max(1, round(lasts_s * 1000)))
    return text


async def find(connection: Connection, text: str) -> Session | None:
    """Return the session of a text; None when it is over. Raises `StoreError`."""
    with connection.translated():
        row = await connection.client.get(_key(text))
    return None if row is None else msgspec.json.decode(row, type=Session)


async def end(connection: Connection, text: str) -> None:
    """Forget a session. Raises `StoreError`."""
    with connection.translated():
        await connection.client.delete(_key(text))


def _key(text: str) -> str:
    return f"millstream:{{session}}:{hashlib.sha256(text.encode()).hexdigest()}"
