"""What becomes of the items of a batch that ran: answers, errors, or another try.

Promise: running out of memory is no error of an item unless it does not fit alone; one bad item
fails alone; an item that killed the device twice is not tried a third time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from millstream.errors import InferenceFailed, said
from millstream.events import DeviceFailed, DeviceRanOut, Emit
from millstream_worker.inference.engine import Ran
from millstream_worker.inference.faults import Fault, FaultKind
from millstream_worker.inference.items import Item, too_large
from millstream_worker.inference.picking import Batch
from millstream_worker.inference.profile import Profile
from millstream_worker.inference.recovery import Hunt, split_by_size
from millstream_worker.inference.tenants import Tenants

_MOST_DEATHS = 2
#: With so much of all that may ever be ours an input had its chance.
_ROOMY = 0.9


@dataclass(slots=True)
class Verdict:
    """What has to be done next."""

    again: list[Batch] = field(default_factory=list)
    reset: bool = False


class Mender:
    """Settles the batches of one device."""

    def __init__(
        self, device: str, profiles: Mapping[str, Profile], tenants: Tenants, *, emit: Emit
    ) -> None:
        self._device = device
        self._profiles = profiles
        self._tenants = tenants
        self._emit = emit

    def settle(self, batch: Batch, ran: Ran, headroom: int, most: int) -> Verdict:
        """Answer the items of a batch, or say what to try next.

        ``headroom`` is what it could have, ``most`` what it could have without neighbours.
        """
        if ran.fault is None:
            assert ran.results is not None
            self._tenants.alive()
            self._answer(batch, ran.results)
            return Verdict()
        match ran.fault.kind:
            case FaultKind.MEMORY:
                return self._split(batch, headroom, most)
            case FaultKind.DEVICE:
                return self.died(batch, f"{ran.fault.cause}: {ran.fault.message}")
            case FaultKind.INPUT:
                return self._search(batch, ran.fault)

    def died(self, batch: Batch, error: str) -> Verdict:
        """The device died under a batch: find out, item by item, which of them did it."""
        self._emit(DeviceFailed(device=self._device, error=error))
        alone = len(batch.items) == 1
        again = []
        for item in batch.items:
            item.deaths += 1
            if alone and item.deaths >= _MOST_DEATHS:
                message = f"model {batch.model!r} died of this input twice; it is not tried again"
                item.fail(InferenceFailed(message, cause=error.partition(":")[0]))
            else:
                again.append(_part(batch, [item]))
        return Verdict(again=again, reset=True)

    def fitted(self, batch: Batch, headroom: int) -> list[Batch]:
        """Return the parts of a batch that has become too large meanwhile; none, if it has not."""
        profile = self._profiles[batch.model]
        shape = profile.shape([x.length for x in batch.items])
        if len(batch.items) == 1 or profile.footprint.predict(shape) <= headroom:
            return []
        return [_part(batch, part) for part in split_by_size(batch.items)]

    def _answer(self, batch: Batch, results: Sequence[object]) -> None:
        if batch.hunt is not None:
            batch.hunt.fruitless = 0
        for item, value in zip(batch.items, results, strict=True):
            if isinstance(value, BaseException):
                item.fail(_failed(batch.model, type(value).__name__, said(value)))
            else:
                item.finish(value)

    def _split(self, batch: Batch, headroom: int, most: int) -> Verdict:
        profile = self._profiles[batch.model]
        alone = len(batch.items) == 1
        self._emit(
            DeviceRanOut(
                model=batch.model, device=self._device, items=len(batch.items), split=not alone
            )
        )
        profile.footprint.ran_out(profile.shape([x.length for x in batch.items]), headroom)
        if not alone:
            return Verdict(again=[_part(batch, part) for part in split_by_size(batch.items)])

        (item,) = batch.items
        if headroom < _ROOMY * most:
            # Neighbours have the rest. That says nothing of the input: it waits for more.
            item.refused_at = headroom
            return Verdict(again=[_part(batch, [item])])
        if item.starved:
            item.fail(too_large(batch.model, item.length, "it ran out of memory alone, twice"))
            return Verdict()
        item.starved = True
        self._tenants.evict_idle(batch.model)
        return Verdict(again=[_part(batch, [item])])

    def _search(self, batch: Batch, fault: Fault) -> Verdict:
        if len(batch.items) == 1:
            if batch.hunt is not None:
                batch.hunt.fruitless += 1
            batch.items[0].fail(_failed(batch.model, fault.cause, fault.message))
            return Verdict()

        hunt = batch.hunt or Hunt(len(batch.items))
        hunt.fruitless += 1
        if hunt.hopeless:
            for item in batch.items:
                item.fail(_failed(batch.model, fault.cause, fault.message))
            return Verdict()
        return Verdict(again=[_part(batch, part, hunt) for part in Hunt.halves(batch.items)])


def _part(batch: Batch, items: list[Item], hunt: Hunt | None = None) -> Batch:
    return Batch(
        model=batch.model,
        items=items,
        reason=batch.reason,
        arrivals=batch.arrivals,
        hunt=hunt or batch.hunt,
    )


def _failed(model: str, cause: str, message: str) -> InferenceFailed:
    return InferenceFailed(f"model {model!r} failed on an input: {cause}: {message}", cause=cause)
