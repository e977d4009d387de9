"""Bugs to plant, one at a time, to see that the simulation finds them. No file is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from millstream.store import commits, scripts
from millstream.store.keys import GROUP
from millstream_worker.consumer import Consumer

_read = scripts._read


@contextmanager
def _script(name: str, right: str, wrong: str) -> Iterator[None]:
    def read(part: str) -> str:
        text = _read(part)
        if part != name:
            return text
        assert right in text, f"{name}.lua no longer has {right!r}"
        return text.replace(right, wrong)

    scripts.script.cache_clear()
    try:
        with mock.patch.object(scripts, "_read", read):
            yield
    finally:
        scripts.script.cache_clear()


@contextmanager
def _acknowledges_first() -> Iterator[None]:
    """Acknowledge and delete a delivery in a call before the one that settles it."""
    right = commits.commit

    async def wrong(
        connection: Any, lane: Any, token: str, items: Any, *args: Any, **given: Any
    ) -> Any:
        for item in items:
            if item[0] == "D":
                stream = lane.stream(item[4])
                with connection.translated():
                    await connection.client.execute_command("XACK", stream, GROUP, item[5])
                    await connection.client.execute_command("XDEL", stream, item[5])
        return await right(connection, lane, token, items, *args, **given)

    with mock.patch.object(commits, "commit", wrong):
        yield


@contextmanager
def _never_compares() -> Iterator[None]:
    """Take for granted that a reply which was lost brought nothing."""

    async def wrong(self: Consumer) -> None:
        self._comparing = False

    with mock.patch.object(Consumer, "_compare", wrong):
        yield


PLANTED: dict[str, Callable[[], Any]] = {
    "settle without the fence check": lambda: _script(
        "commit", "local mine = run[2] == fence and run[3] == TOKEN", "local mine = true"
    ),
    "acknowledge before the result": _acknowledges_first,
    "reclaim without looking at the lease": lambda: _script(
        "sweep",
        "'ZRANGEBYSCORE', LEASES, '-inf', digits(NOW), 'LIMIT'",
        "'ZRANGEBYSCORE', LEASES, '-inf', '+inf', 'LIMIT'",
    ),
    "strand what a lost reply brought": _never_compares,
    "forget the journal on a retry": lambda: _script(
        "commit",
        "redis.call('HDEL', key, 'ran')",
        "redis.call('HDEL', key, 'ran') redis.call('DEL', journal_key(id))",
    ),
    "say an event again on every replay": lambda: _script(
        "commit",
        "if redis.call('HEXISTS', journal_key(id), key) == 0 then",
        "if true then",
    ),
}
