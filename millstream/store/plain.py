"""What belongs to no lane: conversations, schedules, the audit trail, the API keys.

Read in an order in which what is written meanwhile does no harm: a schedule whole, the end of
the trail before its entries, a key before the mark that it was revoked. Sessions of people who
signed in, the leader's seat and what living processes say of themselves are left out: they are
made anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from millstream.store import api_keys, audit, pushes, schedules
from millstream.store.archives import Frame
from millstream.store.connection import Connection

_PAGE = 200


async def plain_keys(connection: Connection) -> AsyncIterator[Frame]:
    """Read everything that belongs to no lane. Raises `StoreError`."""
    async for frame in _schedules(connection):
        yield frame
    async for frame in _keys(connection):
        yield frame
    async for frame in _trail(connection):
        yield frame


async def conversation(connection: Connection, key: bytes) -> AsyncIterator[Frame]:
    """Read what was said about a task, and who wants to be told of it. Raises `StoreError`."""
    with connection.translated():
        fields = await connection.client.hgetall(key)
        ttl_ms = await connection.client.pttl(key)
    if fields:
        yield ["talk", key, fields, ttl_ms]


async def bring_back(connection: Connection, frame: Frame) -> None:
    """Write what a frame of these says into a store that has none of it. Raises `StoreError`."""
    client = connection.client
    kind, *rest = frame
    with connection.translated():
        match kind:
            case "talk":
                await _write_talk(connection, *rest)
            case "schedule":
                name, fields, due = rest
                await client.hset(schedules.key(name), mapping=fields)
                await client.zadd(schedules.NAMES, {name: 0})
                if due is not None:
                    await client.zadd(schedules.DUE, {name: due})
            case "revision":
                await client.set(schedules.REVISION, rest[0])
            case "keys":
                await client.hset(rest[0], mapping=rest[1])
            case "trail":
                await _write_trail(connection, rest[0])
            case "trail-end":
                await _end_trail(connection, rest[0])


async def _write_talk(
    connection: Connection, key: bytes, fields: dict[bytes, bytes], ttl_ms: int
) -> None:
    await connection.client.hset(key, mapping=fields)
    if ttl_ms > 0:
        await connection.client.pexpire(key, ttl_ms)
    # Whoever wants to be told is looked after at once: nobody knows when it would have been.
    for errand in pushes.errands(key.decode(), fields):
        await connection.client.zadd(pushes.DUE, {errand.member: 0})


async def _schedules(connection: Connection) -> AsyncIterator[Frame]:
    after = ""
    while names := await schedules.names(connection, after, _PAGE):
        for name in names:
            with connection.translated():
                fields = await connection.client.hgetall(schedules.key(name))
                due = await connection.client.zscore(schedules.DUE, name)
            if fields:
                yield ["schedule", name, fields, due]
        after = names[-1]
    with connection.translated():
        revision = await connection.client.get(schedules.REVISION)
    if revision is not None:
        yield ["revision", revision]


async def _keys(connection: Connection) -> AsyncIterator[Frame]:
    for key in (api_keys.KEYS, api_keys.REVOKED):
        with connection.translated():
            rows = await connection.client.hgetall(key)
        if rows:
            yield ["keys", key, rows]


async def _trail(connection: Connection) -> AsyncIterator[Frame]:
    begin, end = await audit.bounds(connection)
    if not end.seq:
        return
    page: list[tuple[int, bytes, str]] = []
    async for line in audit.lines(connection, begin.seq):
        if line.number > end.seq:
            break  # it was written since the end was read
        page.append((line.number, line.text, line.hash))
        if len(page) == _PAGE:
            yield ["trail", page]
            page = []
    if page:
        yield ["trail", page]
    # It may have been trimmed under the reader's hands: then it begins later.
    begin, _ = await audit.bounds(connection)
    yield ["trail-end", [begin.seq, begin.hash, end.seq, end.hash]]


async def _write_trail(connection: Connection, page: list[tuple[int, bytes, str]]) -> None:
    pipe = connection.client.pipeline(transaction=False)
    for number, text, hash_ in page:
        pipe.xadd(audit.TRAIL.keys[0], {"entry": text, "hash": hash_}, id=f"{number}-0")
    await pipe.execute()


async def _end_trail(connection: Connection, ends: list[int | str]) -> None:
    base, base_hash, seq, hash_ = ends
    head = {"seq": seq, "hash": hash_}
    if base:
        head |= {"base": base, "base_hash": base_hash}
        await connection.client.xtrim(
            audit.TRAIL.keys[0], minid=f"{int(base) + 1}-0", approximate=False
        )
    await connection.client.hset(audit.TRAIL.keys[1], mapping=head)
