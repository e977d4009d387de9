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
from typing import Any, TypeVar

from millstream.errors import StoreError, Unaudited, UnfitStore
from millstream.model.audit import Act
from millstream.store import audit
from millstream.store.connection import Connection

Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])
#: What a result may say of itself, and what is told of an argument.
_LONGEST = 500
#: Acts that leave in one call.
_PART = 200


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
        await self.tell_each(verb, queue=queue, results={target: result}, details=details)

    async def tell_each(
        self, verb: str, *, queue: str, results: Mapping[str, str], details: Mapping[str, Any]
    ) -> None:
        """Append what came of a verb for each of many targets, a few hundred in one call."""
        actor, where = self._acting.get(self._own)
        if actor is None:
            return

        acts = [
            Act(
                actor=actor,
                origin=where,
                verb=verb,
                queue=queue,
                target=target,
                result=result[:_LONGEST],
                details=details,
            )
            for target, result in results.items()
        ]
        for first in range(0, len(acts), _PART):
            part = acts[first : first + _PART]
            try:
                await self._insist(functools.partial(audit.append, self._connection, part))
            except (StoreError, UnfitStore) as error:
                raise Unaudited(verb, part[0].target, part[0].result) from error


def run_or_queue(on: Any = "default", *_: Any, **given: Any) -> tuple[str, str]:
    """Return the queue and the target of a verb whose first argument is a run, or a queue."""
    on = given.get("queue", on)
    return (on, on) if isinstance(on, str) else (on.queue, on.id)


def queue_and_run(queue: str, run_id: str, *_: Any, **__: Any) -> tuple[str, str]:
    """Return them for a verb that is given both."""
    return queue, run_id


def schedule(on: Any, *_: Any, **__: Any) -> tuple[str, str]:
    """Return them for a verb about a schedule, or its name: it belongs to no queue."""
    return "", on if isinstance(on, str) else str(on.name)


def audited(
    verb: str, of: Callable[..., tuple[str, str]] = run_or_queue
) -> Callable[[Method], Method]:
    """Return a decorator for a method whose object has an `Auditor`, as ``auditor``.

    ``of`` says from the arguments which queue and target it is about. What else it is given is
    told only where it is a number, a truth or a name by keyword: the rest may be secret.
    """

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        async def told(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            queue, target = of(*args, **kwargs)
            details = {
                name: given[:_LONGEST] if isinstance(given, str) else given
                for name, given in kwargs.items()
                if isinstance(given, str | int | float)
            }
            note = functools.partial(
                self.auditor.tell, verb, queue=queue, target=target, details=details
            )
            try:
                result = await method(self, *args, **kwargs)
            except Exception as error:
                # Its name alone: a message may repeat what was given, such as a token.
                await note(result=type(error).__name__)
                raise
            await note(result=_said(result))
            return result

        return told  # type: ignore[return-value]  # it is called like the method, and answers like it

    return decorate


def _said(result: Any) -> str:
    """Return what came of a verb in a word: a state, or that it was done."""
    return str(result) if isinstance(result, str) else "ok"


def origin() -> str:
    """Return where this program runs."""
    return f"{socket.gethostname()} pid {os.getpid()}"
