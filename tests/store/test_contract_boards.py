"""Boards: notes that processes pin for one another, on every kind of store."""

from __future__ import annotations

import pytest

from millstream.store import boards
from millstream.store.connection import Connection

pytestmark = pytest.mark.anyio

CARD = boards.device("GPU-1")


async def test_of_two_that_pin_at_once_the_second_sees_the_first(store: Connection) -> None:
    """Two workers that look at the same free memory must not both believe it to be theirs."""
    assert await boards.pin(store, CARD, "one", b"plan 1", 5) == {}
    assert await boards.pin(store, CARD, "two", b"plan 2", 5) == {"one": b"plan 1"}
    assert await boards.pin(store, CARD, "one", b"plan 3", 5) == {"two": b"plan 2"}


async def test_a_note_falls_off_when_nobody_pins_it_anew(store: Connection) -> None:
    """A worker that died holds nothing, whatever it said last."""
    await boards.pin(store, CARD, "dead", b"x", 0.001)
    while await boards.read(store, CARD):
        pass
    key = CARD.keys[0]
    assert await store.client.hgetall(key) == {}


async def test_a_note_can_be_taken_down(store: Connection) -> None:
    await boards.pin(store, CARD, "one", b"x", 5)
    await boards.pin(store, CARD, "one", b"", 5)
    assert await boards.read(store, CARD) == {}


async def test_boards_do_not_mix(store: Connection) -> None:
    await boards.pin(store, CARD, "one", b"x:y", 5)
    assert await boards.read(store, boards.device("GPU-2")) == {}
    assert await boards.read(store, CARD) == {"one": b"x:y"}


async def test_a_board_that_nobody_uses_goes_away(store: Connection) -> None:
    """Redis is not to keep the names of cards that were thrown out long ago."""
    await boards.pin(store, CARD, "one", b"x", 5)
    assert 0 < await store.client.pttl(CARD.keys[0]) <= 70_000


async def test_what_is_no_note_is_cleared_away(store: Connection) -> None:
    await store.client.hset(CARD.keys[0], "odd", "no time")
    assert await boards.read(store, CARD) == {}
    assert await store.client.hgetall(CARD.keys[0]) == {}
