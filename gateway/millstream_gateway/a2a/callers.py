"""Who calls, as the SDK's handlers carry it: found out by the gateway's own guard, in any binding.

The context that the SDK passes around is a bag; here is the one thing that we put into it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio
from a2a.server.context import ServerCallContext

from millstream_gateway.auth.principals import Principal, Role
from millstream_gateway.calls import allowed_queue

_KEY = "millstream.caller"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who sent a request."""

    principal: Principal
    served: Sequence[str]
    #: From which address.
    origin: str
    #: Under which address of ours they called.
    base: str
    #: Returns when nobody waits for the answer any more; a binding that cancels needs none.
    gone: Callable[[], Awaitable[object]] = anyio.sleep_forever

    def queue(self, needs: Role, name: str | None) -> str:
        """Return a queue in which the caller may act so. Raises `Forbidden` or `NotFound`."""
        return allowed_queue(self.principal, needs, self.served, name)

    @property
    def kind(self) -> str:
        """How they showed who they are: a word of a closed set, fit for a metric's label."""
        return self.principal.name.partition(":")[0]


def context_of(caller: Caller) -> ServerCallContext:
    """Return a context of the SDK with the caller in it."""
    return ServerCallContext(state={_KEY: caller})


def caller_of(context: ServerCallContext) -> Caller:
    """Return who called."""
    caller: Caller = context.state[_KEY]
    return caller
