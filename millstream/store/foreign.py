"""Keys of runs under which another program keeps something: they answer for no run.

The promise: such a key costs its own run, and never those that are asked for along with it. What
the scripts do about it stands in ``lua/_lane.lua``, at ``ours``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis.exceptions import ResponseError


def is_foreign(reply: object) -> bool:
    """Whether a reply is the refusal of a key that holds something else than was asked for."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


def sifted(replies: Iterable[Any], missing: Any = None) -> list[Any]:
    """Return the replies of a pipeline, ``missing`` in the place of what is foreign.

    Raises the first error of any other kind.
    """
    found = [missing if is_foreign(reply) else reply for reply in replies]
    for reply in found:
        if isinstance(reply, Exception):
            raise reply
    return found
