"""Quantities as Kubernetes writes them: `250m`, `1Gi`, `20`."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {
    "": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10) ** 3, "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9, "T": Decimal(10) ** 12, "P": Decimal(10) ** 15,
    "Ki": Decimal(2) ** 10, "Mi": Decimal(2) ** 20, "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40, "Pi": Decimal(2) ** 50,
}  # fmt: skip
_FORM = re.compile(r"(\d+(?:\.\d+)?)([a-zA-Z]*)")
#: As redis.conf writes them, in lower case.
_BYTES = {"": 1, "b": 1, "k": 1000, "kb": 1024, "m": 10**6, "mb": 2**20, "g": 10**9, "gb": 2**30}


def quantity(text: str | float) -> Decimal:
    """Return the number. Raises `ValueError` for what is none."""
    match = _FORM.fullmatch(str(text))
    if not match or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is no quantity")
    return Decimal(match[1]) * _UNITS[match[2]]


def redis_bytes(text: str) -> int:
    """Return what a size in redis.conf means."""
    match = _FORM.fullmatch(text)
    if not match or match[2].lower() not in _BYTES:
        raise ValueError(f"{text!r} is no size")
    return int(Decimal(match[1]) * _BYTES[match[2].lower()])
