"""Ask other agents: send a message, look at a task, find one again, stop one.

Promise: only agents that are declared are called, at addresses that they are declared with; an
error says whether the message left us, since that decides whether it may be sent again; answers are
bounded. Nothing is kept of a task: what a run needs of it stands in its journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

import aiohttp
import anyio
from yarl import URL

from millstream.errors import AgentNotReached, AgentRejected, AgentUntrusted
from millstream.events import AgentDiscovered, Emit, MessageSent
from millstream_worker.agents.asked import MessageLost
from millstream_worker.agents.cards import VERSION, Cards
from millstream_worker.agents.declared import AgentSpec
from millstream_worker.agents.signatures import Untrusted, Verifier
from millstream_worker.tools.credentials import Redactor
from millstream_worker.tools.egress import check_host
from millstream_worker.tools.faults import (
    AddressRefused,
    Fault,
    Malformed,
    Refused,
    RpcError,
    Unfit,
    Unsent,
)
from millstream_worker.tools.messages import decode, encode, read_bounded, refusal, settle
from millstream_worker.tools.sockets import Ticket, faults, open_http

#: One request; a task may take as long as it likes.
ANSWER_S = 30.0
#: What an agent says when it does not know itself what went wrong.
_INTERNAL = -32603
#: It has no such task, or none that can be cancelled: it has ended, or the agent never cancels.
_NOT_STOPPED = frozenset({-32001, -32002, -32004})


@dataclass(slots=True)
class _Peer:
    """One agent, with what is needed to call it."""

    spec: AgentSpec
    http: aiohttp.ClientSession
    cards: Cards
    headers: Callable[[], Mapping[str, str]]


class AgentCaller:
    """Calls the agents that are declared. Use it as an async context manager."""

    def __init__(
        self, specs: Mapping[str, AgentSpec], *, emit: Emit, mono: Callable[[], float]
    ) -> None:
        self._specs = specs
        self._emit = emit
        self._mono = mono
        self._redactor = Redactor(sealed for spec in specs.values() for sealed in spec.sealed)
        self._peers: dict[str, _Peer] = {}
        self._stack = AsyncExitStack()
        self._ids = count(1)

    async def __aenter__(self) -> AgentCaller:
        await self._stack.__aenter__()
        for spec in self._specs.values():
            self._peers[spec.name] = await self._opened(spec)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.__aexit__(None, None, None)

    async def _opened(self, spec: AgentSpec) -> _Peer:
        url = URL(self._redactor.reveal(spec.url))
        http = await self._stack.enter_async_context(open_http(allow_private=spec.allow_private))

        def headers() -> Mapping[str, str]:
            return {name: self._redactor.reveal(text) for name, text in spec.headers.items()}

        verifier = None
        if spec.trust is not None:
            private = spec.allow_private
            verifier = Verifier(spec.trust, http, allow_private=private, mono=self._mono)
        return _Peer(spec, http, Cards(http, url, headers, self._mono, verifier), headers)

    # -- which agent ---------------------------------------------------------------------------

    async def resolve(self, wanted: str) -> str:
        """Return the declared agent that is meant: by its name, its address, or a skill.

        Raises `AgentRejected` when there is none, or more than one has the skill.
        """
        for name, spec in self._specs.items():
            if wanted in {name, spec.url.reveal()}:
                return name
        found, doubted = [], []
        for name in self._specs:
            try:
                if await self._has(name, wanted):
                    found.append(name)
            except Untrusted:
                doubted.append(name)
        status = "found" if found else "missing"
        # The label is the skill only where one of ours has it: anybody can ask for anything.
        capability = wanted if found else "unknown"
        self._emit(AgentDiscovered(capability=capability, status=status))
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} declared agents have" if found else "no declared agent is, or has,"
        raise AgentRejected(
            f"{what} {wanted!r}; call it by a name that stands in the file that --agents names"
            + (f" (cards that are not believed: {', '.join(doubted)})" if doubted else ""),
            cause="AgentRejected",
        )

    async def _has(self, name: str, skill: str) -> bool:
        peer = self._peers[name]
        if skill in peer.spec.skills:
            return True
        try:
            return skill in (await self._checked(peer).card()).skills
        except Untrusted:
            raise
        except Fault:
            return False

    def resends(self, agent: str) -> bool:
        """Whether an agent drops a message that it has had before."""
        return self._peer(agent).spec.resend

    @property
    def names(self) -> frozenset[str]:
        """Which agents may be asked."""
        return frozenset(self._specs)

    # -- what is asked -------------------------------------------------------------------------

    async def send(self, agent: str, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send a message; return the task or the message that answers it.

        Raises `AgentNotReached` when it did not leave us or was not taken, `AgentRejected`, or
        `MessageLost`.
        """
        params = {"message": dict(message), "configuration": {"returnImmediately": True}}
        began = self._mono()
        result = await self._ask(agent, "SendMessage", params)
        self._emit(MessageSent(kind="task", recipient=agent, took_s=self._mono() - began))
        return result

    async def task(self, agent: str, task_id: str) -> dict[str, Any]:
        """Return a task as it is. Raises as `send`."""
        return await self._ask(agent, "GetTask", {"id": task_id})

    async def find(self, agent: str, context_id: str) -> dict[str, Any] | None:
        """Return the task of a conversation that only we know of; None when there is none.

        Raises `MessageLost` when the agent cannot be asked that.
        """
        params = {"contextId": context_id, "pageSize": 10}
        try:
            page = await self._ask(agent, "ListTasks", params)
        except AgentRejected as error:
            raise MessageLost(str(error)) from error
        tasks = page.get("tasks")
        found = [dict(each) for each in tasks if isinstance(each, dict)] if tasks else []
        return next((each for each in found if each.get("contextId") == context_id), None)

    async def cancel(self, agent: str, task_id: str) -> None:
        """Have an agent stop a task; that it cannot be stopped is an answer. Raises as `send`."""
        began = self._mono()
        try:
            await self._ask(agent, "CancelTask", {"id": task_id})
        except AgentRejected as error:
            if getattr(error.__cause__, "code", None) not in _NOT_STOPPED:
                raise
        self._emit(MessageSent(kind="cancel", recipient=agent, took_s=self._mono() - began))

    async def _ask(self, agent: str, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        peer = self._peer(agent)
        try:
            rpc = (await self._checked(peer).card()).rpc
            check_host(rpc.host or "", allow_private=peer.spec.allow_private)
            return await self._exchange(peer, rpc, method, params)
        except Fault as fault:
            raise self._judged(agent, fault) from fault

    async def _exchange(
        self, peer: _Peer, url: URL, method: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        number = next(self._ids)
        ticket = Ticket()
        with faults(ticket), anyio.fail_after(ANSWER_S):
            async with peer.http.post(
                url,
                data=encode(method, params, id=number),
                headers={
                    **peer.headers(),
                    "accept": "application/json",
                    "accept-encoding": "identity",
                    "content-type": "application/json",
                    "A2A-Version": VERSION,
                },
                allow_redirects=False,
                trace_request_ctx=ticket,
            ) as answer:
                if answer.status != 200:
                    raise await refusal(answer)
                message = decode(await read_bounded(answer, peer.spec.max_answer))
        if message.get("id") not in {number, None}:
            raise Malformed("its answer belongs to another request")
        return settle(message, modern=False)

    def _checked(self, peer: _Peer) -> Cards:
        host = URL(self._redactor.reveal(peer.spec.url)).host or ""
        check_host(host, allow_private=peer.spec.allow_private)
        return peer.cards

    def _peer(self, agent: str) -> _Peer:
        peer = self._peers.get(agent)
        if peer is None:
            raise AgentRejected(
                f"agent {agent!r} is not declared here any more; declare it in the file that"
                " --agents names",
                cause="AgentRejected",
            )
        return peer

    def _judged(self, agent: str, fault: Fault) -> Exception:
        """Return what a fault means to whoever sent a message."""
        told = f"agent {agent}: {self._redactor(str(fault))}"
        match fault:
            # It did not leave us, or they say themselves that they did not take it.
            case Unsent() | Refused(status=429 | 503):
                return AgentNotReached(told, cause="AgentNotReached", retry_after=fault.retry_after)
            case Untrusted():
                return AgentUntrusted(told, cause="AgentUntrusted")
            case Unfit() | AddressRefused():
                return AgentRejected(told, cause="AgentRejected")
            case Refused(status=status) if status < 500:
                return AgentRejected(told, cause="AgentRejected")
            case RpcError(code=code) if code != _INTERNAL:
                return AgentRejected(told, cause="AgentRejected")
            case _:
                return MessageLost(told)
