"""Everything a worker wants written in one turn, as one call; and the work it takes with it.

A commit is a list of items, each safe to send twice and answered by a verdict of its own. A take
is not safe to send twice: after a lost reply, send the items again and take nothing, then compare
`deliveries.holdings` with what is held.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, cast

from millstream.errors import StoreError
from millstream.model import outcome
from millstream.model.limit import Asked
from millstream.model.limits import LIMITS, Limits
from millstream.model.progress import Saying
from millstream.model.run import Delivery, RunState
from millstream.store import codec
from millstream.store.connection import Connection
from millstream.store.deliveries import delivery_from
from millstream.store.keys import NEVER_MS, Lane
from millstream.store.scripts import Argument, call


class Verdict(IntEnum):
    """What became of one item."""

    FENCED = 0  # somebody else holds the run; nothing was written
    WRITTEN = 1  # now, or earlier under this same fence
    CANCEL = 2  # written, and somebody asked for the run to be cancelled
    FULL = 3  # the journal is at its bound; nothing was written
    ANSWERED = 4  # what was looked for stands in the journal
    OCCUPIED = 5  # a key of the run holds something that is not ours; nothing was written
    LIMITED = 6  # the run has to wait for its limits; its delivery is over
    SEALED = 7  # what was looked for is sealed, and nothing here seals; nothing was written


_VERDICTS = tuple(Verdict)


@dataclass(frozen=True, slots=True)
class Want:
    """How many new deliveries to take: the sum is the limit, the parts are the levels' shares."""

    high: int = 0
    normal: int = 0
    low: int = 0
    #: Whether a run suspected of killing its workers may be among them.
    suspect: bool = False
    #: Whether this process knows the versions that are on trial.
    canary: bool = False

    @property
    def total(self) -> int:
        """The limit."""
        return self.high + self.normal + self.low


NOTHING = Want()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitReply:
    """What a commit did."""

    now: float
    verdicts: tuple[Verdict, ...]
    taken: tuple[Delivery, ...]
    #: Whether something was put into the lane's outbox.
    posted: bool = False


Item = list[Argument]
#: Returns what a run ends with as it is stored, given what it is: arguments, result or error.
Seal = Callable[[str, bytes], bytes]


class Child(NamedTuple):
    """A run that another one starts."""

    id: str
    queue: str
    #: What it is started with, see `outbox.encoded`.
    start: bytes


#: When something is said: the item before it was written, or found what it looked for.
ONCE_WRITTEN = f"{Verdict.WRITTEN}{Verdict.CANCEL}"
ONCE_ANSWERED = f"{Verdict.ANSWERED}"
#: Where in an ending stands what the run ends with, and what that is, unless it is completed.
_ENDED_WITH = {"D": (8, "error"), "R": (9, "error"), "N": (7, "arguments")}
#: The operations after which a delivery is no longer held.
ENDINGS = frozenset("DRPLUN")


def journal(held: Delivery, records: Sequence[tuple[str, bytes]], version: str) -> Item:
    """Append records (or replace them: a result replaces its intent)."""
    item: Item = ["J", held.run_id, held.fence, version, len(records)]
    for key, record in records:
        item += (key, record)

    return item


def record(held: Delivery, key: str, data: bytes, version: str) -> Item:
    """Append one record, or replace it: what most commits are made of."""
    return ["J", held.run_id, held.fence, version, 1, key, data]


def emit(held: Delivery, key: str, record: bytes, data: bytes, version: str) -> Item:
    """Journal that something was said, and say it to whoever watches the run."""
    return ["E", held.run_id, held.fence, version, key, record, data]


def say(held: Delivery, number: int, saying: Saying, when: str = "") -> Item:
    """Say something to whoever watches the run, once, though it stands in no journal.

    ``number`` grows with what a delivery says; ``when``: only upon `ONCE_WRITTEN` or
    `ONCE_ANSWERED` of the item before it, whose verdict it then has, too.
    """
    return ["S", held.run_id, held.fence, number, when, saying.kind, saying.data]


def look(  # noqa: PLR0917 - a wait, its record, and the run it is of
    held: Delivery, key: str, name: str, record: codec.Parts, otherwise: bytes, version: str
) -> Item:
    """Take the oldest message of a name into the journal, or write ``otherwise`` there.

    ``record`` is the record around the message; one that stands closed already is left alone.
    """
    return [
        "W", held.run_id, held.fence, version, key, otherwise, name,
        record.open, record.done, record.rest,
    ]  # fmt: skip


def start_child(held: Delivery, key: str, record: bytes, child: Child, version: str) -> Item:
    """Journal that a child run is waited for, and have it started."""
    place: Item = [held.run_id, held.fence, version, key, record]
    return ["C", *place, child.id, child.queue, child.start]


def entrust(held: Delivery, key: str, record: bytes, task: bytes, version: str) -> Item:
    """Journal a record, and note what another agent does for its step; empty: nothing any more.

    What is still noted when the run ends is withdrawn, see `withdrawals`.
    """
    return ["T", held.run_id, held.fence, version, key, record, task]


def admit(held: Delivery, asked: Sequence[Asked]) -> Item:
    """Ask whether a run may go on under its limits; if not, its delivery ends with this.

    It pins no version: the run has not begun.
    """
    item: Item = ["K", held.run_id, held.fence, "", held.level, held.entry, len(asked)]
    for each in asked:
        item += each
    return item


def brought(level: str, after: str) -> Item:
    """Begin to hold what a blocking read has brought, behind an entry: see `arrivals`."""
    return ["F", level, after]


def adopt(level: str, entry: str) -> Item:
    """Begin to hold a delivery that the blocking read brought, or that was found to be ours."""
    return ["A", level, entry]


def hand_back(level: str, entry: str, retention_s: float) -> Item:
    """Return a delivery that was brought but never begun."""
    return ["H", level, entry, _ms(retention_s)]


def ending(  # noqa: PLR0911 - one return for each kind of end
    held: Delivery,
    verdict: outcome.Outcome,
    version: str,
    retention_s: float,
    drop: Sequence[str] = (),
) -> Item:
    """Give one delivery its end.

    ``drop`` names the records of a failure that escaped the workflow: an operator's retry removes
    them.
    """
    head: Item = [held.run_id, held.fence, version, held.level, held.entry, _ms(retention_s)]
    match verdict:
        case outcome.Completed(result):
            return ["D", *head, RunState.COMPLETED, result, 0, ""]
        case outcome.Failed(cause, message, _):
            error = encode_error(cause, message)
            return ["D", *head, RunState.FAILED, error, 1, "\n".join(drop)]
        case outcome.Cancelled():
            error = encode_error("RunCancelled", "the run was cancelled")
            return ["D", *head, RunState.CANCELLED, error, 0, ""]
        case outcome.Retry(pause_s, cause, message, dropped, _):
            error = encode_error(cause, message)
            return ["R", *head, _ms(pause_s), len(dropped), error, *dropped]
        case outcome.Parked(due, ran_s, heard, awaits):
            until = NEVER_MS if due is None else _ms(due)
            return ["P", *head, until, _ms(ran_s), heard, "\n".join(awaits)]
        case outcome.Continued(arguments):
            return ["N", *head, arguments]
        case outcome.Released():
            return ["L", *head]
        case outcome.Refused(pause_s):
            return ["U", *head, _ms(pause_s)]


def seal_ending(item: Item, seal: Seal) -> None:
    """Seal what a run ends with, in the item that `ending` has made."""
    at, kind = _ENDED_WITH.get(str(item[0]), (0, ""))
    if item[0] == "D" and item[7] == RunState.COMPLETED:
        kind = "result"
    if at:
        item[at] = seal(kind, cast("bytes", item[at]))


async def commit(
    connection: Connection,
    lane: Lane,
    token: str,
    items: Sequence[Item],
    want: Want = NOTHING,
    *,
    limits: Limits = LIMITS,
    sequence: int = 0,
) -> CommitReply:
    """Write the items and take new deliveries, in one script call. Raises `StoreError`.

    ``sequence`` grows with every call of a process: one that is held up on its way, and sent again
    meanwhile, then does nothing when it comes after a later one.
    """
    args = arguments(token, items, want, limits, sequence)
    with connection.translated():
        reply = await call(connection.scripts, "commit", lane, args)

    if reply is None:
        raise StoreError("Redis had a later commit of this process before this one")
    return reply_of(reply)


def arguments(
    token: str,
    items: Sequence[Item],
    want: Want = NOTHING,
    limits: Limits = LIMITS,
    sequence: int = 0,
) -> list[Argument]:
    """Return what the script is given."""
    args: list[Argument] = [token, want.high, want.normal, want.low, _apart(want)]
    args += (limits.journal_records, limits.journal_bytes, limits.events, limits.dead_letters)
    args.append(sequence)
    for item in items:
        args += item
    return args


def reply_of(reply: Sequence[Any]) -> CommitReply:
    """Return what the script has answered."""
    now, verdicts, taken, posted = reply
    return CommitReply(
        now=now / 1000,
        verdicts=tuple([_VERDICTS[digit - 48] for digit in verdicts]),
        taken=tuple(map(delivery_from, taken)),
        posted=posted > 0,
    )


def encode_error(cause: str, message: str) -> bytes:
    """Return an error as it is stored: ``[cause, message]``, cut to its bound."""
    # What an error says may be anything, also text that is no UTF-8.
    said = message[: LIMITS.error].encode("utf-8", "replace").decode()
    return codec.encode([cause, said], "an error")


def _apart(want: Want) -> int:
    return int(want.suspect) + 2 * int(want.canary)


@functools.lru_cache(maxsize=256)  # nearly always it is asked for how long records are retained
def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
