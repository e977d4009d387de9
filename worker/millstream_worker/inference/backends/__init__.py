"""Backends: what computes. Each is one small class; `Backend` says what it has to have.

A backend of one's own is named in the models' file as ``module:Class``:

    class Upper(Backend):
        padding = False

        def prepare(self, item, options):
            return Prepared(item, len(item))

        def run(self, payloads, options):
            return [payload.upper() for payload in payloads]
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millstream import __version__
from millstream_worker.inference.budget import Own
from millstream_worker.inference.footprint import Bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """An input as it is computed, and its length in tokens."""

    payload: Any
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """An item that takes a slot of a continuous model."""

    #: By which it is known until it has left.
    number: int
    payload: Any
    options: Mapping[str, Any]
    #: What was written of it before it lost its slot: it goes on from there.
    written: Sequence[int] = ()
    #: Whether somebody listens to what is written of it.
    heard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """What came of one advance of a continuous model."""

    #: Results of the items that are through: a JSON value, or an exception for that item.
    ended: Mapping[int, Any]
    #: Tokens that were written of the others.
    written: Mapping[int, Sequence[int]]
    #: What was said of items that are listened to.
    texts: Mapping[int, str]
    #: Tokens of prompts that were read, padding included, and tokens that were written.
    read: int = 0
    wrote: int = 0
    #: Slots that were computed, and how many tokens the longest of them holds now.
    slots: int = 0
    longest: int = 0
    #: Rows and columns of the keys and values, as memory was taken for them.
    taken: tuple[int, int] = (0, 0)
    #: Bytes that the keys and values take now.
    held: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """What a backend is made with."""

    model: str
    path: Path | None
    #: What the models' file says of this model beside the common options.
    options: Mapping[str, Any]


class Backend:
    """Computes batches of one model on one device. Override what differs.

    `prepare` may be called from several threads, before and while the model is loaded. The other
    methods are called by one thread, which belongs to the device.
    """

    #: Whether items are padded to the longest of their batch.
    padding = True
    #: Lengths are rounded up to a multiple of this.
    step = 8
    #: The most tokens one input may have; None: no limit of the model's own.
    max_length: int | None = None
    #: What the models' file may say of such a model, with the defaults; None: anything.
    settings: Mapping[str, Any] | None = None
    #: Options that a call may give, with their defaults; what else a call says is refused.
    call_options: Mapping[str, Any] = {}
    #: Inputs of up to so many characters are prepared where they arrive, not in a thread.
    quick_chars = 4096
    #: Whether the same input gives the same answer: then it is computed once for all who ask.
    repeatable = True
    #: Whether items join and leave while others are computed: `advance` is called instead of `run`.
    continuous = False

    def __init__(self, given: BackendOptions) -> None:
        self.given = given

    @property
    def identity(self) -> str:
        """What decides how long a batch takes and what it holds, as a name; empty: not known.

        What was learned of a model is kept under it. May read files.
        """
        kind = type(self)
        given = self.given
        return named(kind.__module__, kind.__qualname__, given.path, given.options, __version__)

    @property
    def weights(self) -> int:
        """Bytes that the model will hold once it is loaded, as far as that is known before."""
        return 0

    @property
    def guess(self) -> Bytes:
        """How many bytes a batch needs, as long as none was observed."""
        return Bytes(fixed=1 << 20, per_token=4096)

    def prepare(self, item: Any, options: Mapping[str, Any]) -> Prepared:
        """Return an input as it is computed. Raise what you like for what is no input."""
        raise NotImplementedError

    def load(self, device: str) -> None:
        """Bring the model to a device."""

    def run(self, payloads: Sequence[Any], options: Mapping[str, Any]) -> Sequence[Any]:
        """Return one result an item, in order: a JSON value, or an exception for that item."""
        raise NotImplementedError

    def advance(self, joining: Sequence[Joining], leaving: Sequence[int]) -> Advanced:
        """Let go of those that leave, take in those that join, and compute one token for each.

        Whatever it raises, no item has a slot any more afterwards, and `clear` was called.
        """
        raise NotImplementedError

    def clear(self) -> None:
        """Let go of all items that have a slot."""

    def unload(self) -> None:
        """Give back what the model holds."""

    def sample(self, length: int) -> Any:  # noqa: ARG002 - for those who override it
        """Return a payload of a length, for measuring; None: this model is not measured."""
        return None

    def own(self) -> Own | None:
        """Return what this process holds of the device; None where that is not known."""
        return None


def named(*facts: Any) -> str:
    """Return a short name for facts: the same for the same ones."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
