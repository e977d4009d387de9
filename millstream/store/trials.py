"""Where trials of versions live: with the lanes, since every lane routes for itself.

Lane 0 decides what a trial is: who changes it there first is followed by the others. Every lane
has the list that its scripts route by, and counts the ends of its own runs. A lane that missed a
change (a call was cut off, the queue was resized) is brought up by `spread`, which the leading
scheduler says again and again. Nothing here judges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from millstream.errors import TrialConflict, UsageError
from millstream.model.trial import Phase, Tally, Trial
from millstream.store.connection import Connection
from millstream.store.keys import CANARY, Lane
from millstream.store.scripts import call

#: Trials that a queue may have, running or over.
MOST = 16
#: Entries that are looked at in one call.
_PAGE = 500
#: Whether a process can run a version of a workflow.
Knows = Callable[[str, str], bool]


def concerns(lines: bytes, knows: Knows) -> bool:
    """Whether a process reads what is on trial: it knows some of it, or nothing is any more."""
    rows = [line.split() for line in lines.decode().splitlines() if line]
    return not rows or any(knows(workflow, version) for workflow, version, *_ in rows)


async def read(connection: Connection, lane: Lane) -> dict[str, bytes]:
    """Return what a lane knows of trials, by workflow, as it is stored. Raises `StoreError`."""
    with connection.translated():
        found = await connection.client.hgetall(lane.trials)
    return {name.decode(): data for name, data in found.items()}


def decode(data: bytes) -> Trial:
    """Return a trial as it was written."""
    return msgspec.json.decode(data, type=Trial)


async def change(
    connection: Connection,
    lanes: Sequence[Lane],
    workflow: str,
    before: bytes | None,
    after: Trial | None,
    *,
    fresh: bool = False,
) -> None:
    """Put a trial in the place of what was known of it, in lane 0 first; None takes it away.

    ``fresh`` counts its runs from nothing. Raises `TrialConflict` when somebody was faster,
    `UsageError` when there are too many, `StoreError`.
    """
    data = b"" if after is None else msgspec.json.encode(after)
    first, *others = lanes
    answer, known = await _write(connection, first, workflow, before or b"", data, after, fresh)
    if answer < 0:
        raise UsageError(f"a queue has at most {MOST} trials; end those that are over")
    # A repetition whose first reply was lost finds what it wrote.
    if answer == 0 and known != data:
        raise TrialConflict(workflow, first.queue)
    for lane in others:
        await _write(connection, lane, workflow, b"*", data, after, fresh)


async def spread(connection: Connection, lanes: Sequence[Lane]) -> None:
    """Have every lane know of trials what lane 0 knows. Raises `StoreError`."""
    first, *others = lanes
    known = await read(connection, first)
    for lane in others:
        there = await read(connection, lane)
        for workflow in known.keys() | there.keys():
            data = known.get(workflow, b"")
            if there.get(workflow, b"") != data:
                after = decode(data) if data else None
                await _write(connection, lane, workflow, b"*", data, after, False)


async def recall(connection: Connection, lanes: Sequence[Lane]) -> int:
    """Give runs of trials that were rolled back the kept version, unless somebody has begun them.

    Returns how many. Raises `StoreError`.
    """
    recalled = 0
    for lane in lanes:
        after = b""
        while True:
            with connection.translated():
                count, after = await call(connection.scripts, "recall", lane, [after, _PAGE])
            recalled += count
            if not after:
                break
    return recalled


async def tallies(connection: Connection, lanes: Sequence[Lane]) -> Mapping[tuple[str, str], Tally]:
    """Return how runs of trials have ended, by workflow and version. Raises `StoreError`."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for lane in lanes:
        with connection.translated():
            found = await connection.client.hgetall(lane.tried)
        for field, count in found.items():
            workflow, version, state = field.decode().split(" ")
            states = counts.setdefault((workflow, version), {})
            states[state] = states.get(state, 0) + int(count)
    return {key: Tally.of(states) for key, states in counts.items()}


async def waiting(connection: Connection, lanes: Sequence[Lane]) -> int:
    """Return how many deliveries of versions on trial there are, held or not."""
    total = 0
    for lane in lanes:
        with connection.translated():
            total += await connection.client.xlen(lane.stream(CANARY))
    return total


async def _write(  # noqa: PLR0917 - where, what it was, and what it is to be
    connection: Connection,
    lane: Lane,
    workflow: str,
    before: bytes,
    data: bytes,
    after: Trial | None,
    fresh: bool,
) -> tuple[int, bytes]:
    line = "" if after is None else _line(after)
    with connection.translated():
        answer, known = await call(
            connection.scripts, "trial", lane, [workflow, before, data, line, int(fresh), MOST]
        )
    return answer, known


def _line(trial: Trial) -> str:
    """Return what scripts route by. A version that was rolled back gets nothing."""
    parts = 0 if trial.phase is Phase.ROLLED_BACK else trial.parts
    return f"{trial.workflow} {trial.version} {trial.kept} {parts}"
