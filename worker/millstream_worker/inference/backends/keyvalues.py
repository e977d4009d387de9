"""Keys and values of texts that are written together: one row each, in one buffer a layer.

All rows end at the same column, so a token of each is written at one place, and what a row looks
back at stands as far behind it as it does in the text: windows of attention and biases by distance
hold. A row that is shorter than the others has nothing before it begins; a mask says where.

Promise: leaving copies at most one row, and growing copies all of them once in `BLOCK` tokens.
The buffers have as many rows as there were at that moment, or joined since, and no more columns
than the longest row needs, rounded up to `BLOCK`. It knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from millstream_worker.inference.backends.strides import BLOCK


@dataclass(slots=True)
class Window:
    """The part of the buffers that is in use: the same in every layer."""

    rows: int = 0
    start: int = 0
    end: int = 0

    @property
    def width(self) -> int:
        """Tokens of the longest row."""
        return self.end - self.start


class _Layer(DynamicLayer):  # type: ignore[misc]  # the library is optional, and has no types here
    """One layer's buffers, as a model of transformers asks for them."""

    def __init__(self, window: Window, keys: Any, values: Any) -> None:
        super().__init__()
        self.window = window
        self.keys, self.values = keys, values
        self.is_initialized = True

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Write the next column of every row; return all that the rows may look at."""
        window = self.window
        until = window.end + key_states.shape[-2]
        rows, seen = slice(window.rows), slice(window.start, until)
        self.keys[rows, :, window.end : until] = key_states
        self.values[rows, :, window.end : until] = value_states
        return self.keys[rows, :, seen], self.values[rows, :, seen]

    def get_seq_length(self) -> int:
        """Return how many tokens the rows look back at."""
        return self.window.width


class KeyValues:
    """The buffers of all layers."""

    def __init__(self) -> None:
        self._window = Window()
        self._lengths: list[int] = []
        self.cache: Any = None

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each row."""
        return self._lengths

    @property
    def width(self) -> int:
        """Tokens of the longest row."""
        return self._window.width

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the buffers."""
        if self.cache is None:
            return 0, 0
        rows, _, columns, _ = self.cache.layers[0].keys.shape
        return int(rows), int(columns)

    @property
    def bytes(self) -> int:
        """What the buffers take."""
        if self.cache is None:
            return 0
        return sum(x.keys.nbytes + x.values.nbytes for x in self.cache.layers)

    def add(self, prompts: Any, lengths: Sequence[int]) -> None:
        """Take in rows whose prompts, padded on the left, were read into a cache of their own."""
        window, first = self._window, len(self._lengths)
        rows, width = first + len(lengths), max(lengths)
        if self.cache is None:
            self.cache = Cache(layers=[_Layer(window, x.keys, x.values) for x in prompts.layers])
            window.end = width
            self._renew(rows, width)
        elif rows > self.shape[0] or width > window.end:
            self._renew(rows, max(width, window.width))
        new, columns = slice(first, rows), slice(window.end - width, window.end)
        for ours, theirs in zip(self.cache.layers, prompts.layers, strict=True):
            ours.keys[new, :, columns] = theirs.keys
            ours.values[new, :, columns] = theirs.values
        self._lengths += lengths
        self._settle()

    def remove(self, row: int) -> None:
        """Let go of a row. The last one takes its place."""
        last = len(self._lengths) - 1
        if row != last:
            columns = slice(self._window.end - self._lengths[last], self._window.end)
            for layer in self.cache.layers:
                layer.keys[row, :, columns] = layer.keys[last, :, columns]
                layer.values[row, :, columns] = layer.values[last, :, columns]
            self._lengths[row] = self._lengths[last]
        self._lengths.pop()
        if self._lengths:
            self._settle()
        else:
            self.clear()

    def make_room(self) -> None:
        """See to it that one more token of every row has a place."""
        if self._window.end == self.shape[1]:
            self._renew(len(self._lengths), self._window.width)

    def grew(self) -> None:
        """One more token of every row was written."""
        self._window.end += 1
        self._lengths = [length + 1 for length in self._lengths]
        self._settle()

    def clear(self) -> None:
        """Let go of everything."""
        self._window.rows = self._window.start = self._window.end = 0
        self._lengths = []
        self.cache = None

    def _settle(self) -> None:
        window = self._window
        window.rows = len(self._lengths)
        window.start = window.end - max(self._lengths)

    def _renew(self, rows: int, width: int) -> None:
        """Move all rows to buffers for so many, so that the columns end at ``width``.

        One layer after the other: no more than one of them is there twice.
        """
        window, kept = self._window, len(self._lengths)
        columns = (width // BLOCK + 1) * BLOCK
        seen = slice(window.start, window.end)
        new = slice(width - window.width, width)
        for layer in self.cache.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                # Zeros, not whatever was there: what is masked is still multiplied, by nothing.
                fresh = old.new_zeros((rows, old.shape[1], columns, old.shape[3]))
                fresh[:kept, :, new] = old[:kept, :, seen]
                setattr(layer, name, fresh)
        window.start, window.end = new.start, width


def cache_of_prompts() -> Any:
    """Return a cache for prompts that are read, whole in every layer."""
    return DynamicCache()
