"""What a caller writes on a run to find it again: a few words of its own, such as a customer's id.

They decide nothing: neither what the run does nor whether it is the same run. They stand in the
record of the run, readable for whoever may see it, and are compared while runs are listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from millstream.errors import UsageError
from millstream.model.limits import LIMITS

Attributes = Mapping[str, str]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def checked(attributes: Attributes) -> Attributes:
    """Return the attributes, or raise `UsageError` when they are not such as may be written."""
    if not isinstance(attributes, Mapping) or len(attributes) > LIMITS.attributes:
        raise UsageError(f"attributes are a mapping of at most {LIMITS.attributes} names to texts")
    for name, value in attributes.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UsageError(
                f"attribute {name!r} is not allowed: 1 to 64 of letters, digits and . _ -,"
                " beginning with a letter or digit"
            )
        if not isinstance(value, str) or not value.isprintable() or not _fits(value):
            raise UsageError(
                f"attribute {name!r} must be a printable text of 1 to {LIMITS.attribute}"
                f" characters, not {value!r:.80}"
            )
    return attributes


def pairs(words: Iterable[str]) -> Attributes:
    """Return attributes from words like ``customer=42``. Raises `UsageError`."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"attribute {word!r} is not NAME=VALUE")
        if found.setdefault(name, value) != value:
            raise UsageError(f"attribute {name!r} is given twice, with different values")
    return found


def among(wanted: Attributes, found: Attributes) -> bool:
    """Whether all that are wanted are there, with these values."""
    return all(found.get(name) == value for name, value in wanted.items())


def _fits(value: str) -> bool:
    return 1 <= len(value) <= LIMITS.attribute
