"""Tells the audit trail what operators do through a client, when the client knows who acts.

A verb is told after it was done, with what came of it, also when it failed. One that was done and
could not be told raises `Unaudited`: nobody may believe that it stands in the trail.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from millstream.errors import StoreError, Unaudited, UnfitStore
from millstream.model.audit import Act
from millstream.store import audit
from millstream.store.connection import Connection

if TYPE_CHECKING:
    from millstream.client.asynchronous import Client

P = ParamSpec("P")
T = TypeVar("T")
#: What a result may say of itself.
_LONGEST = 500


class Auditor:
    """Writes what one client does. Without an actor nothing is written, and nothing sent."""

    def __init__(
        self,
        connection: Connection,
        insist: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]],
        actor: str | None,
    ) -> None:
        self._connection = connection
        self._insist = insist
        self._acting: ContextVar[tuple[str | None, str]] = ContextVar("acting")
        self._own = (actor, origin())

    @contextlib.contextmanager
    def acting(self, actor: str, origin: str) -> Iterator[None]:
        """Have what is done inside, by this task, told as somebody else's doing."""
        token = self._acting.set((actor, origin))
        try:
            yield
        finally:
            self._acting.reset(token)

    async def tell(
        self, verb: str, *, queue: str, target: str, result: str, details: Mapping[str, Any]
    ) -> None:
        """Append an act to the trail. Raises `Unaudited`."""
        actor, where = self._acting.get(self._own)
        if actor is None:
            return

        act = Act(
            actor=actor,
            origin=where,
            verb=verb,
            queue=queue,
            target=target,
            result=result[:_LONGEST],
            details=details,
        )
        try:
            await self._insist(lambda: audit.append(self._connection, [act]))
        except (StoreError, UnfitStore) as error:
            raise Unaudited(verb, target, result) from error


def audited(
    verb: str,
) -> Callable[
    [Callable[Concatenate[Client, Any, P], Awaitable[T]]],
    Callable[Concatenate[Client, Any, P], Awaitable[T]],
]:
    """Return a decorator for the verbs of a client whose first argument is a run or a queue."""

    def decorate(
        method: Callable[Concatenate[Client, Any, P], Awaitable[T]],
    ) -> Callable[Concatenate[Client, Any, P], Awaitable[T]]:
        @functools.wraps(method)
        async def told(client: Client, on: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
            queue, target = (on, on) if isinstance(on, str) else (on.queue, on.id)
            tell = functools.partial(
                client.auditor.tell, verb, queue=queue, target=target, details=kwargs
            )
            try:
                result = await method(client, on, *args, **kwargs)
            except Exception as error:
                await tell(result=f"{type(error).__name__}: {error}")
                raise
            await tell(result="ok" if result is None else str(result))
            return result

        return told

    return decorate


def origin() -> str:
    """Return where this program runs."""
    return f"{socket.gethostname()} pid {os.getpid()}"
