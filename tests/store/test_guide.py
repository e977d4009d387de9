"""Who has which slot: one question for all who want to know, and no node that everybody waits for.

Nodes that answer, refuse and are silent are played; `test_wires.py` has real clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import redis.exceptions as refused

from millstream.store import guide
from millstream.store.guide import Guide, Node

A, B, C, D = Node("a", 1), Node("b", 2), Node("c", 3), Node("d", 4)
REPLICA = Node("replica", 7)
SEED = Node("seed", 9)


class Played:
    """A cluster whose nodes say what they are told to; what they are asked is counted."""

    def __init__(self) -> None:
        self.says: dict[Node, Any] = {}
        self.asked: list[Node] = []
        self.open = 0
        self.takes_s = 0.0
        #: What happens while a node thinks about its answer.
        self.meanwhile: Callable[[], None] = lambda: None

    async def opens(self, node: Node) -> Any:
        self.asked.append(node)
        await anyio.sleep(self.takes_s)
        if isinstance(self.says.get(node), OSError):
            raise self.says[node]
        self.open += 1
        return _Connection(self, node)


class _Connection:
    def __init__(self, played: Played, node: Node) -> None:
        self._played, self._node = played, node

    async def send_command(self, *args: str) -> None:
        assert args == ("CLUSTER", "SLOTS")

    async def read_response(self) -> Any:
        self._played.meanwhile()
        said = self._played.says.get(self._node)
        if said is None:
            await anyio.sleep_forever()
        if isinstance(said, Exception):
            raise said
        return said

    async def disconnect(self, *, nowait: bool) -> None:
        assert nowait
        self._played.open -= 1


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    monkeypatch.setattr(guide, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(guide, "_PACE_S", 0.01)
    return Played()


def row(first: int, last: int, node: Node) -> list[Any]:
    """One line of ``CLUSTER SLOTS``, with a replica."""
    return [first, last, [node.host.encode(), node.port, b"id"], [b"replica", 7, b"id"]]


HALVES = [row(8192, 16383, B), row(0, 8191, A)]


async def test_many_who_want_to_know_ask_once(played: Played) -> None:
    played.says[SEED] = HALVES
    asked = Guide([SEED], played.opens)
    found: dict[int, Node] = {}

    async def ask(slot: int) -> None:
        found[slot] = await asked.master_of(slot)

    async with anyio.create_task_group() as group:
        for slot in (0, 8191, 8192, 16383):
            group.start_soon(ask, slot)

    assert found == {0: A, 8191: A, 8192: B, 16383: B}
    assert played.asked == [SEED]
    assert played.open == 0


async def test_who_waits_shares_a_failure(played: Played) -> None:
    """Each asking anew, one after the other, the last would wait as many times as long."""
    played.says[SEED] = OSError("refused")
    asked = Guide([SEED], played.opens)

    async def ask() -> None:
        with pytest.raises(OSError, match="refused"):
            await asked.master_of(1)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(ask)
    assert played.asked == [SEED]


async def test_one_that_is_silent_or_refuses_is_passed_over(played: Played) -> None:
    """And asked last the next time."""
    full = refused.ResponseError("max number of clients + cluster connections reached")
    played.says |= {B: full, C: HALVES}
    asked = Guide([A, B, C], played.opens)

    assert await asked.master_of(3) == A
    assert played.asked == [A, B, C]
    assert played.open == 0

    played.asked.clear()
    played.says |= {REPLICA: OSError("refused")}
    asked.miss(A)
    await asked.master_of(3)
    assert set(played.asked[:2]) <= {REPLICA, C}
    assert played.asked[-1] == C


async def test_who_gives_up_has_the_next_one_ask(played: Played) -> None:
    """What nobody has answered is told to nobody."""
    asked = Guide([SEED], played.opens)
    found: list[Node] = []

    async def ask() -> None:
        found.append(await asked.master_of(0))

    async with anyio.create_task_group() as group:
        with anyio.move_on_after(0.01) as gave_up:
            async with anyio.create_task_group() as first:
                first.start_soon(ask)
                await _until(lambda: played.open)
                group.start_soon(ask)
        assert gave_up.cancelled_caught
        played.says[SEED] = HALVES
    assert found == [A]
    assert played.open == 0


async def _until(condition: Callable[[], object]) -> None:
    while not condition():
        await anyio.lowlevel.checkpoint()


async def test_where_all_are_slow_they_are_waited_for_longer(played: Played) -> None:
    played.says[SEED] = HALVES
    played.takes_s = 0.12
    asked = Guide([SEED], played.opens)
    for _ in range(2):
        with pytest.raises(refused.TimeoutError, match="did not answer within"):
            await asked.master_of(0)

    assert await asked.master_of(0) == A
    assert played.open == 0


async def test_who_was_named_by_a_master_is_asked_too(played: Played) -> None:
    """All others may be gone, and the replicas have taken their places."""
    played.says[SEED] = HALVES
    asked = Guide([SEED], played.opens)
    await asked.master_of(5)
    played.says = {each: OSError("gone") for each in (A, B, SEED)}
    played.says[REPLICA] = [row(0, 16383, C)]
    asked.miss(A)
    assert await asked.master_of(5) == C

    asked.moved(5, D)
    played.says = {each: OSError("gone") for each in (A, B, C, SEED, REPLICA)}
    played.says[D] = [row(0, 16383, D)]
    asked.miss(D)
    assert await asked.master_of(6) == C
    assert await asked.master_of(5) == D
    assert await asked.master_of(6) == D


async def test_who_is_away_is_asked_last_and_given_addresses_too(played: Played) -> None:
    """Also when all that was learned of the cluster has gone."""
    played.says |= {SEED: HALVES, A: HALVES, B: HALVES}
    asked = Guide([SEED], played.opens)
    await asked.master_of(0)
    played.asked.clear()
    played.says |= {
        A: OSError("gone"),
        B: OSError("gone"),
        SEED: [row(0, 16383, C)],
    }

    asked.miss(A)
    assert await asked.master_of(0) == C
    assert played.asked[-1] == SEED
    assert A not in played.asked
    assert await asked.master_of(16383) == C


async def test_what_was_said_of_one_slot_holds_until_the_cluster_is_asked(played: Played) -> None:
    played.says[SEED] = HALVES
    asked = Guide([SEED], played.opens)
    await asked.master_of(5)
    asked.moved(5, B)
    assert [await asked.master_of(slot) for slot in (4, 5)] == [A, B]

    played.says |= {A: HALVES, B: HALVES}
    asked.miss(B)
    assert await asked.master_of(5) == A


async def test_who_was_found_away_meanwhile_stays_so(played: Played) -> None:
    """The cluster was not asked about that one."""
    played.says |= {SEED: HALVES, A: HALVES, B: HALVES}
    asked = Guide([SEED], played.opens)
    await asked.master_of(0)
    asked.miss(A)
    played.meanwhile = lambda: asked.miss(B)
    assert await asked.master_of(0) == A
    played.meanwhile = lambda: None
    played.asked.clear()

    assert await asked.master_of(0) == A
    assert not played.asked
    assert await asked.master_of(16383) == B
    assert played.asked


async def test_a_slot_that_nobody_has_is_no_reason_to_miss_the_others(played: Played) -> None:
    played.says |= {SEED: [row(0, 99, A)], A: [row(0, 99, A)]}
    asked = Guide([SEED], played.opens)

    assert await asked.master_of(99) == A
    with pytest.raises(refused.SlotNotCoveredError):
        await asked.master_of(100)
    assert await asked.master_of(0) == A


@pytest.mark.parametrize(
    "refusal",
    [
        refused.AuthenticationError("WRONGPASS"),
        refused.NoPermissionError("NOPERM"),
    ],
)
async def test_what_no_other_node_would_say_otherwise_is_told(
    played: Played, refusal: Exception
) -> None:
    played.says |= {A: refusal, B: HALVES}
    with pytest.raises(type(refusal), match=str(refusal)):
        await Guide([A, B], played.opens).master_of(0)
    assert played.asked == [A]


async def test_a_master_without_a_name_is_where_the_answer_came_from(played: Played) -> None:
    played.says[SEED] = [[0, 16383, [b"", 5, b"id"]]]
    assert await Guide([SEED], played.opens).master_of(0) == Node("seed", 5)
