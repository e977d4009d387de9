"""Serves one device: forms a batch when the device is free, at most one ahead, and launches it.

Promise: every item that was taken from a queue gets an answer, an error of its own, or goes back.
The loop is woken by arrivals, by ends of batches and by one timer; it polls nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

from millstream.errors import InferenceFailed, said
from millstream.events import DeviceFailed, Emit
from millstream_worker.inference.again import Again
from millstream_worker.inference.ahead import Ahead
from millstream_worker.inference.budget import Own
from millstream_worker.inference.decoding import Advance, Decoding
from millstream_worker.inference.engine import Ran
from millstream_worker.inference.gauge import Gauge
from millstream_worker.inference.handing import NotBegun
from millstream_worker.inference.items import Item
from millstream_worker.inference.learning import learned
from millstream_worker.inference.machine import RunsJobs
from millstream_worker.inference.mending import Mender
from millstream_worker.inference.patience import Reason
from millstream_worker.inference.picking import Batch, Picker
from millstream_worker.inference.tenants import Tenants

#: A device that can be ended when it hangs is looked at when it had nothing to do for so long.
CANARY_S = 60.0


class Batcher:
    """The loop of one device. ``serve`` must run; ``kick`` says that something came."""

    def __init__(
        self,
        device: str,
        runner: RunsJobs,
        tenants: Tenants,
        picker: Picker,
        gauge: Gauge,
        *,
        emit: Emit,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.device = device
        self._runner = runner
        self._tenants = tenants
        self._picker = picker
        self._gauge = gauge
        self._emit = emit
        self._wall = wall
        self._numbers = itertools.count()
        #: Names of batches begin with it: no two batchers have the same.
        self._mark = secrets.token_hex(4)
        self._mender = Mender(device, picker.profiles, tenants, emit=emit)
        #: The models whose items join and leave while others are computed.
        self.decoding = Decoding(device, tenants, picker, gauge, self._mender, emit=emit)
        self._wake = asyncio.Event()
        self._ahead = Ahead(device, runner, picker, gauge)
        self._again = Again(picker, tenants, self._mender, gauge, self.kick)
        self._free_since = -math.inf
        #: Nothing starts before: the device died several times in a row.
        self._paused_until = -math.inf
        self._reset_wanted = False
        gauge.on_read = self.kick
        tenants.on_refused = self._refuse

    def kick(self) -> None:
        """Look again: something came, or changed."""
        self._wake.set()

    @property
    def busy(self) -> bool:
        """Whether something runs or waits here."""
        return bool(
            self._runner.under_way
            or self._again
            or self.decoding.writing
            or any(len(self._picker.queues[model]) for model in self._picker.profiles)
        )

    async def serve(self) -> None:
        """Serve for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            try:
                until = await self._turn(loop.time())
            except Exception as error:  # noqa: BLE001 - a mistake here must not leave anyone waiting
                until = None
                self._give_up(error)
            timer = None if until is None else loop.call_at(until, self._wake.set)
            await self._wake.wait()
            if timer is not None:
                timer.cancel()

    def _give_up(self, error: Exception) -> None:
        """Fail all that waits here, rather than let it wait for ever."""
        what = f"{type(error).__name__}: {said(error)}"
        self._emit(DeviceFailed(device=self.device, error=what))
        failed = InferenceFailed(f"the batcher of {self.device} failed: {what}", cause="Batcher")
        for model in self._picker.profiles:
            self._refuse(model, failed)

    # -- one turn ------------------------------------------------------------------------------

    async def _turn(self, now: float) -> float | None:
        """Start what can be started; return when to look again, None: when something happens."""
        if self._reset_wanted and not self._runner.under_way:
            self._reset_wanted = False
            self._paused_until = now + await self._tenants.reset()
        self.decoding.tidy()
        if self._reset_wanted:
            return None  # it is dead: nothing is given to it any more
        if now < self._paused_until:
            return self._paused_until
        self._ahead.reconsider()
        if self._runner.under_way >= 2:
            return None
        if self._again:
            # One at a time: what becomes of it decides what comes next, and who is to blame.
            part = None if self._runner.under_way else await self._again.next(now)
            if part is not None:
                self._submit(part, now)
            return None
        if self._runner.under_way == 1:
            self._prepare(now)
            return None
        until = await self._start(now)
        if not self._runner.under_way and until is None and not self._again:
            for model in self._picker.profiles:
                self._picker.queues[model].rest(self.device)
            until = await self._idle(now)
        return until

    async def _idle(self, now: float) -> float | None:
        """Look now and then whether the device still answers; return when to do that."""
        if not self._tenants.residents or not self._tenants.engine.killable:
            return None
        if math.isinf(self._free_since):
            self._free_since = now
        if now < self._free_since + CANARY_S:
            return self._free_since + CANARY_S
        await self._tenants.check()
        self._free_since = asyncio.get_running_loop().time()
        self.kick()
        return None

    def close(self) -> None:
        """Begin nothing more: what is ahead is taken back."""
        self._ahead.drop()

    def let_go(self) -> None:
        """Somebody gave up: what was handed over and has not begun is formed without them."""
        if self._ahead.let_go():
            self.kick()

    def _prepare(self, now: float) -> None:
        """Pick the next batch while one runs, if as much waits as would fill one."""
        if self.decoding.writing and not self.decoding.just:
            return  # it is their turn
        for model in self._picker.order(now, self._tenants.reload_s):
            if self._picker.profiles[model].batching.continuous:
                continue
            if not self._tenants.has(model):
                return
            if self._picker.has_plenty(model) and not self._picker.queues[model].idle:
                # What runs now is gone by then, and so is what it holds.
                batch = self._picker.pick(model, self._gauge.headroom)
                if batch is not None:
                    self._launch(batch, batch.reason or Reason.AHEAD, now)
            return

    async def _start(self, now: float) -> float | None:
        """Launch on a free device, or say until when to wait for more."""
        waiting = self._picker.order(now, self._tenants.reload_s)
        for model in self.decoding.turns(waiting):
            if not self._tenants.has(model):
                if await self._tenants.admit(model, now):
                    self.kick()
                    return None
                continue
            if self._picker.profiles[model].batching.continuous:
                if self._advance(model, now):
                    return None
                batch = None
            else:
                batch = self._picker.pick(model, self._gauge.headroom)
            if batch is None:
                self._picker.refuse_impossible(
                    model, self._gauge.budget, self._tenants.bytes(model)
                )
                if await self._tenants.make_room(model, now):
                    self.kick()
                    return None
                continue
            when = self._picker.when(batch, now, self._free_since)
            if not isinstance(when, Reason):
                if self.decoding.writing:
                    continue
                return when
            self._launch(batch, when, now)
            # Another turn: as much may wait as is worth preparing beside it.
            self.kick()
            return None
        return None

    def _advance(self, model: str, now: float) -> bool:
        """Have a continuous model write the next token of each of its items; False if none."""
        advance = self.decoding.board(model, now)
        if advance is None:
            return False
        self._occupied()
        self.decoding.just = True
        engine = self._tenants.engine

        def compute() -> Ran:
            return engine.advance(model, advance.joining, advance.leaving, advance.bounds)

        self._runner.submit(compute, lambda result: self._landed(advance, result))
        # Another model's batch may be prepared beside it.
        self.kick()
        return True

    def _launch(self, batch: Batch, reason: Reason, now: float) -> None:
        batch.reason = reason
        self._picker.left(batch, reason)
        self._picker.queues[batch.model].take(batch.items)
        self._submit(batch, now)

    def _submit(self, batch: Batch, now: float) -> None:
        profile = self._picker.profiles[batch.model]
        name = f"{self._mark}-{next(self._numbers)}"
        batch.launched(name, profile, self._gauge.budget.others, now)
        self._gauge.planned = max(0, batch.predicted - self._gauge.own.cached)
        self._ahead.batch = batch if self._runner.under_way else None
        self._occupied()
        self.decoding.just = False
        engine, wall = self._tenants.engine, self._wall
        bounds = self._tenants.bounds(
            profile.costs.seconds(batch.shape), learned=profile.costs.learned
        )

        def compute() -> tuple[list[Any], Ran]:
            if batch.handed is not None:
                batch.began = wall()
                return batch.items, batch.handed.outcome()
            # In the thread, at the last moment: whoever gave up meanwhile is left out.
            live = batch.live
            if not live:
                return live, Ran(results=[])
            batch.began = wall()
            variant = dict(live[0].variant)
            return live, engine.run(batch.model, [x.payload for x in live], variant, bounds)

        # What another thread has still to send must not be overtaken.
        in_order = engine.occupied or not self._runner.under_way
        if in_order and len(batch.live) == len(batch.items):
            payloads, variant = [x.payload for x in batch.items], dict(batch.items[0].variant)
            batch.handed = engine.hand(batch.model, payloads, variant, bounds)

        self._runner.submit(compute, lambda result: self._ended(batch, result))

    def _occupied(self) -> None:
        for model in self._picker.profiles:
            self._picker.queues[model].idle.discard(self.device)

    def _refuse(self, model: str, error: Exception) -> None:
        """Fail all that waits for a model which cannot be served here."""
        self.decoding.refuse(model, error)
        self._again.refuse(model, error)
        self._picker.queues[model].fail(error)

    # -- what became of it ---------------------------------------------------------------------

    def _freed(self) -> float:
        now = asyncio.get_running_loop().time()
        # The one that was ahead has begun, or is about to: it cannot be taken back any more.
        self._ahead.batch = None
        if not self._runner.under_way:
            self._free_since = now
        return now

    def _landed(self, advance: Advance, result: Any) -> None:
        now = self._freed()
        try:
            again = self.decoding.landed(advance, result, now)
            self._reset_wanted = self._reset_wanted or again
        except Exception as error:  # noqa: BLE001 - as in `serve`
            _fail(advance.items, error)
            self._reset_wanted = True
        self.kick()

    def _ended(self, batch: Batch, result: Any) -> None:
        now = self._freed()
        try:
            if isinstance(result, NotBegun):
                self._untouched(batch, result)
            elif isinstance(result, BaseException):
                self._died(batch, result)
            else:
                batch.items, ran = result
                self._settle(batch, ran, now)
        except Exception as error:  # noqa: BLE001 - as in `serve`
            _fail(batch.items, error)
        # Last: who was answered is heard of before the next batch is thought about.
        self.kick()

    def _settle(self, batch: Batch, ran: Ran, now: float) -> None:
        if not batch.items:
            return
        self._gauge.own = ran.own
        if ran.fragmented:
            self._gauge.budget.fragmented()
        self._tenants.used(batch.model, now)
        event = learned(self._picker.profiles[batch.model], batch, ran, self.device)
        self._emit(event)
        most = self._gauge.budget.headroom(ran.own, alone=True)
        verdict = self._mender.settle(batch, ran, self._gauge.headroom, most)
        self._again.add(verdict.again)
        self._reset_wanted = self._reset_wanted or verdict.reset

    def _untouched(self, batch: Batch, why: NotBegun) -> None:
        """The device never began it: its items are to blame for nothing."""
        if batch.taken_back and why.__cause__ is None:
            return
        if not batch.taken_back:
            self._again.let_wait(batch)
        if not self._reset_wanted:  # else it died of the batch before, which said so
            self._emit(DeviceFailed(device=self.device, error=said(why)))
        self._reset_wanted = True

    def _died(self, batch: Batch, error: BaseException) -> None:
        verdict = self._mender.died(batch, f"{type(error).__name__}: {error}")
        self._gauge.own = Own()
        self._again.add(verdict.again)
        self._reset_wanted = True


def _fail(items: Iterable[Item], error: Exception) -> None:
    what = f"the batcher failed: {type(error).__name__}: {said(error)}"
    for item in items:
        item.fail(InferenceFailed(what, cause="Batcher"))
