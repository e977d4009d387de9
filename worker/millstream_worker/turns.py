"""What leaves in one turn of a lane, and what its answers mean. Decides only; sends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from millstream.model.limits import LIMITS, MIB
from millstream.store.commits import Item, Verdict

#: What one run wants written together, and who waits for it.
Submission = tuple[Sequence[Item], "asyncio.Future[Verdict]"]

#: The most that leaves in one commit, so that one script never holds Redis for long, and no
#: commit is too large to be answered in time.
MOST_ITEMS = LIMITS.batch
MOST_BYTES = 8 * MIB


def split(waiting: Sequence[Submission]) -> tuple[list[Submission], list[Submission]]:
    """Return what leaves now, always at least one submission, and what stays for the next turn."""
    items = size = count = 0
    for submitted, _ in waiting:
        items += len(submitted)
        size += sum(len(value) for item in submitted for value in item if type(value) is bytes)
        if count and (items > MOST_ITEMS or size > MOST_BYTES):
            break
        count += 1

    return list(waiting[:count]), list(waiting[count:])


def answer(batch: Sequence[Submission], verdicts: Sequence[Verdict]) -> None:
    """Give each submission its verdict.

    The last item speaks for all: they are written under the same fence, and a repeated end
    stands although the records before it find the run ended. Only a journal that was full for
    one of them is said of all.
    """
    at = 0
    for items, future in batch:
        part = verdicts[at : at + len(items)]
        at += len(items)
        full = Verdict.FULL in part and part[-1] is not Verdict.FENCED
        if not future.done():
            future.set_result(Verdict.FULL if full else part[-1])
