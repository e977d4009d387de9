"""A model that writes token by token, simulated: bytes by script, faults by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from millstream_worker.inference.backends import (
    Advanced,
    BackendOptions,
    Joining,
    Prepared,
)
from tests.inference.simulated import Simulated, World


@dataclass
class Pages(World):
    """What is written, and by whom it was asked."""

    #: The names of those that had a slot at each advance that succeeded, in the order of joining.
    advances: list[list[str]] = field(default_factory=list)
    #: How much each wrote before, whenever it joined.
    joined: list[tuple[str, int]] = field(default_factory=list)
    #: Those that were told to go.
    left: list[str] = field(default_factory=list)
    #: Names with the token before which they raise, or their device dies.
    stumbling: dict[str, int] = field(default_factory=dict)
    dying: dict[str, int] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """How many were written, those that were lost included."""
        return sum(map(len, self.advances))


@dataclass
class _Text:
    name: str
    prompt: int
    most: int
    written: list[int]
    heard: bool

    @property
    def length(self) -> int:
        return self.prompt + len(self.written)


class Writing(Simulated):
    """Writes 0, 1, 2 and so on: who loses or repeats a token, or mixes texts up, is seen.

    An input is ``(tokens of the prompt, name, tokens of the answer)``.
    """

    continuous = True
    step = 1
    call_options: Mapping[str, Any] = {"mode": "plain"}

    def __init__(self, given: BackendOptions, world: Pages) -> None:
        super().__init__(given, world)
        self._pages = world
        self._texts: dict[int, _Text] = {}
        self._held = 0
        #: How many texts of how many tokens took the most since the latest advance began.
        self._taken = 0, 0

    def prepare(self, item: Any, options: Mapping[str, Any]) -> Prepared:
        prompt, _, most = item
        return Prepared(item, prompt + most)

    def sample(self, length: int) -> Any:
        return None

    def advance(self, joining: Sequence[Joining], leaving: Sequence[int]) -> Advanced:
        pages = self._pages
        pages.left += [self._texts.pop(number).name for number in leaving]
        for each in joining:
            prompt, name, most = each.payload
            self._texts[each.number] = _Text(name, prompt, most, list(each.written), each.heard)
            pages.joined.append((name, len(each.written)))
        names = [text.name for text in self._texts.values()]
        pages.before(names)
        self._stumble()
        if len(pages.advances) in pages.starve:
            pages.starve.discard(len(pages.advances))
            raise MemoryError("CUDA out of memory")
        self._take()
        if names:
            pages.advances.append(names)
        return self._write()

    def clear(self) -> None:
        self._texts = {}
        self._keep(0)

    def unload(self) -> None:
        self.clear()
        super().unload()

    def _write(self) -> Advanced:
        through: dict[int, Any] = {}
        written: dict[int, list[int]] = {}
        texts: dict[int, str] = {}
        slots = len(self._texts)
        longest = max((text.length + 1 for text in self._texts.values()), default=0)
        for number, text in list(self._texts.items()):
            token = len(text.written)
            text.written.append(token)
            if text.heard:
                texts[number] = f"{token} "
            if len(text.written) == text.most:
                through[number] = {"name": text.name, "tokens": text.written}
                del self._texts[number]
            else:
                written[number] = [token]
        if not self._texts:
            self._keep(0)
        return Advanced(
            ended=through, written=written, texts=texts, wrote=slots, slots=slots,
            longest=longest, taken=self._taken, held=self._held,
        )  # fmt: skip

    def _stumble(self) -> None:
        for text in self._texts.values():
            if self._pages.dying.get(text.name) == len(text.written):
                raise RuntimeError("CUDA error: device-side assert triggered")
        for text in self._texts.values():
            if self._pages.stumbling.get(text.name) == len(text.written):
                raise ValueError(f"cannot go on with {text.name}")

    def _take(self) -> None:
        """Take what the keys of all take, padded to the longest, and a little to compute."""
        if self._texts:
            longest = max(text.length + 1 for text in self._texts.values())
            truth = self._pages.truth
            size = int(len(self._texts) * longest * truth.per_token)
            if size >= self._held or not self._texts:
                self._taken = len(self._texts), longest
            self._keep(size)
            self._pages.device.compute(int(truth.fixed))

    def _keep(self, size: int) -> None:
        device = self._pages.device
        if size > self._held:
            device.take(size - self._held)
        else:
            device.give(self._held - size)
        self._held = size
