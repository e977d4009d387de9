"""The local catalogue of agents: say again and again that we are here, and show who else is.

Two shapes of it are shown: our own under ``/api/v1/agents``, with a search by skill and tag; and
the one that ACP had for discovery, under ``/agents``, for programs that still ask for it. ACP
became a part of A2A; nothing else of it is spoken here.
"""

from __future__ import annotations

import contextlib

import anyio
from aiohttp import web
from msgspec import Struct

from millstream.errors import StoreError
from millstream.events import AgentDiscovered, Emit, StoreFailed
from millstream.store import registry
from millstream.store.connection import Connection
from millstream.store.registry import Listed
from millstream_gateway.a2a.cards import Cards
from millstream_gateway.a2a.skills import INPUT_MODES
from millstream_gateway.auth.principals import Role
from millstream_gateway.calls import Call, Reply
from millstream_gateway.refusals import NotFound
from millstream_gateway.rest.shapes import encoded
from millstream_gateway.routes import Answer, Handler, Route

#: What is said is believed for as many heartbeats.
_BELIEVED_BEATS = 3


class AgentsQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which agents to show."""

    skill: str | None = None
    tag: str | None = None


class AcpQuery(Struct, kw_only=True):
    """A page, as ACP asks for one."""

    limit: int = 100
    offset: int = 0


class SkillView(Struct, kw_only=True):
    """Something that an agent can be asked for."""

    id: str
    description: str
    tags: list[str]


class AgentView(Struct, kw_only=True):
    """An agent that is there just now."""

    name: str
    url: str
    version: str
    description: str
    skills: list[SkillView]


class AgentList(Struct, kw_only=True):
    """The agents that are there just now."""

    agents: list[AgentView]


class Registry:
    """The handlers, and the duty that says that we are here."""

    def __init__(
        self,
        connection: Connection,
        cards: Cards,
        token: str,
        *,
        url: str,
        heartbeat_s: float,
        emit: Emit,
    ) -> None:
        self._connection = connection
        self._cards = cards
        self._token = token
        self._url = url
        self._heartbeat_s = heartbeat_s
        self._emit = emit

    async def beat_forever(self) -> None:
        """Say that we are here; and, on the way out, that we leave."""
        try:
            while True:
                try:
                    await self._beat()
                except StoreError as error:
                    self._emit(StoreFailed(during="registry", error=str(error)))
                await anyio.sleep(self._heartbeat_s)
        finally:
            # If that fails, it falls off by itself.
            with anyio.move_on_after(1, shield=True), contextlib.suppress(StoreError):
                await registry.withdraw(self._connection, self._token)

    async def _beat(self) -> None:
        card = await self._cards.public(self._url)
        listed = Listed(
            name=card.name,
            url=self._url,
            version=card.version,
            description=card.description,
            skills=tuple(
                registry.Skill(id=skill.id, description=skill.description, tags=tuple(skill.tags))
                for skill in card.skills
            ),
        )
        ttl_s = _BELIEVED_BEATS * self._heartbeat_s
        await registry.announce(self._connection, self._token, listed, ttl_s)

    # -- what is asked -------------------------------------------------------------------------

    def described(self) -> list[Route]:
        """Return the route of our own shape, for the document of the API."""
        return [
            Route(
                method="GET",
                path="/api/v1/agents",
                name="listAgents",
                summary="Find agents, by skill and tag",
                tag="agents",
                handler=self.search,
                needs=Role.VIEWER,
                query=AgentsQuery,
                answers={200: Answer("The agents that are there just now.", AgentList)},
            )
        ]

    def routes(self) -> list[Route]:
        """Return the routes of the other shape."""
        return [
            _acp_route("/agents", "acpAgents", self.acp_list),
            _acp_route("/agents/{name}", "acpAgent", self.acp_one),
        ]

    async def search(self, call: Call) -> Reply:
        """Return the agents that have a skill, or a tag."""
        asked: AgentsQuery = call.query
        found = [each for each in await self._known() if each.matches(asked.skill, asked.tag)]
        self._told(asked.skill or asked.tag, found=bool(found))
        return Reply(value=AgentList(agents=[_view(each) for each in found]))

    async def acp_list(self, call: Call) -> web.StreamResponse:
        """Return a page of agents as ACP has them."""
        asked: AcpQuery = call.query
        known = await self._known()
        first = max(0, asked.offset)
        page = known[first : first + max(0, min(1000, asked.limit))]
        self._told(None, found=bool(page))
        return _json({"agents": [_manifest(each) for each in page]})

    async def acp_one(self, call: Call) -> web.StreamResponse:
        """Return one agent as ACP has it."""
        found = next((each for each in await self._known() if each.name == call.path["name"]), None)
        self._told(None, found=found is not None)
        if found is None:
            raise NotFound("no agent of this name is here just now")
        return _json(_manifest(found))

    async def _known(self) -> list[Listed]:
        return list(await registry.known(self._connection))

    def _told(self, capability: str | None, *, found: bool) -> None:
        # The label is what was asked for only where somebody has it: anybody can ask for anything.
        label = (capability if found else "unknown") if capability else "any"
        self._emit(AgentDiscovered(capability=label, status="found" if found else "missing"))


def _acp_route(path: str, name: str, handler: Handler) -> Route:
    return Route(
        method="GET",
        path=path,
        name=name,
        summary="Find agents, as ACP asked for them",
        tag="agents",
        handler=handler,
        needs=Role.VIEWER,
        query=AcpQuery,
        answers={200: Answer("Agents, as ACP had them.")},
        described=False,
    )


def _view(agent: Listed) -> AgentView:
    return AgentView(
        name=agent.name,
        url=agent.url,
        version=agent.version,
        description=agent.description,
        skills=[
            SkillView(id=each.id, description=each.description, tags=list(each.tags))
            for each in agent.skills
        ],
    )


def _manifest(agent: Listed) -> dict[str, object]:
    """Return an agent as the manifest of ACP's discovery."""
    return {
        "name": agent.name,
        "description": agent.description,
        "input_content_types": list(INPUT_MODES),
        "output_content_types": list(INPUT_MODES),
        "metadata": {
            "capabilities": [
                {"name": each.id, "description": each.description} for each in agent.skills
            ],
            "tags": sorted({tag for each in agent.skills for tag in each.tags}),
            "links": [{"type": "homepage", "url": agent.url}],
        },
    }


def _json(value: object) -> web.Response:
    return web.Response(body=encoded(value), content_type="application/json")
