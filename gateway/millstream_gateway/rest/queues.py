"""Queues over HTTP: what they hold, what can be run in them, their dead letters, and a pause.

A queue is shared by all tenants: who acts for one of them cannot pause it for the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from millstream.client import Client
from millstream.model.run import Depth
from millstream.model.selection import Selection
from millstream.store import catalogues
from millstream.store.connection import Connection
from millstream_gateway.auth.principals import ALL
from millstream_gateway.calls import Call, Reply
from millstream_gateway.refusals import Forbidden
from millstream_gateway.rest import operating_shapes, shapes
from millstream_gateway.rest.acting import Acting
from millstream_gateway.rest.lists import Lists
from millstream_gateway.rest.runs import visible_to


class Queues:
    """The handlers."""

    def __init__(
        self, client: Client, connection: Connection, acting: Acting, lists: Lists
    ) -> None:
        self._client = client
        self._connection = connection
        self._acting = acting
        self._lists = lists

    async def list(self, call: Call) -> Reply:
        """Show the queues that the caller may see."""
        names = [name for name in call.served if call.principal.may(call.needs, name)]
        views = [await self.viewed(name) for name in names]
        return Reply(value=shapes.QueueList(queues=views))

    async def show(self, call: Call) -> Reply:
        """Show one queue."""
        return Reply(value=await self.viewed(call.queue(call.path["queue"])))

    async def workflows(self, call: Call) -> Reply:
        """Show what the workers of a queue can run."""
        queue = call.queue(call.query.queue)
        found = await catalogues.known(self._connection, queue)
        views = [
            shapes.WorkflowView(
                name=each.name,
                version=each.version,
                description=each.description,
                arguments=each.arguments,
            )
            for each in found
        ]
        return Reply(value=shapes.WorkflowList(queue=queue, workflows=views))

    async def dead(self, call: Call) -> Reply:
        """List dead letters, a page at a time."""
        asked: shapes.DeadQuery = call.query
        wanted = Selection(workflow=asked.workflow, cause=asked.cause)
        found = await self._lists.page(
            call,
            call.queue(call.path["queue"]),
            dead=True,
            matches=visible_to(call, wanted),
            limit=asked.limit,
            cursor=asked.cursor,
        )
        runs = [shapes.view(status) for status in found.runs]
        return Reply(value=shapes.RunList(runs=runs, next=found.cursor))

    async def pause(self, call: Call) -> Reply:
        """Have workers take nothing new from a queue."""
        return await self._turned(call, "pause", self._client.pause, paused=True)

    async def resume(self, call: Call) -> Reply:
        """Let a paused queue go on."""
        return await self._turned(call, "resume", self._client.resume, paused=False)

    async def _turned(
        self, call: Call, action: str, turn: Callable[[str], Awaitable[bool]], *, paused: bool
    ) -> Reply:
        queue = call.queue(call.path["queue"])
        tenant = call.principal.tenant
        if tenant not in {None, ALL}:
            raise Forbidden(f"queue {queue!r} is not tenant {tenant!r}'s alone")
        changed = await self._acting.act(call, action, queue, queue, lambda: turn(queue))
        return Reply(value=operating_shapes.Paused(queue=queue, paused=paused, changed=changed))

    async def viewed(self, name: str, depth: Depth | None = None) -> shapes.QueueView:
        """Return what a queue holds; ``depth``, where somebody has looked just now."""
        depth = await self._client.depth(name) if depth is None else depth
        agents = await self._client.agents(name)
        return shapes.QueueView(
            queue=name,
            waiting=depth.waiting,
            running=depth.running,
            scheduled=depth.scheduled,
            parked=depth.parked,
            dead=depth.dead,
            oldest_s=depth.oldest_s,
            workers=len(agents),
            slots=sum(agent.concurrency for agent in agents),
            paused=depth.paused,
        )
