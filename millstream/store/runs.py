"""Runs as clients and operators see them: accept, look at, count, cancel, start again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from millstream.errors import SealingError, SealKeyMissing
from millstream.model.run import Depth, RunState, RunStatus, Times
from millstream.store import codec
from millstream.store.asked import Answer, Full, NewRun, Once, Resized, Stands
from millstream.store.connection import Connection
from millstream.store.foreign import is_foreign, sifted
from millstream.store.keys import NEVER_MS, Lane
from millstream.store.scripts import Argument, call
from millstream.store.sealing import Place, Sealer, opened

#: What is said here in the words of others, for whoever asks here.
__all__ = ["Answer", "Full", "NewRun", "Once", "Resized", "Stands"]

#: Who an id belongs to whose key holds something that is not ours: no workflow has this name.
OCCUPIED = ""
#: How an answer begins that names a key instead of a workflow: what stands under the id is sealed
#: under that key, which is not here.
SEALED = "\n"
_NEW, _FOREIGN = 1, 2

_FIELDS = (
    "state", "attempt", "workflow", "version", "error", "enqueued", "started", "ended",
    "crashes", "tenant", "refusals", "refused", "fence", "awaits", "origin", "attributes",
    "parent", "limit",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneDepth(Depth):
    """What one lane holds."""

    due: int = 0
    #: Age of the oldest run that nobody holds, in seconds.
    oldest_s: float = 0.0
    workers: int = 0


async def enqueue(
    connection: Connection, lane: Lane, epoch: int, runs: Sequence[NewRun]
) -> list[Answer] | Resized:
    """Accept runs; at most `Limits.batch` in one call.

    Returns per run True when it is new, False when it was already here, and the name of the
    workflow that owns the id when that is another one or has other arguments; `OCCUPIED` when
    what stands there is no run at all; and `Full` when the lane has no room for it.
    """
    args: list[Argument] = [epoch]
    sealer = connection.sealer
    for run in runs:
        given = run.arguments
        if sealer is not None:
            given = sealer.seal(place_of_arguments(lane, run.id), given)
        args += (
            run.id, run.workflow, run.version, given, run.priority,
            _ms(run.delay_s) if run.delay_s else "", _ms(run.timeout_s) if run.timeout_s else "",
            run.tenant, run.trace, run.attributes,
        )  # fmt: skip

    with connection.translated():
        answers = await call(connection.scripts, "enqueue", lane, args)

    if answers and answers[0] == -1:
        return Resized(answers[1], answers[2])

    if answers.count(_NEW) == len(answers):
        return [True] * len(answers)
    found: list[Answer] = [Full(*x) if isinstance(x, list) else accepted(x) for x in answers]
    if bytes not in map(type, answers):
        return found
    return await _recognised(connection, lane, runs, found)


async def _recognised(
    connection: Connection, lane: Lane, news: Sequence[NewRun], answers: list[Answer]
) -> list[Answer]:
    """Return the answers with those mended that a script could not give.

    It compares bytes, and what is sealed twice is never the same: here it is compared in clear.
    """
    known = [new for new, answer in zip(news, answers, strict=True) if answer == new.workflow]
    owned = dict(zip(known, await owners(connection, lane, known), strict=True))
    # One that has expired meanwhile is answered as it was.
    found = [owned.get(new) for new in news]
    return [
        answer if other is None else other for answer, other in zip(answers, found, strict=True)
    ]


async def owners(
    connection: Connection, lane: Lane, news: Sequence[NewRun]
) -> list[bool | str | None]:
    """Look for runs in a lane that accepts them no more: None where it has no such run.

    Else as `enqueue` answers: False when it is the same run, or the name of the workflow whose
    it is.
    """
    with connection.translated():
        pipe = connection.client.pipeline(transaction=False)
        for new in news:
            pipe.hmget(lane.run(new.id), "workflow", "args", "asked")
        found = await pipe.execute(raise_on_error=False) if news else []
        rows = sifted(found, (None, None, None))

    return [_owner(connection.sealer, lane, new, *row) for new, row in zip(news, rows, strict=True)]


async def cancel(
    connection: Connection, lane: Lane, ids: Sequence[str], retention_s: float
) -> list[str]:
    """Ask for runs to end. Per id: cancelled, cancelling, the state it ended in, or ''."""
    with connection.translated():
        answers = await call(connection.scripts, "cancel", lane, [round(retention_s * 1000), *ids])

    return [answer.decode() for answer in answers]


async def revive(connection: Connection, lane: Lane, ids: Sequence[str]) -> list[str]:
    """Start failed or cancelled runs once more. Per id: queued, the state it is in, or ''."""
    with connection.translated():
        answers = await call(connection.scripts, "revive", lane, ids)

    return [answer.decode() for answer in answers]


async def status(connection: Connection, lane: Lane, run_id: str) -> RunStatus | None:
    """Return what is known of a run; None when there is no record of it."""
    found = await statuses(connection, lane, [run_id])
    return found.get(run_id)


async def statuses(connection: Connection, lane: Lane, ids: Sequence[str]) -> dict[str, RunStatus]:
    """Return what is known of several runs; those without a record are left out."""
    with connection.translated():
        pipe = connection.client.pipeline(transaction=False)
        for run_id in ids:
            pipe.hmget(lane.run(run_id), _FIELDS)
            pipe.zscore(lane.timers, run_id)
            pipe.zscore(lane.parked, run_id)
        rows = await pipe.execute(raise_on_error=False) if ids else []
        rows = sifted(rows, [None] * len(_FIELDS))

    found = {}
    for run_id, fields, timer, parked in zip(ids, rows[::3], rows[1::3], rows[2::3], strict=True):
        if fields[0] is not None:
            due = timer if timer is not None else parked
            row = dict(zip(_FIELDS, fields, strict=True))
            found[run_id] = _status(connection.sealer, lane, run_id, row, due)

    return found


async def arguments(connection: Connection, lane: Lane, run_id: str) -> Any:
    """Return the arguments of a run as plain JSON values; None when there is no such run."""
    with connection.translated():
        try:
            data = await connection.client.hget(lane.run(run_id), "args")
        except ResponseError as error:
            if not is_foreign(error):
                raise
            data = None

    if data is None:
        return None
    return codec.decode(opened(connection.sealer, place_of_arguments(lane, run_id), data))


async def depth(connection: Connection, lane: Lane) -> LaneDepth:
    """Count what a lane holds, at a cost that does not grow with it."""
    with connection.translated():
        reply = await call(connection.scripts, "depth", lane, [])

    (
        waiting,
        running,
        scheduled,
        due,
        parked,
        dead,
        oldest_ms,
        workers,
        added,
        gone,
        paused,
        limited,
    ) = reply
    return LaneDepth(
        waiting=waiting,
        running=running,
        scheduled=scheduled,
        due=due,
        parked=parked,
        dead=dead,
        oldest_s=oldest_ms / 1000,
        workers=workers,
        paused=bool(paused),
        limited=limited,
        added=added,
        gone=gone,
    )


def error_of(data: bytes | None) -> tuple[str, str]:
    """Return (cause, message) of a stored error."""
    if data is None:
        return "unknown", "no error was recorded"

    cause, message = codec.decode(data)
    return cause, message


def accepted(answer: int | bytes) -> bool | str:
    """Return what a script said of one run: new, known, or whose the id is."""
    if isinstance(answer, bytes):
        return answer.decode()

    return OCCUPIED if answer == _FOREIGN else bool(answer)


def place_of_arguments(lane: Lane, run_id: str) -> Place:
    """Return what the arguments of a run are sealed for."""
    return Place(lane.queue, run_id, "arguments")


def _owner(  # noqa: PLR0917 - the last three are what stands
    sealer: Sealer | None,
    lane: Lane,
    new: NewRun,
    workflow: bytes | None,
    arguments: bytes | None,
    asked: bytes | None,
) -> bool | str | None:
    if workflow is None:
        return None

    name = workflow.decode()
    if name != new.workflow:
        return name
    # A run that has begun anew is still the one that was asked for.
    try:
        stands = opened(sealer, place_of_arguments(lane, new.id), asked or arguments or b"")
    except SealKeyMissing as error:
        return SEALED + error.key_id
    return False if stands == new.arguments else name


def _told(sealer: Sealer | None, lane: Lane, run_id: str, error: bytes) -> str:
    """Return an error in words; of one that cannot be opened here, why."""
    try:
        return ": ".join(error_of(opened(sealer, Place(lane.queue, run_id, "error"), error)))
    except SealingError as refusal:
        return f"{type(refusal).__name__}: {refusal}"


def _status(
    sealer: Sealer | None,
    lane: Lane,
    run_id: str,
    fields: Mapping[str, bytes | None],
    due: float | None,
) -> RunStatus:
    error = fields["error"]
    return RunStatus(
        id=run_id,
        queue=lane.queue,
        state=RunState(_text(fields["state"]) or "queued"),
        attempt=int(fields["attempt"] or 1),
        workflow=_text(fields["workflow"]) or "",
        version=_text(fields["version"]),
        error=None if error is None else _told(sealer, lane, run_id, error),
        times=Times(
            enqueued=_seconds(fields["enqueued"]) or 0.0,
            started=_seconds(fields["started"]),
            ended=_seconds(fields["ended"]),
            due=None if due is None or due >= NEVER_MS else due / 1000,
        ),
        crashes=int(fields["crashes"] or 0),
        tenant=_text(fields["tenant"]),
        # They count while nobody has taken it since who refused it last.
        refusals=int(fields["refusals"] or 0) if fields["refused"] == fields["fence"] else 0,
        awaits=tuple((_text(fields["awaits"]) or "").splitlines()),
        limited_by=_text(fields["limit"]),
        attributes=codec.decode(fields["attributes"]) if fields["attributes"] else {},
        forked_from=(_text(fields["origin"]) or "").replace("\n", " at ") or None,
        parent=_parent(_text(fields["parent"])),
    )


def _parent(at: str | None) -> str | None:
    """Return a parent without its lane, which only scripts need: it stands as QUEUE:LANE:ID."""
    if not at:
        return None
    queue, _, run_id = at.split(":", 2)
    return f"{queue}/{run_id}"


def _text(data: bytes | None) -> str | None:
    return data.decode() if data else None


def _seconds(data: bytes | None) -> float | None:
    return int(data) / 1000 if data else None


def _ms(seconds: float) -> Argument:
    return round(seconds * 1000)
