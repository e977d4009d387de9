"""One lane's traffic: everything the worker writes there and everything it takes from there.

    take  <-  commit  ->  verdicts
      |___ deliveries start        what runs want written leaves together, with the next take

One commit is under way at a time; what comes up meanwhile leaves with the next. While the lane
has work, the commit itself takes it; when it runs dry, a blocking read waits for more.

The promise: no reply that is lost strands a delivery. After any failed commit the items are sent
again without taking, and then, as once every lease, what the store says we hold is compared with
what we hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import anyio
import anyio.lowlevel

from millstream.errors import StoreError
from millstream.events import Emit
from millstream.model.outcome import Released
from millstream.model.run import Delivery
from millstream.store import commits, deliveries
from millstream.store.arrivals import Arrival
from millstream.store.commits import NOTHING, Item, Verdict, Want
from millstream.store.connection import Connection
from millstream.store.deliveries import Stray
from millstream.store.keys import SUSPECT, Lane
from millstream_worker import turns
from millstream_worker.contact import Contact
from millstream_worker.gate import Gate
from millstream_worker.held import Held, Stop
from millstream_worker.lease import Lease
from millstream_worker.listener import Listener
from millstream_worker.reader import Reader
from millstream_worker.reading import RunReader
from millstream_worker.slots import Shares, Slots

#: How long the loop waits for something to do before it shows that it turns.
TURN_S = 5.0


class Consumer:
    """The worker's side of one lane. ``commit_forever`` and ``read_forever`` must run."""

    def __init__(
        self,
        connection: Connection,
        lane: Lane,
        token: str,
        slots: Slots | Gate,
        lease: Lease,
        *,
        emit: Emit,
        retention_s: float,
        alive: Callable[[], None] = lambda: None,
        posted: Callable[[], None] = lambda: None,
        answered: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self.lane = lane
        self.held: dict[str, Held] = {}
        self.listener = Listener(connection, lane, token, self.held, emit=emit)
        self._connection = connection
        self._token = token
        self._slots = slots
        self._lease = lease
        self._shares = Shares()
        self._emit = emit
        self._contact = Contact(connection, lane, emit=emit, alive=alive, answered=answered)
        #: Returns the time in epoch seconds, by the clock of Redis.
        self.wall = self._contact.wall
        self._start: Callable[[Held], None] | None = None
        self._retention_s = retention_s
        self._posted = posted  # something was put into the lane's outbox
        self._sequence = 0
        self._outgoing: list[turns.Submission] = []
        self._adopting: list[Stray] = []
        self._wake = asyncio.Event()
        self._dry = asyncio.Event()
        self._taking = False
        self._comparing = False
        self._turning = False
        #: While verdicts are told: how many runs have left, whose slots are given back together.
        self._left: int | None = None
        #: Whether the loop was woken since it last looked.
        self._woken = False
        #: The entry of each level that was delivered last.
        self._last: dict[str, str] = {}
        self._reader = Reader(
            connection, lane, token, slots, self._dry, last=self._last,
            found=self._found, failed=self._read_failed, look=self._look_again,
        )  # fmt: skip
        self._unshare = slots.share(self._wake.set, lambda: self._taking and not self._dry.is_set())
        slots.on_cleared.append(self._look_again)
        lease.serve(lane)

    # -- what others ask of it -----------------------------------------------------------------

    def submit(self, items: Sequence[Item], size: int, answered: Callable[[Verdict], None]) -> None:
        """Queue items for the next commit; ``answered`` is told the verdict on the last of them."""
        self._outgoing.append(turns.Submission(items, size, answered))
        if not self._woken:
            self._woken = True
            self._wake.set()

    def open(self, start: Callable[[Held], None]) -> None:
        """Begin to take; every delivery is handed to ``start``, which must not wait."""
        self._start = start
        self._taking = True
        self._wake.set()

    def close(self) -> None:
        """Take nothing more; hand back what was delivered and never begun."""
        if self._taking:
            self._taking = False
            self.compare()

    def leave(self) -> None:
        """The lane is empty for good: nothing of it is waited for any more."""
        self._taking = False
        self._unshare()
        self._slots.on_cleared.remove(self._look_again)
        self._lease.leave(self.lane)

    def compare(self) -> None:
        """Ask for a comparison of what is held here and by the store's account."""
        self._comparing = True
        self._wake.set()

    def cancel(self, run_id: str) -> None:
        """Stop a run that somebody wants cancelled."""
        held = self.held.get(run_id)
        if held is not None:
            held.stop(Stop.CANCELLED)

    def reader(self, run_id: str) -> RunReader:
        """Return what reads the rest of what stands for a run."""
        return RunReader(self._connection, self.lane, run_id, self._emit)

    def forget(self, held: Held) -> None:
        """The run has left this worker; its slot is free."""
        if self.held.get(held.delivery.run_id) is held:
            del self.held[held.delivery.run_id]
        if self._slots.suspects:
            self._slots.clear(held)
        if self._left is None:
            self._slots.give(1)
        else:
            self._left += 1

    @property
    def idle(self) -> bool:
        """Whether nothing is being written or compared, or waits to be."""
        return not (self._turning or self._outgoing or self._adopting or self._comparing)

    # -- the commit loop -----------------------------------------------------------------------

    async def commit_forever(self) -> None:
        """Write and take, one call after the other."""
        with turns.beating(self._wake.set, TURN_S):
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._woken = False
                self._turning = True
                await self._turn()
                self._turning = False
                if self._slots.hungry > 1:
                    # Those who were told of free slots look before this lane does.
                    await anyio.lowlevel.checkpoint()

    async def _turn(self) -> None:
        if self._comparing:
            await self._compare()

        batch, self._outgoing = turns.split(self._outgoing)
        strays, surplus = self._room_for_strays()
        leaving = sum([item[0] in commits.ENDINGS for sent in batch for item in sent.items])
        want, granted = self._want(strays, leaving)
        if not batch and not strays and not surplus and not want.total:
            self._contact.alive()
            return

        items = [item for submission in batch for item in submission.items]
        items += [commits.adopt(stray.level, stray.entry) for stray in strays]
        items += [commits.hand_back(x.level, x.entry, self._retention_s) for x in surplus]
        reply = await self._commit(items, want)
        if reply.posted:
            self._posted()
        self._left = 0
        turns.answer(batch, reply.verdicts)
        # Most suspects only stood beside the run that killed: none waits for another one's end.
        for run_id in turns.recorded(items, reply.verdicts) if self._slots.suspects else ():
            if run_id in self.held:
                self._slots.clear(self.held[run_id])
        left, self._left = self._left, None
        self._receive(reply.taken, granted + len(strays) + left)
        if want.total and len(reply.taken) < want.total and not self._adopting:
            self._dry.set()
        # Half was taken at most. The other half comes while this one runs: if it only came with
        # this one's end, both would leave together for ever, and nothing run meanwhile.
        more = want.total and self._slots.free and not self._dry.is_set()
        if more or self._outgoing or self._adopting or self._comparing:
            self._wake.set()

    async def _commit(self, items: list[Item], want: Want) -> commits.CommitReply:
        """Insist until it is written. After a failure nothing is taken: see the promise above."""
        pause_s = 0.05
        while True:
            try:
                self._sequence += 1
                reply = await commits.commit(
                    self._connection, self.lane, self._token, items, want, sequence=self._sequence
                )
            except StoreError as error:
                self._contact.refused("commit", error)
                want = NOTHING
                self._comparing = True
                await self._contact.recover(error)
                await anyio.sleep(pause_s)
                pause_s = min(1.0, pause_s * 2)
            else:
                self._contact.served("commit", reply.now)
                return reply

    async def _compare(self) -> None:
        self._comparing = False
        self._reader.doubt()
        lapses = self._lease.lapses
        try:
            found = await deliveries.holdings(
                self._connection, self.lane, self._token, [x.delivery for x in self.held.values()]
            )
        except StoreError as error:
            self._contact.refused("compare", error)
            self.compare()
            await anyio.sleep(0.1)
            return
        self._contact.recovered("compare")
        self._reader.doubt()
        for run_id in found.lost:
            if run_id in self.held and not self._ending(run_id):
                self.held[run_id].stop(Stop.LOST)
        self._lease.compared(self.lane, lapses)
        for run_id in found.cancelled:
            self.cancel(run_id)
        for run_id in found.addressed:
            self.listener.hear(run_id)
        here = {(x.delivery.level, x.delivery.entry) for x in self.held.values()}
        here |= {(stray.level, stray.entry) for stray in self._adopting}
        self._adopting += [x for x in found.strays if (x.level, x.entry) not in here]

    def _ending(self, run_id: str) -> bool:
        """Whether an item for this run is on its way: then its own verdict will tell."""
        return any(item[1] == run_id for sent in self._outgoing for item in sent.items)

    def _room_for_strays(self) -> tuple[list[Stray], list[Stray]]:
        """Return the strays to adopt, for which slots are taken, and those to hand back."""
        if not self._adopting:
            return [], []
        strays, self._adopting = self._adopting, []
        held = {(x.delivery.level, x.delivery.entry) for x in self.held.values()}
        strays = [x for x in strays if (x.level, x.entry) not in held]
        granted = self._slots.take(len(strays)) if self._taking else 0
        return strays[:granted], strays[granted:]

    def _want(self, strays: Sequence[Stray], leaving: int) -> tuple[Want, int]:
        """Return what to take, and how many slots were taken for it.

        A run that leaves with this very commit makes room for another one.
        """
        if not self._taking or self._dry.is_set():
            return NOTHING, 0
        # Half of all: while one is written and taken, the other runs.
        most = min(turns.MOST_ITEMS, -(-self._slots.total // 2))
        kept = min(most, self._slots.kept(leaving, len(self.held) - leaving))
        granted = self._slots.take(most - kept)
        suspect = not (self._slots.suspecting or any(stray.level == SUSPECT for stray in strays))
        shares = self._shares.split(kept + granted)
        return Want(**shares, suspect=suspect, canary=self._slots.canary), granted

    def _look_again(self) -> None:
        """Something may be waiting that the blocking read did not bring, or does not see."""
        self._dry.clear()
        self._wake.set()

    def _receive(self, taken: Sequence[Delivery], granted: int) -> None:
        for delivery in taken:
            self._last[delivery.level] = delivery.entry
            before = self.held.get(delivery.run_id)
            if before is not None:
                # Taken anew under a higher fence: whatever still runs here writes nothing more.
                before.stop(Stop.LOST)
            if not self._taking:
                # Asked for before the drain began: nothing may be started any more.
                self._release(delivery)
                self._slots.give(1)
                continue
            held = Held(delivery, self, self._retention_s)
            self.held[delivery.run_id] = held
            if delivery.level == SUSPECT:
                self._slots.suspect(held)
            assert self._start is not None, "nothing is taken before `open`"
            self._start(held)

        # What came beyond what was granted stands in the places of runs that left just now.
        self._slots.give(granted - len(taken))

    def _release(self, delivery: Delivery) -> None:
        back = commits.ending(delivery, Released(), "", self._retention_s)
        self.submit([back], 0, lambda _: None)

    # -- the blocking read ---------------------------------------------------------------------

    async def read_forever(self) -> None:
        """Wait for work whenever the lane is dry and there is room for it."""
        await self._reader.read_forever()

    def _found(self, arrival: Arrival) -> None:
        self._contact.met(arrival.now)
        if arrival.taken:
            self._begin(arrival.taken)
        if arrival.strays:
            self._adopting += arrival.strays
            self._look_again()

    def _begin(self, taken: Sequence[Delivery]) -> None:
        """Start what the blocking read has brought, as far as there is room; hand back the rest."""
        granted = self._slots.take(len(taken)) if self._taking else 0
        for delivery in taken[granted:]:
            self._release(delivery)
        self._receive(taken[:granted], granted)
        # More may be waiting. What was started has its first turn before that is looked for: a run
        # that ends in it leaves with the same commit.
        self._dry.clear()
        asyncio.get_running_loop().call_soon(self._wake.set)

    async def _read_failed(self, error: StoreError) -> None:
        self._contact.refused("read", error)
        self.compare()
        await self._contact.recover(error)
        await anyio.sleep(0.2)
