"""What is wrong with a copy of a store, or with the store that it is to be brought back into."""

from __future__ import annotations

from millstream.errors.root import UsageError


class BrokenBackup(UsageError):
    """A file is no copy of a store, or not a whole one."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this is no whole backup: {reason}; take another one")
        self.reason = reason


class StoreInUse(UsageError):
    """There is something in the store that a copy was to be brought back into."""

    def __init__(self, address: str, key: str, *, cut_off: bool) -> None:
        what = (
            "a restore was cut off here, and left a part" if cut_off else f"it has {key!r} already"
        )
        super().__init__(
            f"{address} is not empty: {what}. Stop all workers and schedulers, and give the"
            " address of an empty Redis, or empty this one"
        )
        self.address = address
        self.key = key
        self.cut_off = cut_off
