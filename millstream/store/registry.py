"""The agents that are about: each says of itself what it is, again and again, and falls off.

For people and programs that look for an agent. Who may be called is never decided by it: that
stands in the configuration of whoever calls.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from millstream.model.limits import KIB
from millstream.store import boards
from millstream.store.boards import Board
from millstream.store.connection import Connection

#: Bytes of what one agent says; at the bound descriptions are left out, skills never.
MOST_BYTES = 64 * KIB
_BOARD = Board("agents")


class Skill(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an agent can be asked for."""

    id: str
    description: str = ""
    tags: tuple[str, ...] = ()


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """An agent, as it says itself."""

    name: str
    #: Where its card is fetched: under ``/.well-known/agent-card.json`` there.
    url: str
    version: str
    description: str = ""
    skills: tuple[Skill, ...] = ()

    def matches(self, skill: str | None, tag: str | None) -> bool:
        """Whether one of its skills is, and has, what is asked for."""
        if skill is None and tag is None:
            return True
        return any(
            (skill is None or each.id == skill) and (tag is None or tag in each.tags)
            for each in self.skills
        )


async def announce(connection: Connection, token: str, agent: Listed, ttl_s: float) -> None:
    """Say that an agent is there, for so long. Raises `StoreError`."""
    data = msgspec.json.encode(agent)
    if len(data) > MOST_BYTES:
        bare = tuple(Skill(id=each.id, tags=each.tags) for each in agent.skills)
        data = msgspec.json.encode(msgspec.structs.replace(agent, skills=bare))
    await boards.pin(connection, _BOARD, token, data, ttl_s)


async def withdraw(connection: Connection, token: str) -> None:
    """Say that an agent leaves. Raises `StoreError`."""
    await boards.pin(connection, _BOARD, token, b"", 1)


async def known(connection: Connection) -> Sequence[Listed]:
    """Return the agents that are there, by name; replicas of one are one. Raises `StoreError`."""
    notes = await boards.read(connection, _BOARD)
    rows = [msgspec.json.decode(data, type=Listed) for _, data in sorted(notes.items())]
    found = {(each.name, each.url): each for each in rows}
    return [found[key] for key in sorted(found)]
