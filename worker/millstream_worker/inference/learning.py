"""What a batch teaches: the laws are fitted to it, and its event is made."""

from __future__ import annotations

from millstream.events import BatchRan
from millstream_worker.inference.engine import Ran
from millstream_worker.inference.items import traces_of
from millstream_worker.inference.patience import Reason
from millstream_worker.inference.picking import Batch
from millstream_worker.inference.profile import Profile


def learned(profile: Profile, batch: Batch, ran: Ran, device: str) -> BatchRan:
    """Take a batch that ran into account; return what there is to say of it.

    Its shape is taken anew: who gave up before it began was not computed.
    """
    lengths = [item.length for item in batch.items]
    shape = profile.shape(lengths)
    observed = None
    if ran.fault is None:
        profile.costs.observe(shape, ran.seconds)
        if ran.peak is None:
            profile.footprint.ran()
        else:
            observed = ran.peak
            profile.footprint.observe(shape, observed)
            profile.last_predicted, profile.last_observed = batch.predicted, observed
    return BatchRan(
        batch=batch.name,
        model=batch.model,
        device=device,
        runs=tuple(dict.fromkeys(w.run for x in batch.items for w in x.waiters)),
        began=batch.began,
        reason=batch.reason or Reason.FULL,
        items=len(batch.items),
        tokens=sum(lengths),
        longest=max(lengths),
        computed=max(shape.tokens, sum(lengths)),
        took_s=ran.seconds,
        waited_s=max(x.launched - x.queued for x in batch.items),
        predicted=batch.predicted,
        observed=observed,
        fault=None if ran.fault is None else ran.fault.kind,
        traces=traces_of(batch.items),
    )
