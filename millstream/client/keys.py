"""The API keys of the gateway, as operators change them: every change stands in the audit trail.

A key is shown only when the trail knows of it: one of which it could not be told is revoked, and
nobody has its secret. What a key is stored as, and what it opens, is not known here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from millstream.client.auditing import Auditor, audited
from millstream.errors import StoreError, Unaudited, UsageError
from millstream.store import api_keys
from millstream.store.api_keys import ApiKey
from millstream.store.connection import Connection


def _key(key_id: str) -> tuple[str, str]:
    return "", key_id


def _all() -> tuple[str, str]:
    return "", "keys"


class Keys:
    """The keys of one Redis."""

    def __init__(self, connection: Connection, auditor: Auditor) -> None:
        self._connection = connection
        self.auditor = auditor

    async def create(
        self, *, name: str, roles: Sequence[str], tenant: str | None, lasts_s: float | None
    ) -> tuple[ApiKey, str]:
        """Make a key; return it with its text, which is kept nowhere.

        Raises `UsageError` at the bound, `StoreError`, or `Unaudited`: then it was revoked.
        """
        details = {"name": name, "roles": " ".join(roles), "tenant": tenant or ""}
        try:
            key, text = await api_keys.create(
                self._connection, name=name, roles=roles, tenant=tenant, lasts_s=lasts_s
            )
        except Exception as error:
            await self._told(name, type(error).__name__, details)
            raise
        try:
            await self._told(key.id, "ok", details)
        except Unaudited:
            with contextlib.suppress(StoreError):
                await api_keys.revoke(self._connection, key.id)
            raise
        return key, text

    async def every(self) -> list[ApiKey]:
        """Return all keys, the newest first."""
        return await api_keys.every(self._connection)

    @audited("revoke key", _key)
    async def revoke(self, key_id: str) -> None:
        """Have a key open nothing any more. Raises `UsageError` when there is no such key."""
        if not await api_keys.revoke(self._connection, key_id):
            raise UsageError(f"there is no key {key_id!r}; `millstream keys list` shows them")

    @audited("prune keys", _all)
    async def prune(self) -> int:
        """Forget the keys that open nothing any more; return how many."""
        return await api_keys.prune(self._connection)

    async def _told(self, target: str, result: str, details: dict[str, str]) -> None:
        await self.auditor.tell(
            "create key", queue="", target=target, result=result, details=details
        )
