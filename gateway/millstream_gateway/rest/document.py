"""The OpenAPI 3.1 document of the API, printed from the table of routes."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from millstream import __version__
from millstream_gateway.problems import Problem
from millstream_gateway.routes import Answer, Route

_REF = "#/components/schemas/{name}"
_PART = re.compile(r"\{(\w+)\}")
#: What stands in paths.
_PATH_SCHEMAS: Mapping[str, dict[str, Any]] = {
    "id": {"type": "string", "minLength": 1, "maxLength": 200},
    "queue": {"type": "string", "minLength": 1, "maxLength": 64},
    "name": {"type": "string", "minLength": 1, "maxLength": 100},
}
_PATH_MEANINGS = {
    "id": "Id of the run, percent-encoded: a `/` in it is `%2F`.",
    "queue": "Name of the queue.",
    "name": "Name of the schedule.",
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the document."""
    described = [route for route in routes if route.described]
    schemas = _Schemas(described)
    paths: dict[str, dict[str, Any]] = {}
    for route in described:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "millstream",
            "version": __version__,
            "description": "Durable agent workflows: enqueue runs, follow them, operate them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "security": [{"bearer": []}, {"key": []}],
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the identity provider, or an API key.",
                },
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


class _Schemas:
    """The schemas of all types that routes name."""

    def __init__(self, routes: Iterable[Route]) -> None:
        wanted = {Problem: None}
        for route in routes:
            shapes = (route.body, *(answer.shape for answer in route.answers.values()))
            wanted.update(dict.fromkeys(shape for shape in shapes if shape is not None))
        types = list(wanted)
        found, self.components = msgspec.json.schema_components(types, ref_template=_REF)
        self._of = dict(zip(types, found, strict=True))

    def of(self, shape: Any) -> dict[str, Any]:
        """Return the schema of a type: mostly a reference."""
        return self._of[shape]


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [*_in_path(route), *_in_query(route), *_in_head(route)],
        "responses": {
            str(status): _response(answer, schemas)
            for status, answer in sorted(route.answers.items())
        },
    }
    if route.needs is None:
        operation["security"] = []
    else:
        operation["description"] = f"Needs the role `{route.needs.name.lower()}` in the queue."
    if route.body is not None:
        content = {"application/json": {"schema": schemas.of(route.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _response(answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.meaning}
    if answer.shape is not None:
        response["content"] = {answer.media_type: {"schema": schemas.of(answer.shape)}}
    elif answer.media_type != "application/json":
        response["content"] = {answer.media_type: {"schema": {"type": "string"}}}
    return response


def _in_path(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH_MEANINGS[name],
            "schema": _PATH_SCHEMAS[name],
        }
        for name in _PART.findall(route.path)
    ]


def _in_query(route: Route) -> list[dict[str, Any]]:
    found = []
    for each in msgspec.structs.fields(route.query):
        schema = _inlined(msgspec.json.schema(_without_none(each.type)))
        description = schema.pop("description", "")
        parameter = {"name": each.name, "in": "query", "required": False, "schema": schema}
        found.append({**parameter, "description": description} if description else parameter)
    return found


def _without_none(hint: Any) -> Any:
    """Return what a parameter holds when it is given: there is no null in a query."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    return kinds[0] if type(None) in typing.get_args(hint) and len(kinds) == 1 else hint


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with what it refers to put in its place: a parameter stands alone."""
    definitions = schema.pop("$defs", {})

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return put(definitions[value["$ref"].rpartition("/")[2]])
            return {name: put(each) for name, each in value.items() if name != "title"}
        return [put(each) for each in value] if isinstance(value, list) else value

    inlined: dict[str, Any] = put(schema)
    return inlined


def _in_head(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": meaning,
            "schema": {"type": "string"},
        }
        for name, meaning in route.headers.items()
    ]
