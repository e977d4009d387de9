"""What was learned of a model on a device, kept for the workers that come after.

A worker that starts need not measure what another one has measured: the largest batches that were
seen of each size, with what they took, are kept under the device, the model and the versions of
what computes it. The laws are fitted to them anew, and corrected by what is seen from then on, so
a note that is out of date costs no more than a bad guess.

Promise: bounded in number, size and age; a note that cannot be read, or makes no sense, is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import anyio
import msgspec

from millstream_worker.inference.profile import Profile
from millstream_worker.inference.shapes import Shape

#: Notes of another form are not read.
_FORM = 1
#: Samples of a law in a note.
_MOST = 128
#: Between two looks whether there is something to keep, and batches that make it worth while.
_LOOK_S = 30.0
_NEW = 32


class Keeps(Protocol):
    """Where notes are kept, by device and model. Being away is no failure: there is no note."""

    async def recall(self, device: str, model: str) -> bytes | None:
        """Return the note of a model on a device."""

    async def keep(self, device: str, model: str, note: bytes) -> None:
        """Keep a note, in place of the one before."""


class Forgets:
    """Keeps nothing."""

    async def recall(self, device: str, model: str) -> bytes | None:
        """There is nothing."""
        del device, model
        return None

    async def keep(self, device: str, model: str, note: bytes) -> None:
        """It is forgotten."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """A batch that ran: how many items, padded to how many tokens, and what that took."""

    items: int
    longest: int
    value: float

    @property
    def sane(self) -> bool:
        """Whether this can have been observed at all."""
        return self.items > 0 and self.longest > 0 and math.isfinite(self.value) and self.value > 0


class Note(msgspec.Struct, frozen=True):
    """What is kept of a model on a device."""

    form: int
    bytes: list[Sample]
    seconds: list[Sample]


class Laws:
    """The memory of one device, as it is known to whoever keeps the notes."""

    def __init__(self, device: str, keeper: Keeps, profiles: Mapping[str, Profile]) -> None:
        self._device = device
        self._keeper = keeper
        self._profiles = profiles
        #: How much of each model was kept.
        self._kept: dict[str, int] = {}
        self._recalled: set[str] = set()

    async def recall(self, model: str) -> bool:
        """Take over what others learned; False when there is nothing, and it must be measured."""
        profile = self._profiles[model]
        if not self._device or not profile.identity:
            return False
        note = _read(await self._keeper.recall(self._device, profile.identity))
        if note is None:
            return False
        profile.footprint.recall(_shapes(note.bytes))
        profile.costs.recall(_shapes(note.seconds))
        self._kept[model] = profile.costs.count
        self._recalled.add(model)
        return True

    def source(self, model: str) -> str:
        """Return what the laws of a model go by: guess, kept, or measured."""
        if not self._profiles[model].costs.learned:
            return "guess"
        return "kept" if model in self._recalled else "measured"

    async def keep(self, model: str, *, least: int = 1) -> None:
        """Keep what is known, if there were at least so many batches since the last time."""
        profile = self._profiles[model]
        count = profile.costs.count
        if not self._device or not profile.identity or count - self._kept.get(model, 0) < least:
            return
        self._kept[model] = count
        note = Note(
            form=_FORM,
            bytes=_samples(profile.footprint.seen),
            seconds=_samples(profile.costs.seen),
        )
        await self._keeper.keep(self._device, profile.identity, msgspec.json.encode(note))

    async def watch(self) -> None:
        """Keep what is new now and then, for ever."""
        while True:
            await anyio.sleep(_LOOK_S)
            await self.keep_all(least=_NEW)

    async def keep_all(self, *, least: int = 1) -> None:
        """Keep what is new of all models."""
        for model in list(self._profiles):
            await self.keep(model, least=least)


def _read(text: bytes | None) -> Note | None:
    if text is None:
        return None
    try:
        note = msgspec.json.decode(text, type=Note)
    except msgspec.DecodeError:
        return None
    samples = [*note.bytes, *note.seconds]
    bounded = max(len(note.bytes), len(note.seconds)) <= _MOST
    if note.form != _FORM or not note.seconds or not bounded or not all(x.sane for x in samples):
        return None
    return note


def _shapes(samples: Sequence[Sample]) -> Iterator[tuple[Shape, float]]:
    return ((Shape(x.items, x.longest), x.value) for x in samples)


def _samples(seen: Sequence[tuple[Shape, float]]) -> list[Sample]:
    return [Sample(shape.items, shape.longest, value) for shape, value in seen[-_MOST:]]
