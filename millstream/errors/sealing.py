"""Errors of sealed values: the key is not here, or the value does not open where it stands."""

from __future__ import annotations

from millstream.errors.root import UsageError


class SealingError(UsageError):
    """A value in Redis is sealed, and cannot be opened."""


class SealKeyMissing(SealingError):
    """A value is sealed under a key that this program does not have. Another one may have it."""

    def __init__(self, key_id: str, what: str) -> None:
        super().__init__(
            f"{what} is sealed under key {key_id!r}, which is not here; name the keys with"
            " --seal-keys, and keep a key until nothing is sealed under it any more"
            " (`millstream seal status`)"
        )
        self.key_id = key_id
        self.what = what


class SealBroken(SealingError):
    """A sealed value was changed, or put where it does not belong."""

    def __init__(self, key_id: str, what: str) -> None:
        super().__init__(
            f"{what} does not open under key {key_id!r}: it was changed in Redis, or belongs to"
            " something else; find out who writes there, and bring it back from a backup"
        )
        self.key_id = key_id
        self.what = what
