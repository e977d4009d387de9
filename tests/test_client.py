"""What a caller is told of the runs it enqueues, one by one and many at once."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest

from millstream import Client, Enqueue, IdConflict, SyncClient
from millstream.errors import InvalidArguments, NotEncodable, PayloadTooLarge, UsageError

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
