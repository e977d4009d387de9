"""What operators do through a client stands in the trail, when the client knows who acts."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest

from millstream import Client, Enqueue
from millstream.errors import Unaudited, UnknownRun, UnknownTrial, UsageError
from millstream.model.audit import Entry, entry_of
from millstream.model.schedule import Schedule
from millstream.store import audit
from millstream.store.connection import Connection
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio
_names = itertools.count()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client(f"memory://audit-{next(_names)}", actor="ada@shop") as client:
        yield client


async def trail(client: Client) -> list[Entry]:
    return [entry_of(line.text) async for line in audit.lines(client._connection)]


async def test_verbs_of_operators_are_told_with_what_came_of_them(client: Client) -> None:
    run = await client.enqueue("w", id="r1")
    await run.cancel()
    await run.retry()
    await client.resize("default", lanes=2)

    found = await trail(client)

    assert [(x.verb, x.target, x.result) for x in found[:2]] == [
        ("cancel", "r1", "cancelled"),
        ("retry", "r1", "ok"),
    ]
    assert (found[2].verb, found[2].queue, found[2].details) == ("resize", "default", {"lanes": 2})
    assert {x.actor for x in found} == {"ada@shop"}
    assert all("pid" in x.origin for x in found)


async def test_what_was_refused_is_told_too(client: Client) -> None:
    """Whoever tries to cancel what is not theirs is worth knowing."""
    with pytest.raises(UnknownRun):
        await client.run("no-such").cancel()
    with pytest.raises(UsageError):
        await client.resize("default", lanes=0)

    assert [(x.verb, x.result.partition(":")[0]) for x in await trail(client)] == [
        ("cancel", "UnknownRun"),
        ("resize", "UsageError"),
    ]


async def test_what_is_told_of_an_argument_is_bounded(client: Client) -> None:
    """A hundred thousand entries are kept, whatever reasons people give."""
    with pytest.raises(UnknownTrial):
        await client.trials.rollback("w", reason="because " * 10_000)

    (act,) = await trail(client)
    assert len(act.details["reason"]) == 500


async def test_a_gateway_names_each_of_its_principals(client: Client) -> None:
    one, two = await client.enqueue("w", id="r1"), await client.enqueue("w", id="r2")
    with client.auditor.acting("eve", "10.0.0.7"):
        await one.cancel()
    await two.cancel()

    assert [(x.actor, x.target) for x in await trail(client)] == [("eve", "r1"), ("ada@shop", "r2")]


async def test_a_client_that_does_not_know_who_acts_writes_nothing() -> None:
    async with Client(f"memory://audit-{next(_names)}") as client:
        run = await client.enqueue("w")
        await run.cancel()
        assert not await client._connection.client.keys("*audit*")


async def test_enqueueing_is_not_told(client: Client) -> None:
    await client.enqueue("w")
    assert await trail(client) == []


async def test_who_may_not_write_the_trail_is_told_that_the_act_stands_alone() -> None:
    """The act cannot be undone, and nobody may believe that it was noted."""
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    rights = "~millstream:{default:* &* +@all"
    with RedisServer(acl=[f"user worker on >secret {rights}"]) as server:
        async with Client(server.url_as("worker", "secret"), actor="ada", patience=0.2) as client:
            run = await client.enqueue("w", id="r1")
            with pytest.raises(Unaudited, match="cancel 'r1' was done \\(cancelled\\)"):
                await run.cancel()
            assert (await run.status()).state.final


async def test_two_clients_write_one_trail(redis_server: RedisServer) -> None:
    redis_server.flush()
    for actor in ("ada", "eve"):
        async with Client(redis_server.url, actor=actor) as client:
            await (await client.enqueue("w", id=actor)).cancel()

    connection = Connection(redis_server.url)
    try:
        found = [entry_of(line.text) async for line in audit.lines(connection)]
    finally:
        await connection.aclose()
    assert [(x.seq, x.actor) for x in found] == [(1, "ada"), (2, "eve")]
    assert found[1].prev != ""


async def test_what_is_done_to_many_runs_is_told_for_each(client: Client) -> None:
    """One line that says "all of them" would say nothing of the one that is asked for."""
    await client.enqueue_many([Enqueue("w", id=f"r{n}") for n in range(5)])

    await client.cancel_many("default", [*(f"r{n}" for n in range(5)), "no-such"])
    await client.retry_many("default", ["r1", "r2"])

    found = [(x.verb, x.target, x.result) for x in await trail(client)]
    assert found == [
        *(("cancel", f"r{n}", "cancelled") for n in range(5)),
        ("retry", "r1", "queued"),
        ("retry", "r2", "queued"),
    ]


async def test_queues_schedules_and_answers_are_told_without_their_content(client: Client) -> None:
    await client.pause("default")
    await client.resume("default")
    await client.enqueue("w", id="r1")
    await client.run("r1").signal("go", {"password": "hunter2"})
    with pytest.raises(UsageError):
        await client.run("r1").approve("the-token", by="eve")
    await client.schedules.create(Schedule(name="nightly", workflow="w", every=60.0))
    await client.schedules.pause("nightly")
    await client.schedules.delete("nightly")

    found = await trail(client)
    assert [(x.verb, x.target, x.result.partition(":")[0]) for x in found] == [
        ("pause", "default", "ok"),
        ("resume", "default", "ok"),
        ("signal", "r1", "ok"),
        ("answer", "r1", "UsageError"),
        ("write schedule", "nightly", "ok"),
        ("pause schedule", "nightly", "ok"),
        ("delete schedule", "nightly", "ok"),
    ]
    assert not any(secret in str(found) for secret in ("hunter2", "the-token"))
