"""What a caller is told of the runs it enqueues, one by one and many at once."""

from __future__ import annotations

import functools
import itertools
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from millstream import Client, Enqueue, IdConflict, Run, SyncClient
from millstream.client.asynchronous import LOOKS_AT_ONCE
from millstream.errors import InvalidArguments, NotEncodable, PayloadTooLarge, UsageError
from millstream.store import sayings
from millstream.store.sayings import Heard

pytestmark = pytest.mark.anyio
_names = itertools.count()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client(f"memory://client-{next(_names)}") as client:
        yield client


async def test_two_runs_of_one_list_under_one_id_conflict(client: Client) -> None:
    """The second has other arguments: it must not vanish behind the first."""
    with pytest.raises(IdConflict):
        await client.enqueue_many([Enqueue("w", {"a": 1}, "y"), Enqueue("w", {"a": 2}, "y")])


async def test_the_same_run_twice_in_one_list_is_created_once(client: Client) -> None:
    first, second = await client.enqueue_many([Enqueue("w", {"a": 1}, "y")] * 2)
    assert (first.created, second.created) == (True, False)


@pytest.mark.parametrize("name", ["epoch", "-1", "0", "1"])
async def test_a_workflow_may_be_named_like_an_answer(client: Client, name: str) -> None:
    await client.enqueue(name, {}, id="x")
    assert not (await client.enqueue(name, {}, id="x")).created
    with pytest.raises(IdConflict, match=f"workflow '{name}'"):
        await client.enqueue("other", {}, id="x")


async def test_large_runs_leave_in_several_calls(client: Client) -> None:
    """Bytes bound a call as well as items: a call too large is never answered in time."""
    text = "x" * 900_000
    runs = await client.enqueue_many([Enqueue("w", {"text": text}) for _ in range(20)])
    assert (await client.depth()).waiting == len({run.id for run in runs}) == 20


async def test_nothing_is_sent_when_one_of_many_cannot_be(client: Client) -> None:
    for bad, error in (
        (Enqueue("w", {"a": object()}), NotEncodable),
        (Enqueue("w", [1]), InvalidArguments),
        (Enqueue("w", {"a": "x" * 2_000_000}), PayloadTooLarge),
        (Enqueue("w", id="a b"), UsageError),
        (Enqueue("w", priority="urgent"), UsageError),
        (Enqueue("w", delay=-1), UsageError),
    ):
        with pytest.raises(error):
            await client.enqueue_many([Enqueue("w"), bad])
    assert (await client.depth()).waiting == 0


def test_the_blocking_client_has_the_same_verbs() -> None:
    with SyncClient(f"memory://client-{next(_names)}") as client:
        run = client.enqueue("w", {"a": 1}, id="x")
        assert run.created
        assert not client.enqueue("w", {"a": 1}, id="x").created
        assert client.depth().waiting == 1
        assert client.run("x").cancel() == "cancelled"
        assert [status.id for status in client.list(states=["cancelled"])] == ["x"]
        run.retry()
        assert run.status().state == "queued"


async def test_a_closed_client_says_so_instead_of_waiting() -> None:
    name = f"memory://client-{next(_names)}"
    client = Client(name)
    async with client:
        run = await client.enqueue("w")
    with anyio.fail_after(10):
        for late in (run.result, lambda: client.enqueue("w")):
            with pytest.raises(UsageError):
                await late()
        async with client:
            assert (await client.enqueue("w")).created


async def test_closing_tells_those_who_wait() -> None:
    caught: list[BaseException] = []

    async def wait(run: Run) -> None:
        try:
            await run.result()
        except UsageError as error:
            caught.append(error)

    with anyio.fail_after(10):
        async with (
            anyio.create_task_group() as group,
            Client(f"memory://client-{next(_names)}") as client,
        ):
            group.start_soon(wait, await client.enqueue("w"))
            await anyio.sleep(0.05)
    assert len(caught) == 1


@pytest.mark.parametrize("bad", [{"tenant": object()}, {"version": {}}, {"tenant": "\udcff"}])
async def test_one_bad_caller_costs_nobody_else(client: Client, bad: dict[str, Any]) -> None:
    answers: list[object] = []

    async def call(**options: Any) -> None:
        try:
            answers.append((await client.enqueue("w", **options)).created)
        except UsageError as error:
            answers.append(error)

    async with anyio.create_task_group() as group:
        for options in ({}, bad, {}):
            group.start_soon(functools.partial(call, **options))
    assert answers.count(True) == (2 if bad != {"version": {}} else 3)


async def test_runs_are_listed_newest_first_whatever_their_state(client: Client) -> None:
    await client.enqueue("w", id="old", delay=60)
    await anyio.sleep(0.002)
    await client.enqueue("w", id="new")
    assert [status.id for status in await client.list(limit=1)] == ["new"]


async def test_those_who_follow_runs_look_a_few_at_a_time(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand at once would wait for connections until the store seemed to be away."""
    looking, go, heard = 0, anyio.Event(), sayings.heard
    told: dict[str, list[str]] = {f"r{n}": [] for n in range(100)}
    await client.enqueue_many([Enqueue("w", id=run_id, delay=1000) for run_id in told])
    await client.cancel_many("default", list(told))

    async def held(*args: Any) -> Heard:
        nonlocal looking
        looking += 1
        await go.wait()
        return await heard(*args)

    async def follow(run_id: str) -> None:
        told[run_id] = [event.name async for event in client.run(run_id).events()]

    monkeypatch.setattr(sayings, "heard", held)
    async with anyio.create_task_group() as group:
        for run_id in told:
            group.start_soon(follow, run_id)
        await anyio.wait_all_tasks_blocked()
        assert looking == LOOKS_AT_ONCE
        go.set()

    assert set(map(tuple, told.values())) == {("cancelled",)}
    assert looking == len(told)
