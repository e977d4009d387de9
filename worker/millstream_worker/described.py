"""Describe workflows to those who call them: a JSON Schema of the arguments, from the annotations.

An annotation that has no schema stands for any value: the worker checks the arguments when the run
starts, so a schema only has to help, never to protect.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import anyio
import msgspec

from millstream.errors import StoreError
from millstream.events import Emit, StoreFailed
from millstream.model.limits import KIB
from millstream.store import catalogues
from millstream.store.catalogues import Described
from millstream.store.connection import Connection
from millstream.workflow import Workflow

#: How long what a worker says is believed, and how often it says so.
TTL_S = 60.0
_EVERY_S = 20.0
#: Bytes of one workflow's schema; a larger one is left out.
_MOST_BYTES = 16 * KIB
_REF = "#/$defs/{name}"


async def publish_forever(
    connection: Connection, queues: Sequence[str], workflows: Iterable[Workflow], emit: Emit
) -> None:
    """Tell whoever looks for workflows what is served here, for as long as it is."""
    data = catalogues.note(describe(workflows))
    while True:
        for queue in dict.fromkeys(queues):
            try:
                await catalogues.publish(connection, queue, data, TTL_S)
            except StoreError as error:
                emit(StoreFailed(during="describe", error=str(error)))
        await anyio.sleep(_EVERY_S)


def describe(workflows: Iterable[Workflow]) -> list[Described]:
    """Return what callers need to know of workflows."""
    return [
        Described(
            name=workflow.name,
            version=workflow.version,
            description=_summary(workflow),
            arguments=_bounded(_arguments(workflow)),
        )
        for workflow in workflows
    ]


def _summary(workflow: Workflow) -> str:
    text = inspect.getdoc(workflow.function) or ""
    return text.partition("\n\n")[0].replace("\n", " ")[:500]


def _arguments(workflow: Workflow) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for parameter in workflow.parameters:
        properties[parameter.name], more = _schema(parameter.wanted)
        definitions |= more
    schema: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": [each.name for each in workflow.parameters if each.required],
        "additionalProperties": workflow.takes_more,
    }
    return {**schema, "$defs": definitions} if definitions else schema


def _schema(wanted: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of one annotation, and the definitions that it refers to."""
    try:
        (schema,), definitions = msgspec.json.schema_components(
            [wanted], schema_hook=_of_model, ref_template=_REF
        )
    except (TypeError, ValueError, NotImplementedError, RecursionError):
        return {}, {}
    nested = definitions.pop("$defs", {})
    return schema, {**definitions, **nested}


def _of_model(wanted: type) -> dict[str, Any]:
    # pydantic is not a dependency; its models are recognised by what they can do. What a model
    # refers to stands inside it, so that names of two models cannot clash.
    describe_model = getattr(wanted, "model_json_schema", None)
    if callable(describe_model):
        schema: dict[str, Any] = describe_model()
        return {} if "$defs" in schema else schema

    raise NotImplementedError(f"{wanted.__qualname__} has no schema")


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    fits = len(msgspec.json.encode(schema)) <= _MOST_BYTES
    return schema if fits else {"type": "object"}
