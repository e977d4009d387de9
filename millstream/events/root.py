"""What all events are: frozen, and cheap to make."""

from __future__ import annotations

import msgspec


class Happening(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A value that is cheap to make: a busy worker makes a hundred thousand a second."""
