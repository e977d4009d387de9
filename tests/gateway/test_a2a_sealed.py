"""What other agents say and show us, where there are keys: nothing of it can be read in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from millstream.errors import SealBroken
from millstream.store import catalogues, conversations, keyring
from millstream.store.conversations import Subject
from millstream_gateway.a2a import courier
from millstream_worker.described import describe
from tests.gateway.agents import Peer, peer
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served, served, worker_of
from tests.gateway.test_a2a import app
from tests.gateway.test_push import hook
from tests.test_sealing import HUSH, contents, put

ONE, TWO = keyring.fresh("one"), keyring.fresh("two")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(ONE, "utf-8")
    return file


@pytest.fixture
async def gateway(
    memory_url: str, issuer: Issuer, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    """A gateway and a worker that seal."""
    monkeypatch.setattr(courier, "_LOOK_S", 0.01)
    monkeypatch.setattr(courier, "_SOONEST_S", 0.01)
    async with (
        served(memory_url, issuer, push_private=True, seal_keys=str(keys)) as gateway,
        worker_of(gateway.store, app, str(keys)),
    ):
        data = catalogues.note(describe(app))
        await catalogues.publish(gateway.connection, "default", data, 600)
        yield gateway


async def secret(gateway: Served) -> list[str]:
    """Return the keys in which something is to be read that should not be."""
    found = await contents(gateway.connection)
    return [key for key, data in found.items() if HUSH.encode() in data]


async def begun(agent: Peer, url: str) -> dict[str, Any]:
    """Begin and answer a task in which everything that an agent says and shows is secret."""
    push = {
        "url": f"{url}?{HUSH}",
        "token": f"{HUSH}-token",
        "authentication": {"scheme": "Bearer", "credentials": f"{HUSH}-credentials"},
    }
    names: dict[str, Any] = {"message_id": f"{HUSH}-m1", "context": f"{HUSH}-c1"}
    asked = await agent.send(f"{HUSH} pies", skill="order", push=push, **names)
    return await agent.send({"n": f"{HUSH} 3"}, task=asked["id"], message_id=f"{HUSH}-m2")


async def test_nothing_that_agents_say_is_to_be_read_and_the_key_may_change(
    gateway: Served, keys: Path
) -> None:
    """Messages, conversation, addresses and credentials; they are shown and sent as they were."""
    async with hook() as there, peer(gateway.url, "JSONRPC", gateway.token) as agent:
        task = await begun(agent, there.url)
        await there.until("input_required")
        assert await secret(gateway) == []

        put(keys, f"{TWO}\n{ONE}\n")
        assert gateway.connection.sealer is not None
        gateway.connection.sealer.ring.names()  # it is looked at
        before = await gateway.client.sealing.counted_talks()
        renewed = await gateway.client.sealing.renew_talks()
        again = await gateway.client.sealing.renew_talks()
        await gateway.client.sealing.renew()
        put(keys, TWO)

        fields = 5  # the conversation, its owner, two messages and a wish
        assert (before.keys, before.changed) == ({"one": fields}, 0)
        assert (renewed.keys, renewed.changed) == ({"two": fields}, fields)
        assert (again.keys, again.changed) == ({"two": fields}, 0)
        assert await secret(gateway) == []
        done = await agent.send("yes", task=task["id"])
        await there.until("completed")

    assert done["contextId"] == f"{HUSH}-c1"
    assert [each["messageId"] for each in done["history"]][:2] == [f"{HUSH}-m1", f"{HUSH}-m2"]
    assert there.headers[-1]["X-A2A-Notification-Token"] == f"{HUSH}-token"
    assert there.headers[-1]["Authorization"] == f"Bearer {HUSH}-credentials"


async def test_what_stood_in_clear_is_sealed_and_a_swapped_field_is_refused(
    gateway: Served,
) -> None:
    """A ring may come later; and nobody gets what belongs to another task."""
    one, other = Subject("default", "r1"), Subject("default", "r2")
    for subject in (one, other):
        await conversations.begin(
            gateway.connection, subject, context=HUSH, owner=f"token:{subject.run_id}"
        )
    sealer, gateway.connection.sealer = gateway.connection.sealer, None
    await conversations.add(gateway.connection, one, "m1", HUSH.encode())
    gateway.connection.sealer = sealer
    assert await secret(gateway) == [one.key]

    renewed = await gateway.client.sealing.renew_talks()
    assert (renewed.changed, await secret(gateway)) == (1, [])
    found = await conversations.read(gateway.connection, one)
    assert (found.has("m1"), found.messages[0][1]) == (True, HUSH.encode())
    redis = gateway.connection.client
    await redis.hset(other.key, "owner", await redis.hget(one.key, "owner"))
    tally = await gateway.client.sealing.counted_talks()
    assert tally.keys == {"one": 5}
    with pytest.raises(SealBroken, match="the talk 'owner' of run 'r2'"):
        await conversations.read(gateway.connection, other)
