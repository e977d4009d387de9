"""How much one principal may ask for: so many requests a second, so many streams at a time.

Counted in this process alone: a limit protects the gateway and whoever shares it, and asking Redis
about every request would cost more than most requests do. With several gateways behind one address
a principal gets a limit from each. See the decision page.

Promise: what is remembered is bounded; whoever is forgotten had its full allowance again.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from millstream_gateway.refusals import TooMany

#: Principals that are told apart.
_MOST = 10_000


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class Rates:
    """Allowances that fill up at a steady rate, by principal."""

    def __init__(self, per_second: float, mono: Callable[[], float]) -> None:
        self._per_second = per_second
        #: What may be asked for at once after a pause.
        self._most = 2 * per_second
        self._mono = mono
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, who: str, count: int = 1) -> None:
        """Use up some of an allowance, or raise `TooMany` that says when to ask again.

        More than fits an allowance is let through when that is full, and owed: else it never could.
        """
        now = self._mono()
        bucket = self._buckets.get(who)
        if bucket is None:
            bucket = self._buckets[who] = _Bucket(self._most, now)
            if len(self._buckets) > _MOST:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(who)
        bucket.level = min(self._most, bucket.level + (now - bucket.at) * self._per_second)
        bucket.at = now
        wanted = min(count, self._most)
        if bucket.level < wanted:
            raise TooMany(
                f"more than {self._per_second:g} a second",
                (wanted - bucket.level) / self._per_second,
            )
        bucket.level -= count


class Places:
    """Requests that stay open: so many of one principal, and so many of all."""

    def __init__(self, each: int, total: int) -> None:
        self._each = each
        self._total = total
        self._held: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """How many are open."""
        return self._held.total()

    @contextmanager
    def hold(self, who: str) -> Iterator[None]:
        """Stay open for this block, or raise `TooMany`."""
        if self._held[who] >= self._each or self._held.total() >= self._total:
            raise TooMany(f"more than {self._each} streams at a time", 1.0)
        self._held[who] += 1
        try:
            yield
        finally:
            self._held[who] -= 1
            if not self._held[who]:
                del self._held[who]
