"""Judge the versions that are on trial, and roll back the one that does worse.

Every look counts how the runs of both versions have ended lately, tells it, and decides by the rule
of `millstream.model.trial`, which the alert `CanaryFails` repeats. A leader that has just begun
knows nothing of before: it judges by what it has seen itself, so a change of leaders delays a
verdict and never makes one. A rollback by two leaders at once is one rollback. It does not route:
lanes do.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio
from msgspec.structs import replace

from millstream.client.auditing import origin
from millstream.errors import StoreError, TrialConflict
from millstream.events import Emit, TrialRolledBack, TrialSampled
from millstream.model.audit import Act
from millstream.model.run import FINAL
from millstream.model.trial import WINDOW_S, Phase, Tally, Trial, fails
from millstream.store import audit, trials
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream_scheduler.outage import Outage
from millstream_scheduler.term import Term

#: Who is named in the audit trail.
ACTOR = "millstream-scheduler"
_Tallies = Mapping[tuple[str, str], Tally]


@dataclass(slots=True)
class _Seen:
    """What one trial was seen to come to, and when."""

    trial: Trial
    #: (moment, tried, kept), the oldest first; the first one is that of the window's beginning.
    looks: deque[tuple[float, Tally, Tally]] = field(default_factory=deque)


class Judge:
    """The duty of judging the trials of one queue during one term. ``judge_forever`` must run."""

    def __init__(
        self,
        connection: Connection,
        lanes: Sequence[Lane],
        term: Term,
        token: str,
        *,
        interval_s: float,
        emit: Emit,
        mono: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._lanes = lanes
        self._queue = lanes[0].queue
        self._term = term
        self._token = token
        self._interval_s = interval_s
        self._emit = emit
        self._mono = mono
        self._wall = wall
        self._outage = Outage("judge", emit, mono)
        self._seen: dict[str, _Seen] = {}

    async def judge_forever(self) -> None:
        """Look at every interval."""
        while True:
            if self._term.trusted:
                try:
                    await self.look()
                except StoreError as error:
                    self._outage.failed(error)
                else:
                    self._outage.answered()
            await anyio.sleep(self._interval_s)

    async def look(self) -> None:
        """Look once. Where nothing is on trial that is one question. Raises `StoreError`."""
        known = await trials.read(self._connection, self._lanes[0])
        if not known:
            self._seen.clear()
            return

        await trials.spread(self._connection, self._lanes)
        counts = await trials.tallies(self._connection, self._lanes)
        for workflow in self._seen.keys() - known.keys():
            del self._seen[workflow]
        for data in known.values():
            trial = trials.decode(data)
            tried, kept = self._lately(trial, counts)
            if trial.automatic and trial.phase is Phase.RUNNING and fails(trial, tried, kept):
                await self._roll_back(trial, data, tried, kept)
        if any(trials.decode(data).phase is Phase.ROLLED_BACK for data in known.values()):
            # Whoever rolled back may have been cut off before this; else there is nothing left.
            await trials.recall(self._connection, self._lanes)

    def _lately(self, trial: Trial, counts: _Tallies) -> tuple[Tally, Tally]:
        """Return how both versions fared in the window, and tell what is new."""
        now = self._mono()
        tried = counts.get((trial.workflow, trial.version), Tally())
        kept = counts.get((trial.workflow, trial.kept), Tally())
        seen = self._seen.get(trial.workflow)
        if seen is None or seen.trial.started != trial.started:
            seen = self._seen[trial.workflow] = _Seen(trial)
            # All that there is, was within the window; or else nobody knows how much of it.
            young = self._wall() - trial.started < WINDOW_S
            seen.looks.append((now, Tally(), Tally()) if young else (now, tried, kept))
        _, tried_before, kept_before = seen.looks[-1]
        self._tell(trial, trial.version, tried.since(tried_before))
        self._tell(trial, trial.kept, kept.since(kept_before))

        seen.looks.append((now, tried, kept))
        while len(seen.looks) > 1 and now - seen.looks[1][0] >= WINDOW_S:
            seen.looks.popleft()
        _, tried_then, kept_then = seen.looks[0]
        return tried.since(tried_then), kept.since(kept_then)

    def _tell(self, trial: Trial, version: str, ended: Tally) -> None:
        for state in sorted(FINAL):
            self._emit(
                TrialSampled(
                    queue=self._queue,
                    workflow=trial.workflow,
                    version=version,
                    arm="canary" if version == trial.version else "stable",
                    state=state,
                    ended=ended.count(state),
                )
            )

    async def _roll_back(self, trial: Trial, data: bytes, tried: Tally, kept: Tally) -> None:
        reason = (
            f"{tried.failed} of {tried.total} runs of version {trial.version} failed within"
            f" {WINDOW_S / 60:g} minutes, {kept.failed} of {kept.total} of version {trial.kept}"
        )
        after = replace(trial, phase=Phase.ROLLED_BACK, changed=self._wall(), reason=reason)
        try:
            await trials.change(self._connection, self._lanes, trial.workflow, data, after)
        except TrialConflict:
            return  # somebody has decided meanwhile; the next look sees what
        self._emit(
            TrialRolledBack(
                queue=self._queue,
                workflow=trial.workflow,
                version=trial.version,
                kept=trial.kept,
                reason=reason,
            )
        )
        await trials.recall(self._connection, self._lanes)
        await audit.append(self._connection, [self._act(trial, reason)])

    def _act(self, trial: Trial, reason: str) -> Act:
        return Act(
            actor=ACTOR,
            origin=f"{origin()} {self._token}",
            verb="roll back trial",
            queue=self._queue,
            target=trial.workflow,
            result="ok",
            details={"version": trial.version, "kept": trial.kept, "reason": reason},
        )
