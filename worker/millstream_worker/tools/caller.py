"""Calls tools: what the executor of a worker sees of this package.

Promise: `prepare` sends nothing that has an effect; `call` makes one attempt, and every way it
can end is a result or one of three errors that say whether the tool may have run. A failure of
a transport never looks like a cancellation. It knows no journal, and repeats nothing.

The SDK and aiohttp are imported when the first server is needed, which is 60 MB later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
from anyio.abc import TaskGroup

from millstream.errors import ToolRejected, UsageError
from millstream.events import Emit, ToolCalled
from millstream.model.elicitation import InputNeeded, Inputs
from millstream.model.tool import Effect, OnUnknown, ToolInfo, ToolResult
from millstream.model.trace import Place
from millstream_worker import groups
from millstream_worker.tools.call import Call
from millstream_worker.tools.faults import Unfit
from millstream_worker.tools.gates import Gate
from millstream_worker.tools.judge import judge
from millstream_worker.tools.policy import effect_of, needs_intent
from millstream_worker.tools.servers import ServerSpec

if TYPE_CHECKING:
    from millstream_worker.environment import MakesRoom
    from millstream_worker.rooms import Rooms
    from millstream_worker.tools.catalogue import Catalogue
    from millstream_worker.tools.peer import Peer

T = TypeVar("T")

MOST_CALLS = 100
KEY_META = "millstream.dev/idempotency-key"
#: The name that MCP gives to the trace context.
TRACE_META = "traceparent"

#: How long servers may take to end when the worker does: longer than the SDK's own patience.
_CLOSE_S = 8.0

#: Stands for the key while arguments are checked; as long as a key is.
_ANY_KEY = "0" * 32


_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCall:
    """A call that was checked and can be sent."""

    server: str
    tool: str
    #: What a repetition would do, as far as it can be relied on.
    effect: Effect
    on_unknown: OnUnknown
    #: Whether it must be recorded before it is sent.
    needs_intent: bool
    #: Hash of everything the server says of its tools.
    catalogue: str
    #: Where it has to find room first, among the calls of all workers.
    room: MakesRoom | None = None


class ToolCaller:
    """The tools of one worker. Enter and leave it in the same task."""

    def __init__(
        self,
        servers: Mapping[str, ServerSpec],
        *,
        emit: Emit,
        max_calls: int = MOST_CALLS,
        rooms: Rooms | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= max_calls <= MOST_CALLS:
            raise UsageError(f"max_calls must lie between 1 and {MOST_CALLS}, not {max_calls}")
        if rooms is None and any(spec.limit is not None for spec in servers.values()):
            raise UsageError("a server with a limit needs rooms that all workers share")
        self._servers = dict(servers)
        self._rooms = rooms
        self._emit = emit
        self._now = now
        self._gate = Gate(max_calls)
        self._peers: dict[str, Peer] = {}
        #: What was found out of each tool, and of which listing: the same for every call of it.
        self._ready: dict[tuple[str, str], tuple[Catalogue, PreparedCall]] = {}
        self._owners: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._owners = anyio.create_task_group()
        await self._owners.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._owners is not None
        with anyio.move_on_after(_CLOSE_S, shield=True):
            async with anyio.create_task_group() as group:
                for peer in self._peers.values():
                    group.start_soon(peer.aclose)
        await groups.end(self._owners)

    async def prepare(
        self, server: str, tool: str, arguments: Mapping[str, Any], *, run_id: str
    ) -> PreparedCall:
        """Find a tool and check the arguments. Raises `ToolRejected` or `ToolNotSent`."""
        spec = self._spec(server)
        peer = self._peer(spec)
        return await self._told(peer, tool, self._prepared(spec, peer, tool, arguments, run_id))

    async def call(
        self,
        prepared: PreparedCall,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float,
        idempotency_key: str,
        run_id: str,
        place: Place | None = None,
        meta: Mapping[str, str] = _NOTHING,
        inputs: Inputs | None = None,
    ) -> ToolResult | InputNeeded:
        """Send a call once. Raises `ToolNotSent`, `ToolInterrupted` or `ToolRejected`.

        ``inputs`` goes back with a call that was answered by a question.
        """
        spec = self._spec(prepared.server)
        peer = self._peer(spec)
        limit_s = min(timeout_s, spec.timeout_s)
        began = self._now()
        traced = {} if place is None else {TRACE_META: place.trace}
        call = Call(
            tool=prepared.tool,
            arguments=_with_key(spec, prepared.tool, arguments, idempotency_key),
            meta={**traced, **meta, KEY_META: idempotency_key},
            run_id=run_id,
            deadline=asyncio.get_running_loop().time() + limit_s,
            inputs=inputs,
        )
        result = await self._told(peer, prepared.tool, peer.call(call), place)

        self._called(peer, prepared.tool, _status(result), began, place)
        return result

    async def offered(self, server: str, *, run_id: str) -> tuple[Sequence[ToolInfo], str]:
        """Return the tools that the configuration allows, and the hash of all of them.

        Raises `ToolRejected` or `ToolNotSent`.
        """
        spec = self._spec(server)
        peer = self._peer(spec)
        listed = peer.catalogue(run_id, asyncio.get_running_loop().time() + spec.timeout_s)
        catalogue = await self._told(peer, "tools/list", listed)
        allowed = [each.info for name, each in catalogue.tools.items() if spec.permits(name)]
        return allowed, catalogue.digest

    async def check(self) -> str | None:
        """Return why no tool can be used; None as long as any server may answer.

        One that is away costs its own calls and nobody else's: no reason not to be ready.
        """
        away = sorted(name for name, peer in self._peers.items() if peer.away)
        if not away or len(away) < len(self._servers):
            return None
        return f"no MCP server answers ({_some(away)})"

    def release_run(self, run_id: str) -> None:
        """End the sessions that belong to a run."""
        for peer in self._peers.values():
            peer.release_run(run_id)

    def _spec(self, server: str) -> ServerSpec:
        spec = self._servers.get(server)
        if spec is None:
            raise ToolRejected(
                f"{server}: no such MCP server; there are {_some(self._servers)}",
                cause="ToolRejected",
            )
        return spec

    def _peer(self, spec: ServerSpec) -> Peer:
        peer = self._peers.get(spec.name)
        if peer is None:
            from millstream_worker.tools.peer import Peer  # noqa: PLC0415  see the docstring

            assert self._owners is not None, "enter the ToolCaller first"
            peer = Peer(
                spec, owners=self._owners, worker_gate=self._gate, emit=self._emit, now=self._now
            )
            self._peers[spec.name] = peer
        return peer

    async def _prepared(
        self, spec: ServerSpec, peer: Peer, tool: str, arguments: Mapping[str, Any], run_id: str
    ) -> PreparedCall:
        if not spec.permits(tool):
            raise Unfit(f"the configuration does not allow it; it allows {spec.permitted}")
        catalogue = await peer.catalogue(run_id, asyncio.get_running_loop().time() + spec.timeout_s)
        described = catalogue.tools.get(tool)
        if described is None:
            raise Unfit(f"no such tool; there are {_some(filter(spec.permits, catalogue.tools))}")
        described.check(_with_key(spec, tool, arguments, _ANY_KEY))

        before = self._ready.get((spec.name, tool))
        if before is not None and before[0] is catalogue:
            return before[1]
        rule = spec.rule(tool)
        prepared = PreparedCall(
            server=spec.name,
            tool=tool,
            effect=effect_of(rule.effect, described.hints, trusted=spec.trust_annotations),
            on_unknown=rule.on_unknown,
            needs_intent=needs_intent(rule.effect, described.hints),
            catalogue=catalogue.digest,
            room=self._room(spec),
        )
        self._ready[spec.name, tool] = catalogue, prepared
        return prepared

    def _room(self, spec: ServerSpec) -> MakesRoom | None:
        rooms, limit = self._rooms, spec.limit
        if rooms is None or limit is None:
            return None
        return lambda queue: rooms.room(queue, f"tools/{spec.name}", limit)

    async def _told(
        self, peer: Peer, tool: str, acting: Awaitable[T], place: Place | None = None
    ) -> T:
        """Report how a call ended badly, and raise the error that the workflow sees."""
        began = self._now()
        try:
            return await acting
        except anyio.get_cancelled_exc_class():
            self._called(peer, tool, "cancelled", began, place)
            raise
        except Exception as fault:  # noqa: BLE001  whatever it is, the call must end by the matrix
            verdict = judge(fault, call=f"{peer.spec.name}/{tool}", redact=peer.redactor)
            self._called(peer, tool, verdict.status, began, place)
            # Without its cause: that text was not redacted.
            raise verdict.error from None

    def _called(
        self, peer: Peer, tool: str, status: str, began: float, place: Place | None
    ) -> None:
        # A label of a metric: only names that the server has, not whatever a workflow asks for.
        known = peer.known is not None and tool in peer.known.tools
        self._emit(
            ToolCalled(
                server=peer.spec.name,
                tool=tool if known else "unknown",
                status=status,
                took_s=self._now() - began,
                trace=place and place.trace,
                parent=place and place.parent,
            )
        )


def _with_key(
    spec: ServerSpec, tool: str, arguments: Mapping[str, Any], key: str
) -> Mapping[str, Any]:
    name = spec.rule(tool).key_argument
    return arguments if name is None else {**arguments, name: key}


def _status(result: ToolResult | InputNeeded) -> str:
    if isinstance(result, InputNeeded):
        return "input_required"
    return "is_error" if result.is_error else "ok"


def _some(names: Iterable[str]) -> str:
    """Return some names, for whoever mistyped one."""
    sorted_ = sorted(names)
    more = f" and {len(sorted_) - 20} more" if len(sorted_) > 20 else ""
    return f"{', '.join(sorted_[:20])}{more}" or "none"
