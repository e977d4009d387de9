"""What a step's function is: its name, whether it is awaited, and the type of what it returns.

Found out once a function, since evaluating annotations costs more than all the rest of a step.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import ref


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a function without calling it."""

    name: str
    awaited: bool
    #: The annotation by which a value is read back; Any when there is none.
    returned: Any


class Shapes:
    """Remembers the shapes of functions for as long as the functions live."""

    def __init__(self) -> None:
        #: By a weak reference: looking it up in C is worth it for what every step asks.
        self._known: dict[ref[Callable[..., Any]], Shape] = {}

    def of(self, fn: Callable[..., Any]) -> Shape:
        """Return the shape of a function, or of what a partial is made of."""
        while isinstance(fn, functools.partial):
            fn = fn.func
        try:
            found = self._known.get(ref(fn))
        except TypeError:
            return _shape(fn)  # it can be called, but neither hashed nor watched
        if found is None:
            found = self._known[ref(fn, self._forget)] = _shape(fn)
        return found

    def _forget(self, fn: ref[Callable[..., Any]]) -> None:
        self._known.pop(fn, None)


def _shape(fn: Callable[..., Any]) -> Shape:
    return Shape(_name(fn), _is_async(fn), _returned(fn))


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", type(fn).__qualname__).replace("<locals>.", "")


def _is_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(fn, "__call__", None)  # noqa: B004 - objects with an async __call__ count
    )


def _returned(fn: Callable[..., Any]) -> Any:
    if "return" not in getattr(fn, "__annotations__", {}):
        return Any
    try:
        return typing.get_type_hints(fn)["return"]
    except (NameError, TypeError):
        return Any
