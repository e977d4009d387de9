"""What leaves in one turn of a lane, and what its answers mean. Decides only; sends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from millstream.model.limits import LIMITS, MIB
from millstream.store.commits import Item, Verdict

#: The most that leaves in one commit, so that one script never holds Redis for long, and no
#: commit is too large to be answered in time.
MOST_ITEMS = LIMITS.batch
MOST_BYTES = 8 * MIB
#: The run is still held, and what it wanted recorded does not stand.
UNWRITTEN = (Verdict.FULL, Verdict.OCCUPIED)


class Submission(msgspec.Struct, frozen=True):
    """What one run wants written together, and who is told the verdict on it."""

    items: Sequence[Item]
    #: Bytes of what is in them and may be large: records, events, a result.
    size: int
    answered: Callable[[Verdict], None]


def split(waiting: Sequence[Submission]) -> tuple[list[Submission], list[Submission]]:
    """Return what leaves now, always at least one submission, and what stays for the next turn."""
    items = size = count = 0
    for submission in waiting:
        items += len(submission.items)
        size += submission.size
        if count and (items > MOST_ITEMS or size > MOST_BYTES):
            break
        count += 1

    return list(waiting[:count]), list(waiting[count:])


def answer(batch: Sequence[Submission], verdicts: Sequence[Verdict]) -> None:
    """Give each submission its verdict.

    The last item speaks for all: they are written under the same fence, and a repeated end
    stands although the records before it find the run ended. Only that one of them could not be
    written is said of all.
    """
    at = 0
    for submission in batch:
        count = len(submission.items)
        verdict = verdicts[at + count - 1]
        if count > 1 and verdict is not Verdict.FENCED:
            verdict = next((x for x in verdicts[at : at + count] if x in UNWRITTEN), verdict)
        at += count
        try:
            submission.answered(verdict)
        except asyncio.InvalidStateError:
            # Who alone waited for it was cancelled meanwhile.
            continue


def recorded(items: Sequence[Item], verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Return the runs that have recorded something: they are past where their workers died."""
    for item, verdict in zip(items, verdicts, strict=True):
        if item[0] == "J" and verdict is Verdict.WRITTEN:
            yield str(item[1])


@contextmanager
def beating(wake: Callable[[], None], every_s: float) -> Iterator[None]:
    """Have a loop woken now and then, so that it shows that it turns.

    One timer for all turns: a time-out around each would cost as much as a run.
    """
    loop = asyncio.get_running_loop()

    timers: list[asyncio.TimerHandle] = []

    def beat() -> None:
        timers[:] = [loop.call_later(every_s, beat)]
        wake()

    timers.append(loop.call_later(every_s, beat))
    try:
        yield
    finally:
        timers[0].cancel()
