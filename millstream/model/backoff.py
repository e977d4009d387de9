"""How long to wait before trying again. Pure arithmetic; randomness is handed in."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from millstream.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a failed step or run is tried again, and when no more.

    The pause before attempt n+1 is ``initial * factor ** (n - 1)`` seconds, at most ``maximum``,
    then spread by ``jitter``: 0.2 makes it anything from 80 % to 120 % of itself, so that what
    failed together does not come back together.
    """

    max_attempts: int = 3
    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 300.0
    jitter: float = 0.2
    #: Errors that are never retried: classes, or names of classes.
    non_retryable: tuple[type[BaseException] | str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise UsageError(f"max_attempts must be at least 1, not {self.max_attempts}")
        if self.initial < 0 or self.maximum < 0 or self.factor < 1:
            raise UsageError("initial and maximum must not be negative, factor not below 1")
        if not 0 <= self.jitter <= 1:
            raise UsageError(f"jitter must lie between 0 and 1, not {self.jitter}")

    def retries(self, error: BaseException) -> bool:
        """Whether an error of this kind is ever retried."""
        names = {cls.__name__ for cls in type(error).__mro__}
        cause = getattr(error, "cause", "")
        for banned in self.non_retryable:
            if isinstance(banned, str):
                if banned in names or banned == cause:
                    return False
            elif isinstance(error, banned) or cause == banned.__name__:
                return False

        return True

    def pause(self, attempt: int, random: Random) -> float | None:
        """Return the seconds to wait after failed attempt number ``attempt``; None: give up."""
        if attempt >= self.max_attempts:
            return None

        # The exponent is cut before the power is taken: a float overflows near 2 ** 1024.
        flat = min(self.maximum, self.initial * self.factor ** min(attempt - 1, 64))
        return max(0.0, flat * (1 + self.jitter * (2 * random.random() - 1)))


#: A run is tried once unless its workflow says otherwise: its steps retry for themselves.
ONCE = RetryPolicy(max_attempts=1)
