"""What happens to models and devices."""

from __future__ import annotations

from millstream.events.root import Happening


class InferenceEnded(Happening, frozen=True, kw_only=True):
    """A call of a model ended. ``outcome`` is one of the closed set of the metric."""

    model: str
    outcome: str
    items: int
    #: How long the item that waited longest stood in the queue.
    waited_s: float
    took_s: float
    #: Of the call itself, and of its step.
    trace: str | None = None
    parent: str | None = None


class BatchRan(Happening, frozen=True, kw_only=True):
    """A device computed a batch, or failed to. A span of it, linked to its runs, needs no more."""

    #: Its name, which no other batch has.
    batch: str = ""
    model: str
    device: str
    #: The runs whose inputs it computed, each as ``queue/id``.
    runs: tuple[str, ...] = ()
    #: When it began on the device, in seconds since the epoch.
    began: float = 0.0
    #: Why it left: full, bytes, ahead, quiescent, timer or deadline.
    reason: str
    items: int
    tokens: int
    #: Of its longest input.
    longest: int = 0
    #: Tokens with the padding, which is computed too.
    computed: int
    took_s: float
    #: How long the oldest item had waited.
    waited_s: float
    #: Peak bytes as predicted, and as observed where somebody measures them.
    predicted: int
    observed: int | None = None
    #: What kind of failure it was: memory, device or input.
    fault: str | None = None
    #: Of the calls it was computed for, a bounded number of them.
    traces: tuple[str, ...] | None = None


class SlotsAdvanced(Happening, frozen=True, kw_only=True):
    """A device wrote one token of each text that has a slot, or failed to."""

    model: str
    device: str
    #: Texts that had a slot: those that joined before it, and those that were through with it.
    slots: int
    joined: int
    ended: int
    #: Given up, too late, or in the way of a neighbour.
    left: int
    #: Tokens of prompts, padding included, and tokens of answers.
    read: int
    wrote: int
    took_s: float
    #: How long the one that joined had waited, at most.
    waited_s: float
    #: Bytes as predicted, and as observed where somebody measures them.
    predicted: int
    observed: int | None = None
    #: What kind of failure it was: memory, device or input.
    fault: str | None = None


class InferenceSampled(Happening, frozen=True, kw_only=True):
    """How much waits for a model."""

    model: str
    waiting: int
    oldest_s: float


class DeviceSampled(Happening, frozen=True, kw_only=True):
    """One reading of a device's memory, in bytes."""

    device: str
    usable: int
    others: int
    held: int
    headroom: int


class DeviceRanOut(Happening, frozen=True, kw_only=True):
    """A batch found no memory. ``split``: it goes on in parts."""

    model: str
    device: str
    items: int
    split: bool


class DeviceFailed(Happening, frozen=True, kw_only=True):
    """The context of a device died; it is started anew."""

    device: str
    error: str


class ModelLoaded(Happening, frozen=True, kw_only=True):
    """A model was brought to a device."""

    model: str
    device: str
    took_s: float
    bytes: int


class ModelEvicted(Happening, frozen=True, kw_only=True):
    """A model left a device, so that another has room."""

    model: str
    device: str
    bytes: int
