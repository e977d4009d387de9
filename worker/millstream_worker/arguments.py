"""From the stored arguments of a run to those of its workflow's function."""

from __future__ import annotations

from typing import Any

import msgspec

from millstream.errors import InvalidArguments, SealKeyMissing
from millstream.store import codec
from millstream.store.sealing import is_sealed, key_of
from millstream.workflow import Workflow


def bind(workflow: Workflow, data: bytes) -> dict[str, Any]:
    """Return the arguments by name, as the annotations want them.

    Raises `InvalidArguments`, or `SealKeyMissing` for what is sealed.
    """
    given = codec.decode(data)
    if not isinstance(given, dict):
        if is_sealed(data):
            raise SealKeyMissing(key_of(data), f"what {workflow.name!r} is to be run with")
        raise InvalidArguments(workflow.name, "they must be given by name, as a mapping")
    bound = {}
    for parameter in workflow.parameters:
        if parameter.name not in given:
            if parameter.required:
                raise InvalidArguments(workflow.name, f"{parameter.name!r} is missing")
            continue
        try:
            bound[parameter.name] = codec.convert(given.pop(parameter.name), parameter.wanted)
        except (msgspec.ValidationError, ValueError, TypeError, NotImplementedError) as error:
            raise InvalidArguments(workflow.name, f"{parameter.name!r}: {error}") from error

    if given and not workflow.takes_more:
        names = ", ".join(parameter.name for parameter in workflow.parameters) or "none"
        raise InvalidArguments(workflow.name, f"{min(given)!r} is not one of its own ({names})")

    return {**bound, **given}
