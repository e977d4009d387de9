"""API keys and catalogues: kept within bounds, and never enough to be somebody."""

from __future__ import annotations

import pytest

from millstream.errors import UsageError
from millstream.store import api_keys, catalogues
from millstream.store.catalogues import Described
from millstream.store.connection import Connection


async def made(store: Connection, lasts_s: float | None = 60) -> tuple[api_keys.ApiKey, str]:
    """A key and its text."""
    return await api_keys.create(
        store, name="ci", roles=("viewer",), tenant="acme", lasts_s=lasts_s
    )


async def test_a_key_is_found_by_its_id_and_known_by_its_secret(store: Connection) -> None:
    """Its text is nowhere in the store."""
    key, text = await made(store)
    parts = api_keys.taken_apart(text)
    assert parts is not None

    assert await api_keys.find(store, key.id) == key
    assert api_keys.fits(key, parts[1])
    assert not api_keys.fits(key, parts[1][::-1])
    assert not api_keys.fits(None, parts[1])
    for name in await store.client.keys("*"):
        rows = await store.client.hgetall(name)
        assert not any(parts[1].encode() in value for value in rows.values())


@pytest.mark.parametrize("text", ["", "ms_", "ms_a_b", "x" * 63, f"ms_{'A' * 16}_{'a' * 43}"])
def test_what_has_not_the_form_of_a_key_is_none(text: str) -> None:
    """Nothing is asked of the store for it."""
    assert api_keys.taken_apart(text) is None


async def test_a_revoked_key_stays_revoked(store: Connection) -> None:
    """Said twice it is revoked once; forgotten it is gone with its mark."""
    key, _ = await made(store, lasts_s=None)
    await made(store)

    assert await api_keys.revoke(store, key.id)
    first = await api_keys.find(store, key.id)
    assert await api_keys.revoke(store, key.id)
    assert await api_keys.find(store, key.id) == first
    assert first is not None
    assert not first.valid(first.created)
    assert await api_keys.prune(store) == 1
    assert await api_keys.find(store, key.id) is None
    assert len(await api_keys.every(store)) == 1


async def test_there_are_so_many_keys_and_no_more(
    store: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the bound the error says what to do."""
    monkeypatch.setattr(api_keys, "MOST_KEYS", 2)
    await made(store)
    await made(store, lasts_s=-1)

    with pytest.raises(UsageError, match="prune"):
        await made(store)
    assert await api_keys.prune(store) == 1
    await made(store)


async def test_workers_that_serve_the_same_say_it_once(store: Connection) -> None:
    """And two applications on one queue are both known."""
    one = [Described(name="add", version="1", description="Add.")]
    two = [*one, Described(name="add", version="2"), Described(name="sub", version="1")]
    for workflows in (one, one, two):
        await catalogues.publish(store, "q", catalogues.note(workflows), 60)

    known = await catalogues.known(store, "q")

    assert [(x.name, x.version) for x in known] == [("add", "1"), ("add", "2"), ("sub", "1")]
    assert await catalogues.known(store, "other") == []


async def test_a_catalogue_that_is_too_large_keeps_its_names(store: Connection) -> None:
    """What can be called is known, although not how."""
    schema = {"type": "object", "description": "x" * 10_000}
    workflows = [Described(name=f"w{n}", version="1", arguments=schema) for n in range(40)]

    await catalogues.publish(store, "q", catalogues.note(workflows), 60)

    known = await catalogues.known(store, "q")
    assert len(known) == 40
    assert {str(x.arguments) for x in known} == {"{'type': 'object'}"}
