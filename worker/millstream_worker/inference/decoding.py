"""Has a device compute continuous models: one advance after the other, a token of each item.

Between two advances items join, leave, are given up or come too late, and other models have their
turn. What was written of an item is kept here, so that a slot, the memory or the whole device may
be lost and nothing with it but time.

Promise: every item that was taken from a queue is answered, fails by itself, or goes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from millstream.errors import DeadlineExceeded
from millstream.events import Emit, SlotsAdvanced
from millstream_worker.inference.backends import Advanced, Joining
from millstream_worker.inference.engine import Bounds, Ran
from millstream_worker.inference.faults import FaultKind
from millstream_worker.inference.gauge import Gauge
from millstream_worker.inference.items import Item
from millstream_worker.inference.mending import Mender
from millstream_worker.inference.picking import Batch, Picker
from millstream_worker.inference.shapes import Shape, padded
from millstream_worker.inference.slots import Slots
from millstream_worker.inference.tenants import Tenants


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Advance:
    """One advance, as it is given to the device."""

    model: str
    slots: Slots
    #: All that have a slot.
    items: Sequence[Item]
    joined: Sequence[Item]
    joining: Sequence[Joining]
    leaving: Sequence[int]
    bounds: Bounds
    #: Bytes that the model could have for all that it holds beside its weights.
    room: int
    predicted: int


class Decoding:
    """The continuous models of one device. It starts nothing: the batcher does."""

    def __init__(
        self,
        device: str,
        tenants: Tenants,
        picker: Picker,
        gauge: Gauge,
        mender: Mender,
        *,
        emit: Emit,
    ) -> None:
        self._device = device
        self._tenants = tenants
        self._queues = picker.queues
        self._profiles = picker.profiles
        self._gauge = gauge
        self._mender = mender
        self._emit = emit
        self._slots: dict[str, Slots] = {}
        #: Whether the latest that the device was given was an advance: others have the next turn.
        self.just = False

    @property
    def writing(self) -> list[str]:
        """The models whose slots are in use, the one that waits longest for its turn first."""
        return [model for model, slots in self._slots.items() if slots.items]

    def in_use(self, model: str) -> int:
        """Return how many slots of a model are in use."""
        slots = self._slots.get(model)
        return len(slots.items) if slots else 0

    def turns(self, waiting: Iterable[str]) -> list[str]:
        """Return the models in the order in which they are served: turn and turn about."""
        writing = self.writing
        others = [model for model in waiting if model not in writing]
        return [*others, *writing] if self.just else [*writing, *others]

    def tidy(self) -> None:
        """Take back the items of models that left the device meanwhile, or died with it."""
        for model, slots in self._slots.items():
            if slots.items and self._tenants.residents.get(model) is not slots.resident:
                self._queues[model].put_back(x for x in slots.items.values() if not x.dropped)
                self._emptied(slots)

    def board(self, model: str, now: float) -> Advance | None:
        """Return the next advance of a loaded model; None when there is nothing to do."""
        slots = self._slots.pop(model, None) or Slots(profile=self._profiles[model])
        self._slots[model] = slots
        slots.resident = self._tenants.residents[model]
        queue = self._queues[model]
        leaving = self._given_up(slots, now)
        room = self._gauge.headroom + slots.claimed + slots.held
        shed = slots.shed(room)
        queue.put_back(shed)
        # Whoever had to go would be the first to come back.
        joined = [] if shed else slots.joining(queue.first(slots.profile.batching.items), room)
        queue.take(joined)
        joining = [_joining(item, now) for item in joined]
        slots.items |= {item.number: item for item in joined}
        slots.claim()
        self._claim()
        leaving += [item.number for item in shed]
        if not slots.items and not leaving:
            return None
        return Advance(
            model=model,
            slots=slots,
            items=list(slots.items.values()),
            joined=joined,
            joining=joining,
            leaving=leaving,
            bounds=self._bounds(slots),
            room=room,
            predicted=slots.held + slots.claimed,
        )

    def landed(self, advance: Advance, result: object, now: float) -> bool:
        """Take in what became of an advance; return whether the device has to start anew."""
        if isinstance(result, BaseException):
            return self._died(advance, f"{type(result).__name__}: {result}", now)
        assert isinstance(result, Ran)
        self._gauge.own = result.own
        if result.fragmented:
            self._gauge.budget.fragmented()
        if result.advanced is None:
            return self._failed(advance, result, now)
        observed = self._learned(advance, result, result.advanced)
        self._tell(advance, result, observed)
        self._settle(advance, result.advanced, now)
        return False

    def refuse(self, model: str, error: BaseException) -> None:
        """Fail all that has a slot of a model which cannot be served here.

        The device hears of it with the next advance, as of all who leave.
        """
        slots = self._slots.get(model)
        for item in slots.items.values() if slots is not None else ():
            item.fail(error)

    # -- before it -----------------------------------------------------------------------------

    def _given_up(self, slots: Slots, now: float) -> list[int]:
        """Take the slots of those that nobody waits for any more."""
        for item in slots.items.values():
            if item.deadline <= now and not item.done:
                message = f"its time was up after {len(item.written)} tokens were written"
                item.fail(DeadlineExceeded(message, cause="DeadlineExceeded"))
        gone = [number for number, item in slots.items.items() if item.dropped]
        for number in gone:
            del slots.items[number]
        return gone

    def _bounds(self, slots: Slots) -> Bounds:
        costs = slots.profile.costs
        seconds = costs.seconds(slots.shape()) if slots.items else 0.0
        return self._tenants.bounds(seconds, learned=costs.learned)

    def _claim(self) -> None:
        self._gauge.claimed = sum(slots.claimed for slots in self._slots.values())
        self._gauge.planned = max(0, self._gauge.claimed - self._gauge.own.cached)

    def _emptied(self, slots: Slots) -> None:
        slots.items, slots.held, slots.longest, slots.claimed = {}, 0, 0, 0
        self._claim()

    # -- after it ------------------------------------------------------------------------------

    def _settle(self, advance: Advance, done: Advanced, now: float) -> None:
        slots = advance.slots
        for number, tokens in done.written.items():
            slots.items[number].written += tokens
        for number, text in done.texts.items():
            slots.items[number].say(text)
        ended = [slots.items.pop(number) for number in done.ended]
        if ended:
            self._tenants.used(advance.model, now)
        answers = [done.ended[item.number] for item in ended]
        batch = Batch(model=advance.model, items=ended)
        self._mender.settle(batch, Ran(results=answers), advance.room, advance.room)
        slots.held, slots.longest = done.held, done.longest
        slots.claim()
        self._claim()

    def _failed(self, advance: Advance, ran: Ran, now: float) -> bool:
        assert ran.fault is not None
        items = advance.items
        self._tell(advance, ran, None)
        match ran.fault.kind:
            case FaultKind.DEVICE:
                return self._died(advance, f"{ran.fault.cause}: {ran.fault.message}", now)
            case FaultKind.MEMORY:
                most = self._gauge.budget.headroom(ran.own, alone=True)
                batch = Batch(model=advance.model, items=list(items))
                verdict = self._mender.settle(batch, ran, advance.room, most)
                self._back(advance, [x for part in verdict.again for x in part.items], now)
            case FaultKind.INPUT:
                if len(items) == 1:
                    batch = Batch(model=advance.model, items=list(items))
                    self._mender.settle(batch, ran, advance.room, advance.room)
                    items = []
                self._doubt(advance)
                self._back(advance, items, now)
        return False

    def _died(self, advance: Advance, error: str, now: float) -> bool:
        batch = Batch(model=advance.model, items=list(advance.items))
        verdict = self._mender.died(batch, error)
        self._doubt(advance)
        self._back(advance, [x for part in verdict.again for x in part.items], now)
        return True

    def _doubt(self, advance: Advance) -> None:
        """Suspect those that had just joined; all of them where none had."""
        for item in advance.joined or advance.items:
            item.doubts += 1

    def _back(self, advance: Advance, items: Sequence[Item], now: float) -> None:
        """Let items wait again. They have lost their slots, and nothing that was written."""
        queue = self._queues[advance.model]
        wanted = [item for item in items if not item.dropped]
        queue.put_back(item for item in wanted if item.refused_at < 0)
        queue.starve((item for item in wanted if item.refused_at >= 0), now)
        self._emptied(advance.slots)

    def _learned(self, advance: Advance, ran: Ran, done: Advanced) -> int | None:
        """Fit the laws to an advance; return the bytes that were seen."""
        if not done.slots:
            return None
        profile = advance.slots.profile
        if not done.read:
            longest = padded(done.longest, profile.batching.step)
            profile.costs.observe(Shape(done.slots, longest), ran.seconds)
        if ran.peak is None or not all(done.taken):
            profile.footprint.ran()
            return None
        shape, observed = Shape(*done.taken), advance.slots.held + ran.peak
        profile.last_predicted = profile.footprint.predict(shape)
        profile.last_observed = observed
        profile.footprint.observe(shape, observed)
        return observed

    def _tell(self, advance: Advance, ran: Ran, observed: int | None) -> None:
        done = ran.advanced
        self._emit(
            SlotsAdvanced(
                model=advance.model,
                device=self._device,
                slots=len(advance.items),
                joined=len(advance.joined),
                left=len(advance.leaving),
                ended=len(done.ended) if done else 0,
                read=done.read if done else 0,
                wrote=done.wrote if done else 0,
                took_s=ran.seconds,
                waited_s=max((x.launched - x.queued for x in advance.joined), default=0.0),
                predicted=(
                    advance.predicted if observed is None else advance.slots.profile.last_predicted
                ),
                observed=observed,
                fault=None if ran.fault is None else ran.fault.kind,
            )
        )


def _joining(item: Item, now: float) -> Joining:
    item.launched = item.launched or now
    return Joining(
        number=item.number,
        payload=item.payload,
        options=dict(item.variant),
        written=tuple(item.written),
        heard=item.heard,
    )
