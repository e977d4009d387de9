"""The class of an error, as a label: taken from the front of ``Class: message``."""

from __future__ import annotations

import re

from millstream.telemetry.labels import OTHER

_ERROR = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,79}")


def error_type(error: str, *, otherwise: str = OTHER) -> str:
    """Return the class in front of ``Class: message``, or ``otherwise`` when there is none."""
    name = error.partition(":")[0].strip()
    return name if _ERROR.fullmatch(name) else otherwise
