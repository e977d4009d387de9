"""The audit trail in Redis: appended to, read, and trimmed with its chain whole.

One trail for everything that lives in this Redis, in a slot of its own. The hash of an entry is
made here and not in the script, since scripts have no SHA-256; two writers at once are told apart
by the end of the trail that each of them knew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from millstream.errors import BrokenTrail, StoreError
from millstream.model.audit import Act, End, chained
from millstream.store.connection import Connection
from millstream.store.scripts import Argument, call

#: Entries that are kept, and for how long, in seconds.
MOST = 100_000
KEPT_S = 400 * 86400.0
#: How many writers may be faster before it is given up.
_TRIES = 50
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Trail:
    """The keys of the trail."""

    keys: tuple[str, ...] = ("millstream:{audit}:trail", "millstream:{audit}:head")


TRAIL = Trail()


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as it is stored."""

    number: int
    text: bytes
    hash: str


async def append(
    connection: Connection, acts: Sequence[Act], *, most: int = MOST, kept_s: float = KEPT_S
) -> End:
    """Append acts, and return where the trail ends then. Raises `StoreError`.

    Said again after a lost reply it may write twice: an act that is told twice is better than one
    that is not told.
    """
    known, now_ms = End(), 0
    for _ in range(_TRIES):
        args: list[Argument] = [known.seq, known.hash, most, round(now_ms - kept_s * 1000)]
        if now_ms:
            for hash_, text in chained(acts, known, now_ms):
                args += (hash_, text)
        else:
            args[0] = -1
        with connection.translated():
            done, seq, hash_found, now = await call(connection.scripts, "audit", TRAIL, args)
        known, now_ms = End(int(seq), hash_found.decode()), int(now)
        if done:
            return known

    raise StoreError("too many others wrote to the audit trail at the same time; try again")


async def bounds(connection: Connection) -> tuple[End, End]:
    """Return the entry after which the trail begins, and the one with which it ends.

    Raises `BrokenTrail` when that was overwritten with something else.
    """
    with connection.translated():
        found = await connection.client.hmget(TRAIL.keys[1], "base", "base_hash", "seq", "hash")
    try:
        base, base_hash, seq, hash_ = ["" if x is None else x.decode() for x in found]
        return End(int(base or 0), base_hash), End(int(seq or 0), hash_)
    except ValueError:
        raise BrokenTrail(0, f"what is said of its two ends cannot be read: {found!r}") from None


async def lines(connection: Connection, after: int = 0) -> AsyncIterator[Line]:
    """Iterate over the entries after a number, a page at a time.

    What somebody else has put there comes as it is: a line that cannot be read, or no hash.
    """
    last = f"{after}-0"
    while True:
        with connection.translated():
            page: list[Any] = await connection.client.xrange(
                TRAIL.keys[0], min=f"({last}", max="+", count=_PAGE
            )
        for id_, fields in page:
            # All of it: ids that differ in their second part alone must not come round again.
            last = id_.decode()
            hash_ = fields.get(b"hash", b"").decode("ascii", "replace")
            yield Line(int(last.partition("-")[0]), fields.get(b"entry", b""), hash_)
        if len(page) < _PAGE:
            return
