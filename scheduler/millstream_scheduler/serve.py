"""The life of a scheduler process: stand for election, lead, leave.

Two things live here, and one must outlive the other, so it is a block inside the block that
outlives it:

    support    the seat is asked for, the leader's readings are followed, and the process says that
               it is alive, until the very end
      duties   what a leader does, from election to election; the first thing a signal stops

Read the indentation of `Scheduler.serve` and you have read the order of the shutdown.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from millstream.errors import StoreError
from millstream.events import Emit, LeaderChanged, StoreFailed
from millstream.store.keys import Lane
from millstream_scheduler.elector import Elector
from millstream_scheduler.gauge import Gauge
from millstream_scheduler.janitor import Janitor
from millstream_scheduler.judge import Judge
from millstream_scheduler.sharing import Sharing
from millstream_scheduler.surveyor import Map, Surveyor
from millstream_scheduler.term import Term
from millstream_scheduler.ticker import Ticker

#: How long leaving the seat may take when Redis answers slowly.
RESIGN_S = 2.0
_PULSE_S = 1.0


class Scheduler:
    """A scheduler process, put together. ``serve`` runs it."""

    def __init__(
        self,
        elector: Elector,
        surveyor: Surveyor,
        sharing: Sharing,
        *,
        make_janitor: Callable[[Lane, Term], Janitor],
        make_gauge: Callable[[str, Sequence[Lane], Term], Gauge],
        make_judge: Callable[[Sequence[Lane], Term], Judge],
        make_ticker: Callable[[Term], Ticker],
        emit: Emit,
        pulse: Callable[[], None] = lambda: None,
        on_drain: Callable[[], None] = lambda: None,
    ) -> None:
        self._elector = elector
        self._surveyor = surveyor
        self._sharing = sharing
        self._make_janitor = make_janitor
        self._make_gauge = make_gauge
        self._make_judge = make_judge
        self._make_ticker = make_ticker
        self._emit = emit
        self._pulse = pulse
        self._on_drain = on_drain
        #: Set it, and the scheduler leaves.
        self.drain = anyio.Event()

    @property
    def token(self) -> str:
        """The name of this process."""
        return self._elector.token

    @property
    def leading(self) -> bool:
        """Whether it may do what a leader does, at this moment."""
        return self._elector.leading

    async def serve(self) -> None:
        """Run until told to drain, then give up the seat and return."""
        async with anyio.create_task_group() as support:
            support.start_soon(self._pulse_forever)
            support.start_soon(self._elector.campaign_forever)
            support.start_soon(self._sharing.follow_forever, lambda: self.leading)
            async with anyio.create_task_group() as duties:
                duties.start_soon(self._lead_forever)
                await self.drain.wait()
                self._on_drain()
                duties.cancel_scope.cancel()
            await self._resign()
            support.cancel_scope.cancel()

    # -- in order ------------------------------------------------------------------------------

    async def _pulse_forever(self) -> None:
        while True:
            self._pulse()
            await anyio.sleep(_PULSE_S)

    async def _lead_forever(self) -> None:
        """Do what a leader does, in every term that this process gets."""
        self._emit(LeaderChanged(token=self.token, leading=False))
        while True:
            term = await self._elector.elected()
            self._emit(LeaderChanged(token=self.token, leading=True))
            try:
                with term.scope:
                    await self._lead(term)
            finally:
                self._emit(LeaderChanged(token=self.token, leading=False))

    async def _lead(self, term: Term) -> None:
        """Do the duties on the lanes as they are, and begin anew when those change."""
        while True:
            lanes = await self._surveyor.lanes()
            async with anyio.create_task_group() as group:
                for duty in self._duties(lanes, term):
                    group.start_soon(duty)
                await self._surveyor.until_changed(lanes)
                group.cancel_scope.cancel()

    def _duties(self, lanes: Map, term: Term) -> list[Callable[[], Any]]:
        duties: list[Callable[[], Any]] = [
            self._make_ticker(term).tick_forever,
            functools.partial(self._sharing.publish_forever, term),
        ]
        for queue, its in lanes.items():
            duties.append(self._make_gauge(queue, its, term).sample_forever)
            duties.append(self._make_judge(its, term).judge_forever)
            for lane in its:
                janitor = self._make_janitor(lane, term)
                duties += (janitor.sweep_forever, janitor.clean_forever)

        return duties

    async def _resign(self) -> None:
        """Leave the seat, so that nobody waits for the term to end. Redis may be away."""
        with anyio.move_on_after(RESIGN_S):
            try:
                await self._elector.resign()
            except StoreError as error:
                self._emit(StoreFailed(during="resign", error=f"{type(error).__name__}: {error}"))


async def drain_on_signal(scheduler: Scheduler) -> None:
    """Leave at SIGTERM or SIGINT."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scheduler.drain.set()
