"""Trials of versions, as operators see them: start, look at, promote, roll back, end.

Promise: only new runs that name no version are shared out; a run that has begun stays on its
version, whatever becomes of the trial. Who changes a trial that somebody else changes at the same
time is told, and nothing is written. Clients and workers need not be told: enqueueing routes, and
workers find out with their next look at a lane.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from millstream.client.auditing import Auditor, audited
from millstream.client.queues import Queues
from millstream.errors import TrialConflict, UnknownTrial, UsageError
from millstream.model import ids
from millstream.model.trial import Phase, Tally, Trial
from millstream.store import catalogues, layouts, trials
from millstream.store.connection import Connection
from millstream.store.keys import Lane


class TrialStatus(NamedTuple):
    """A trial, and how the runs of both its versions have ended since it was started."""

    trial: Trial
    tried: Tally
    kept: Tally


def _of(workflow: str, *_: Any, queue: str = "default", **__: Any) -> tuple[str, str]:
    return queue, workflow


class Trials:
    """The trials of one Redis: `Client.trials`."""

    def __init__(self, connection: Connection, queues: Queues, *, auditor: Auditor) -> None:
        self._connection = connection
        self._queues = queues
        self.auditor = auditor

    @audited("start trial", _of)
    async def start(
        self,
        workflow: str,
        *,
        version: str,
        share: float,
        kept: str | None = None,
        queue: str = "default",
        threshold: float = 0.1,
        minimum: int = 20,
        automatic: bool = True,
        unseen: bool = False,
    ) -> Trial:
        """Give a share of the new runs of a workflow another version.

        ``kept`` is the version of the others; it need not be said while workers serve one other.
        Said again of the same two versions it changes the share, and goes on counting. ``unseen``
        allows versions that no worker serves yet: their runs wait. Raises `UsageError`,
        `TrialConflict`, `StoreError`.
        """
        served = await self._served(queue, workflow)
        kept = kept or _other(workflow, version, served)
        if not unseen and (missing := {version, kept} - served):
            raise UsageError(
                f"no worker of queue {queue!r} serves {workflow}@{min(missing)}: start one that"
                " does, or say that it is to come (--unseen)"
            )
        lanes = await self._lanes(queue)
        known = await self._known(lanes, workflow)
        now = await self._now()
        trial = Trial(
            workflow=workflow, version=version, kept=kept, share=share, threshold=threshold,
            minimum=minimum, automatic=automatic, started=now, changed=now,
        ).checked()  # fmt: skip
        before = None if known is None else trials.decode(known)
        same = before is not None and before.phase is Phase.RUNNING
        if before is not None and same:
            if (before.version, before.kept) != (version, kept):
                raise TrialConflict(
                    workflow,
                    queue,
                    f"is of version {before.version} beside {before.kept}, and runs;"
                    " promote it or roll it back first",
                )
            trial = replace(trial, started=before.started)
        await self._change(lanes, workflow, known, trial, fresh=not same)
        return trial

    async def list(self, queue: str = "default") -> Sequence[TrialStatus]:
        """Return the trials of a queue, by workflow, those that are over included."""
        lanes = await self._lanes(queue)
        known = await self._ask(functools.partial(trials.read, self._connection, lanes[0]))
        counts = await self._ask(functools.partial(trials.tallies, self._connection, lanes))
        return [_status(trials.decode(known[name]), counts) for name in sorted(known)]

    async def get(self, workflow: str, queue: str = "default") -> TrialStatus:
        """Return the trial of a workflow. Raises `UnknownTrial`."""
        for found in await self.list(queue):
            if found.trial.workflow == workflow:
                return found
        raise UnknownTrial(workflow, queue)

    @audited("promote trial", _of)
    async def promote(self, workflow: str, *, queue: str = "default") -> Trial:
        """Give all new runs the version that was tried. Raises `UnknownTrial`, `StoreError`."""
        return await self._decide(workflow, queue, Phase.PROMOTED, "")

    @audited("roll back trial", _of)
    async def rollback(self, workflow: str, *, queue: str = "default", reason: str = "") -> Trial:
        """Give all new runs the kept version, and those that nobody has begun.

        What has begun goes on with its version. Raises `UnknownTrial`, `StoreError`.
        """
        return await self._decide(workflow, queue, Phase.ROLLED_BACK, reason)

    @audited("end trial", _of)
    async def end(self, workflow: str, *, queue: str = "default") -> None:
        """Forget a trial that was promoted or rolled back: new runs are routed no more.

        From then on a run gets the version that its worker has registered last, so let all workers
        have one mind first. Raises `UnknownTrial`, `TrialConflict` while it runs.
        """
        lanes = await self._lanes(queue)
        known = await self._required(lanes, workflow, queue)
        if trials.decode(known).phase is Phase.RUNNING:
            raise TrialConflict(workflow, queue, "runs; promote it or roll it back first")
        await self._change(lanes, workflow, known, None)

    # -- below ---------------------------------------------------------------------------------

    async def _decide(self, workflow: str, queue: str, phase: Phase, reason: str) -> Trial:
        lanes = await self._lanes(queue)
        known = await self._required(lanes, workflow, queue)
        before = trials.decode(known)
        share = 1.0 if phase is Phase.PROMOTED else before.share
        after = replace(before, phase=phase, share=share, changed=await self._now(), reason=reason)
        await self._change(lanes, workflow, known, after)
        if phase is Phase.ROLLED_BACK:
            await self._ask(functools.partial(trials.recall, self._connection, lanes))
        return after

    async def _change(
        self,
        lanes: Sequence[Lane],
        workflow: str,
        known: bytes | None,
        after: Trial | None,
        fresh: bool = False,
    ) -> None:
        write = functools.partial(
            trials.change, self._connection, lanes, workflow, known, after, fresh=fresh
        )
        await self._ask(write)

    async def _required(self, lanes: Sequence[Lane], workflow: str, queue: str) -> bytes:
        known = await self._known(lanes, workflow)
        if known is None:
            raise UnknownTrial(workflow, queue)
        return known

    async def _known(self, lanes: Sequence[Lane], workflow: str) -> bytes | None:
        found = await self._ask(functools.partial(trials.read, self._connection, lanes[0]))
        data: bytes | None = found.get(workflow)
        return data

    async def _lanes(self, queue: str) -> Sequence[Lane]:
        ids.check_queue(queue)
        # A resize that was cut off would bring lanes that know nothing of it.
        agree = functools.partial(layouts.agreed, self._connection, queue)
        layout = await self._ask(agree)
        return [Lane(queue, number) for number in range(layout.width)]

    async def _served(self, queue: str, workflow: str) -> set[str]:
        ids.check_queue(queue)
        found = await self._ask(functools.partial(catalogues.known, self._connection, queue))
        return {each.version for each in found if each.name == workflow}

    async def _now(self) -> float:
        async def ask() -> float:
            with self._connection.translated():
                seconds, micros = await self._connection.client.time()
            return int(seconds) + int(micros) / 1e6

        now: float = await self._ask(ask)
        return now

    async def _ask(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        return await self._queues.insist(ask)


def _other(workflow: str, version: str, served: set[str]) -> str:
    others = sorted(served - {version})
    if len(others) != 1:
        there = f"workers serve {', '.join(others)}" if others else "workers serve no other"
        raise UsageError(f"say which version of {workflow!r} is kept (--kept): {there}")
    return others[0]


def _status(trial: Trial, counts: Mapping[tuple[str, str], Tally]) -> TrialStatus:
    none = Tally()
    return TrialStatus(
        trial,
        counts.get((trial.workflow, trial.version), none),
        counts.get((trial.workflow, trial.kept), none),
    )
