"""From the stored arguments of a run to those of its workflow's function."""

from __future__ import annotations

from typing import Any

import msgspec

from millstream.errors import InvalidArguments
from millstream.store import codec
from millstream.workflow import Workflow


def bind(workflow: Workflow, data: bytes) -> dict[str, Any]:
    """Return the arguments by name, as the annotations want them. Raises `InvalidArguments`."""
    given = codec.decode(data)
    if not isinstance(given, dict):
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
