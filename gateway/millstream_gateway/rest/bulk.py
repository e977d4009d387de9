"""Act on many runs at once: those that are named, or all that match, a page at a time.

Promise: what is meant and cannot be seen is `unknown`, like what does not exist; a request looks at
a bounded number of runs, and says where to go on; a dry run does nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from millstream.client import Client
from millstream.errors import UnknownRun
from millstream.model.run import FINAL, RunState, RunStatus
from millstream_gateway.calls import Call, Reply
from millstream_gateway.refusals import Malformed
from millstream_gateway.rest.acting import Acting
from millstream_gateway.rest.lists import Lists
from millstream_gateway.rest.operating_shapes import Chosen, Done
from millstream_gateway.rest.runs import filters_of, visible_to

_OPEN = frozenset(RunState) - FINAL
#: What can be started once more.
_STOPPED = frozenset({RunState.FAILED, RunState.CANCELLED})
_UNKNOWN = "unknown"
_Many = Callable[[str, Iterable[str]], Awaitable[Mapping[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verb:
    """Something that is done to runs."""

    name: str
    many: _Many
    #: In which states a run is worth it, and in which it is meant where nothing is said.
    of: frozenset[RunState]
    usual: frozenset[RunState]
    dead: bool = False

    def states(self, said: Sequence[RunState]) -> frozenset[RunState]:
        """Return in which states runs are looked for."""
        return self.usual if not said else self.of & frozenset(said)


class Bulk:
    """The handlers."""

    def __init__(self, client: Client, acting: Acting, lists: Lists) -> None:
        self._client = client
        self._acting = acting
        self._lists = lists
        many = client.retry_many
        failed = frozenset({RunState.FAILED})
        self._cancel = _Verb(name="cancel", many=client.cancel_many, of=_OPEN, usual=_OPEN)
        self._retry = _Verb(name="retry", many=many, of=_STOPPED, usual=failed)
        self._replay = _Verb(name="replay", many=many, of=failed, usual=failed, dead=True)

    async def cancel(self, call: Call) -> Reply:
        """Ask runs to end."""
        return Reply(value=await self._done(call, self._cancel, call.path["queue"], call.body))

    async def retry(self, call: Call) -> Reply:
        """Start failed or cancelled runs once more."""
        return Reply(value=await self._done(call, self._retry, call.path["queue"], call.body))

    async def replay(self, call: Call) -> Reply:
        """Start dead letters once more."""
        return Reply(value=await self.replayed(call, call.path["queue"], call.body))

    async def replayed(self, call: Call, queue: str, asked: Chosen) -> Done:
        """Start dead letters of a queue once more; return what became of each."""
        return await self._done(call, self._replay, queue, asked)

    async def _done(self, call: Call, verb: _Verb, name: str, asked: Chosen) -> Done:
        queue = call.queue(name)
        if (asked.ids is None) is not asked.all or (asked.ids and asked.filtered):
            raise Malformed("say which: ids, or all with filters")
        chosen, cursor = await self._chosen(call, verb, queue, asked)
        done = dict.fromkeys(asked.ids or (), _UNKNOWN)
        done |= {status.id: str(status.state) for status in chosen}
        meant = [status.id for status in chosen if status.state in verb.of]
        if meant and not asked.dry_run:
            answers = await self._acting.act(
                call, f"{verb.name} many", queue, f"{len(meant)} runs",
                lambda: verb.many(queue, meant),
            )  # fmt: skip
            done |= {run_id: answer or _UNKNOWN for run_id, answer in answers.items()}
        return Done(runs=done, next=cursor)

    async def _chosen(
        self, call: Call, verb: _Verb, queue: str, asked: Chosen
    ) -> tuple[Sequence[RunStatus], str | None]:
        if asked.ids is not None:
            return await self._named(call, queue, asked.ids), None
        found = await self._lists.page(
            call,
            queue,
            states=verb.states(asked.state),
            dead=verb.dead,
            matches=visible_to(call, filters_of(asked)),
            limit=asked.limit,
            cursor=asked.cursor,
        )
        return found.runs, found.cursor

    async def _named(self, call: Call, queue: str, ids: Sequence[str]) -> list[RunStatus]:
        found = []
        for run_id in dict.fromkeys(ids):
            try:
                status = await self._client.run(run_id, queue).status()
            except UnknownRun:
                continue
            if call.principal.sees(status.tenant):
                found.append(status)
        return found
