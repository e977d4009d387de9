"""What a call of the context returns: it has its key already, and acts when it is awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from millstream.errors import UsageError

T = TypeVar("T")


class Call(Awaitable[T]):
    """Something a workflow has called and not yet awaited. It can be awaited once.

    ``unawaited`` has the keys of such calls, in the order in which they were made.
    """

    def __init__(
        self,
        act: Callable[[], Coroutine[Any, Any, T]],
        key: str = "",
        unawaited: dict[str, None] | None = None,
    ) -> None:
        self._act: Callable[[], Coroutine[Any, Any, T]] | None = act
        self._key = key
        self._unawaited = unawaited
        if unawaited is not None:
            unawaited[key] = None

    def __await__(self) -> Generator[Any, Any, T]:
        if self._act is None:
            raise UsageError("a step was awaited twice; keep its value instead")

        act, self._act = self._act, None
        if self._unawaited is not None:
            self._unawaited.pop(self._key, None)
        return act().__await__()
