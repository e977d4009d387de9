"""Bugs to plant, one at a time, to see that the simulation finds them. No file is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from millstream.store import commits, outbox, scripts
from millstream.store.keys import GROUP
from millstream_worker.consumer import Consumer
from millstream_worker.lease import Lease

_read = scripts._read


@contextmanager
def _script(name: str, *changes: tuple[str, str]) -> Iterator[None]:
    def read(part: str) -> str:
        text = _read(part)
        for right, wrong in changes if part == name else ():
            assert right in text, f"{name}.lua no longer has {right!r}"
            text = text.replace(right, wrong)
        return text

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
def _empties_first() -> Iterator[None]:
    """Take entries out of the outbox in a call before they are delivered."""
    right = outbox._Page.deliver

    async def wrong(self: Any, *, starts_stand: bool) -> list[bytes]:
        heard = [entry.id for entry in self._entries]
        with self._connection.translated():
            await self._connection.client.xdel(self._lane.outbox, *heard)
        return await right(self, starts_stand=starts_stand)

    with mock.patch.object(outbox._Page, "deliver", wrong):
        yield


@contextmanager
def _never_compares() -> Iterator[None]:
    """Take for granted that a reply which was lost brought nothing."""

    async def wrong(self: Consumer) -> None:
        self._comparing = False

    with mock.patch.object(Consumer, "_compare", wrong):
        yield


@contextmanager
def _grants_back() -> Iterator[None]:
    """Take a renewal for a grant of everything that was held before the lease lapsed."""
    right = Lease.renewed

    def wrong(self: Lease, sent: float, *, lapsed: bool) -> None:
        lapses = self.lapses
        right(self, sent, lapsed=lapsed)
        self.lapses = lapses

    with mock.patch.object(Lease, "renewed", wrong):
        yield


@contextmanager
def _trusts_for_ever() -> Iterator[None]:
    """Start new steps although no renewal was granted since long ago."""
    with mock.patch.object(Lease, "trusted", property(lambda self: self._trusted_until > 0)):
        yield


PLANTED: dict[str, Callable[[], Any]] = {
    "settle without the fence check": lambda: _script(
        "commit",
        (
            "local mine, key, run = held(at)\n  if not mine then return '0' end",
            "local _, key, run = held(at)",
        ),
    ),
    "journal without the fence check": lambda: _script(
        "commit",
        (
            "if not mine or run[1] ~= 'running' then return '0' end",
            "if run[1] ~= 'running' then return '0' end",
        ),
    ),
    "acknowledge before the result": _acknowledges_first,
    "reclaim without looking at the lease": lambda: _script(
        "sweep",
        (
            "'ZRANGEBYSCORE', LEASES, '-inf', digits(NOW), 'LIMIT'",
            "'ZRANGEBYSCORE', LEASES, '-inf', '+inf', 'LIMIT'",
        ),
    ),
    "strand what a lost reply brought": _never_compares,
    "a renewal grants back blindly": _grants_back,
    "trust the lease for ever": _trusts_for_ever,
    "elect whoever asks": lambda: _script(
        "elect",
        ("elseif mine or (FENCE == 0 and not taken) then", "elseif mine or FENCE == 0 then"),
    ),
    "remember what came after the burial": lambda: _script(
        "sweep", ("    list_consumers()\n    forget_strangers()", "    list_consumers()")
    ),
    "promote a timer twice": lambda: _script(
        "sweep",
        ("if state == expected then", "if state == expected or state == 'queued' then"),
        (
            "    redis.call('ZREM', index, id)",
            "    if state ~= expected then redis.call('ZREM', index, id) end",
        ),
    ),
    "lose the timer of a run that was tried before": lambda: _script(
        "sweep",
        ("if state == expected then", "if state == expected and (resumed or not fence) then"),
    ),
    "forget the journal on a retry": lambda: _script(
        "commit",
        (
            "redis.call('HDEL', key, 'ran')",
            "redis.call('HDEL', key, 'ran') redis.call('DEL', journal_key(id))",
        ),
    ),
    "keep a signal and wake nobody": lambda: _script(
        "signal",
        (
            "    redis.call('ZREM', PARKED, id)\n    requeue(id, RETENTION)\n",
            "    state = awaited\n",
        ),
    ),
    "empty the outbox before it is heard": _empties_first,
    "take a signal and leave it": lambda: _script(
        "commit", ("  consume(box, name, numbers, number, payload)\n", "")
    ),
    "say an event again on every replay": lambda: _script(
        "commit",
        ("if said == 0 or redis.call('HGET'", "if true or redis.call('HGET'"),
    ),
}
