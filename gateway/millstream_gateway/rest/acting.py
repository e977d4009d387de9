"""Do what a caller asks for, in the caller's name, and have it written down whatever comes of it.

Every handler that changes something goes through here: the log is told once (`operator_acted`), and
what the client does meanwhile stands in the store's trail under the same name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from millstream.client import Client
from millstream.errors import UsageError
from millstream_gateway.audit import Act, Audit, audited
from millstream_gateway.calls import Call
from millstream_gateway.refusals import Conflict

T = TypeVar("T")


class Acting:
    """Acts for callers of one gateway."""

    def __init__(self, client: Client, audit: Audit) -> None:
        self._client = client
        self._audit = audit

    async def act(
        self,
        call: Call,
        action: str,
        queue: str,
        target: str,
        do: Callable[[], Awaitable[T]],
        *,
        actor: str | None = None,
    ) -> T:
        """Do it and write it down. ``actor``: who it is, where the caller is nobody."""
        name, origin = actor or call.principal.name, call.request.remote or ""

        def describe(outcome: str) -> Act:
            return Act(
                actor=name,
                tenant=call.principal.tenant,
                action=action,
                queue=queue,
                target=target,
                origin=origin,
                outcome=outcome,
            )

        # What the client does from here on, the store's audit has in the caller's name.
        with self._client.auditor.acting(name, origin):
            return await audited(self._audit, do, describe)


async def as_things_stand(doing: Awaitable[T]) -> T:
    """Return what it comes to. Raises `Conflict` where it cannot be done as things stand.

    Errors with a name of their own tell themselves; what is left says only that the time is wrong.
    """
    try:
        return await doing
    except UsageError as error:
        if type(error) is not UsageError:
            raise
        raise Conflict(str(error)) from error
