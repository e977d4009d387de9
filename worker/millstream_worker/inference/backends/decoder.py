"""Writes several texts at once, one token of each at a time; texts begin and end in between.

Promise: what is written of a text does not depend on the others, but for the rounding of larger
batches. Each has options of its own. A model that keeps something else than keys and values, or
takes no positions, is none for it: `can_decode` says so.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from millstream_worker.inference.backends.keyvalues import KeyValues, cache_of_prompts
from millstream_worker.inference.backends.strides import READ_AT_ONCE

#: Layers that look at all that was written, or at the latest of it.
_KNOWN_LAYERS = {"full_attention", "sliding_attention"}


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """A text that is being written."""

    number: int
    #: The prompt, and what was written of it before.
    prompt: Sequence[int]
    #: Tokens that it may still have.
    left: int
    temperature: float = 0.0
    top_p: float = 1.0
    #: What was written since it came.
    written: list[int] = field(default_factory=list)
    #: Whether there is nothing more to come.
    done: bool = False


class Decoder:
    """The rows of one model. ``ends`` are the tokens that end a text."""

    def __init__(self, model: Any, device: Any, ends: Iterable[int], pad: int) -> None:
        self._model = model
        self._device = device
        self._ends = frozenset(ends)
        self._pad = pad
        self._values = KeyValues()
        #: Rows and columns of the buffers at their largest since `begin`.
        self.used = 0, 0
        self.rows: list[Row] = []
        parameters = inspect.signature(model.forward).parameters
        # Renamed by the library: the old name is a warning in the new releases.
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    @property
    def bytes(self) -> int:
        """What the keys and values take."""
        return self._values.bytes

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return self._values.width

    def begin(self) -> None:
        """Measure from here on what is used."""
        self.used = self._values.shape

    def join(self, rows: Sequence[Row]) -> int:
        """Read the prompts of new rows and write the first token of each; return tokens read."""
        read = 0
        for group in _groups(rows):
            read += len(group) * len(group[-1].prompt)
            with torch.inference_mode():
                self._read(group)
                self._drop_done(len(self.rows) - len(group))
        return read

    def write(self) -> int:
        """Write one token of each row; return how many."""
        count = len(self.rows)
        if count:
            with torch.inference_mode():
                self._write()
                self._drop_done(0)
        return count

    def leave(self, numbers: Iterable[int]) -> None:
        """Let go of rows."""
        leaving = set(numbers)
        with torch.inference_mode():
            for index in reversed(range(len(self.rows))):
                if self.rows[index].number in leaving:
                    self._remove(index)

    def clear(self) -> None:
        """Let go of all rows."""
        self.rows = []
        self._values.clear()

    def _read(self, rows: Sequence[Row]) -> None:
        lengths = [len(row.prompt) for row in rows]
        longest = max(lengths)
        # On the left: what is written next must follow the prompt, not the padding.
        ids = [[*[self._pad] * (longest - len(row.prompt)), *row.prompt] for row in rows]
        mask = self._mask(lengths, longest)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache, logits = cache_of_prompts(), None
        # A prompt that is longer than may be read at once comes in pieces: what is held of a
        # piece while it is read is more than what is kept of it.
        for start in range(0, longest, READ_AT_ONCE):
            piece = slice(start, start + READ_AT_ONCE)
            logits = self._forward(
                torch.tensor(ids)[:, piece], mask[:, : piece.stop], positions[:, piece], cache
            )
        self._values.add(cache, lengths)
        self._measure()
        self.rows += rows
        self._take(rows, logits)

    def _write(self) -> None:
        values = self._values
        values.make_room()
        latest = [row.written[-1] for row in self.rows]
        lengths = [length + 1 for length in values.lengths]
        # Where all are of one length there is nothing to mask, and kernels are faster for it.
        mask = None if len(set(lengths)) == 1 else self._mask(lengths, values.width + 1)
        positions = torch.tensor(values.lengths, device=self._device).unsqueeze(1)
        ids = torch.tensor(latest).unsqueeze(1)
        logits = self._forward(ids, mask, positions, values.cache)
        values.grew()
        self._measure()
        self._take(self.rows, logits)

    def _measure(self) -> None:
        self.used = max(self.used, self._values.shape, key=math.prod)

    def _forward(self, ids: Any, mask: Any, positions: Any, cache: Any) -> Any:
        answer = self._model(
            input_ids=ids.to(self._device),
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            **{self._cache_name: cache},
            **self._last_only,
        )
        return answer.logits[:, -1].float()

    def _mask(self, lengths: Sequence[int], width: int) -> Any:
        held = torch.tensor(lengths, device=self._device).unsqueeze(1)
        places = torch.arange(width, device=self._device)
        return (places >= width - held).long()

    def _take(self, rows: Sequence[Row], logits: Any) -> None:
        for row, token in zip(rows, self._chosen(rows, logits).tolist(), strict=True):
            if token in self._ends:
                row.done = True
                continue
            row.written.append(token)
            row.left -= 1
            row.done = row.left <= 0

    def _chosen(self, rows: Sequence[Row], logits: Any) -> Any:
        best = logits.argmax(-1)
        if all(row.temperature <= 0 for row in rows):
            return best
        heat = torch.tensor([row.temperature or 1.0 for row in rows], device=logits.device)
        share = torch.tensor([row.top_p for row in rows], device=logits.device)
        drawn = _drawn(logits / heat.unsqueeze(1), share)
        greedy = torch.tensor([row.temperature <= 0 for row in rows], device=logits.device)
        return torch.where(greedy, best, drawn)

    def _drop_done(self, first: int) -> None:
        for index in reversed(range(first, len(self.rows))):
            if self.rows[index].done:
                self._remove(index)

    def _remove(self, index: int) -> None:
        self._values.remove(index)
        last = self.rows.pop()
        if index < len(self.rows):
            self.rows[index] = last


def can_decode(model: Any) -> bool:
    """Whether a model keeps keys and values of all that it has read, and nothing else."""
    config = model.config.get_text_config(decoder=True)
    parameters = inspect.signature(model.forward).parameters
    return (
        not getattr(model.config, "is_encoder_decoder", False)
        and not getattr(model, "_is_stateful", False)
        and not getattr(config, "num_kv_shared_layers", 0)
        and set(getattr(config, "layer_types", None) or ()) <= _KNOWN_LAYERS
        and {"attention_mask", "position_ids"} <= set(parameters)
        and bool({"cache", "past_key_values"} & set(parameters))
    )


def _groups(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Cut rows into groups that are read together, the longest prompt of each at its end."""
    group: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row.prompt)):
        if group and (len(group) + 1) * len(row.prompt) > READ_AT_ONCE:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _drawn(logits: Any, share: Any) -> Any:
    """Draw a token of each row among the likeliest that have ``share`` of the probability."""
    ordered, places = logits.softmax(-1).sort(descending=True)
    before = ordered.cumsum(-1) - ordered
    ordered = ordered.masked_fill(before > share.unsqueeze(1), 0.0)
    return places.gather(1, torch.multinomial(ordered, 1)).squeeze(1)
