"""The catalogue of agents: who is there says so, and whoever looks finds it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millstream.errors import ConfigError
from millstream.events import AgentDiscovered
from millstream.store import catalogues, registry
from millstream.store.registry import Listed, Skill
from millstream_worker.described import describe
from tests.gateway.issuer import Issuer
from tests.gateway.served import served
from tests.gateway.test_a2a import app


async def test_agents_are_found_by_skill_and_tag(memory_url: str, issuer: Issuer) -> None:
    """Each gateway says what it offers; others may, too; who leaves is gone at once."""
    settings: dict[str, Any] = {
        "acp_registry": True,
        "public_url": "https://us.example",
        "agent_name": "us",
    }
    async with served(memory_url, issuer) as looker:
        data = catalogues.note(describe(app))
        await catalogues.publish(looker.connection, "default", data, 600)
        other = Listed(
            name="them", url="https://them.example", version="1",
            skills=(Skill(id="translate", tags=("language",)),),
        )  # fmt: skip
        await registry.announce(looker.connection, "t", other, 60)
        async with served(memory_url, issuer, **settings) as us:
            while len(await registry.known(us.connection)) < 2:
                pass
            _, every = await us.get("/agents")
            assert [each["name"] for each in every["agents"]] == ["them", "us"]
            _, found = await us.get("/agents?skill=translate")
            assert [each["url"] for each in found["agents"]] == ["https://them.example"]
            _, found = await us.get("/agents?tag=workflow&skill=greet")
            assert [each["name"] for each in found["agents"]] == ["us"]
            assert (await us.get("/agents?tag=language&skill=greet"))[1] == {"agents": []}
            assert (await us.get("/agents?what=else"))[0] == 400

            _, manifests = await us.ask("GET", "/agents?limit=1&offset=1")
            (manifest,) = manifests["agents"]
            assert (manifest["name"], manifest["metadata"]["tags"]) == (
                "us", ["queue:default", "workflow"]
            )  # fmt: skip
            assert (await us.ask("GET", "/agents/them"))[1]["name"] == "them"
            assert (await us.ask("GET", "/agents/nobody"))[0] == 404
            assert (await us.ask("GET", "/agents", token=""))[0] == 401
            asked = [(e.capability, e.status) for e in us.of(AgentDiscovered)]
            assert ("translate", "found") in asked
            assert ("unknown", "missing") in asked
            _, document = await us.ask("GET", "/api/v1/openapi.json")
            assert "/api/v1/agents" in document["paths"]
        assert [each.name for each in await registry.known(looker.connection)] == ["them"]
        assert (await looker.get("/agents"))[0] == 404


async def test_a_catalogue_needs_to_say_where_its_agent_is(memory_url: str, issuer: Issuer) -> None:
    """An address that others cannot reach would be worse than none."""
    with pytest.raises(ConfigError, match="--public-url"):
        async with served(memory_url, issuer, acp_registry=True):
            pass


async def test_what_an_agent_says_is_bounded(memory_url: str, issuer: Issuer) -> None:
    """Descriptions are left out first, skills never."""
    skills = tuple(Skill(id=f"s{n}", description="x" * 1000) for n in range(200))
    async with served(memory_url, issuer) as gateway:
        large = Listed(name="large", url="https://l.example", version="1", skills=skills)
        await registry.announce(gateway.connection, "l", large, 60)
        (found,) = await registry.known(gateway.connection)
    assert [each.id for each in found.skills] == [each.id for each in skills]
    assert len(msgspec.json.encode(found)) < registry.MOST_BYTES
