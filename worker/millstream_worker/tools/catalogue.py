"""What a server says it can do: its tools, checked and pinned by a hash.

Promise: arguments are checked against the tool's schema before anything is sent, without a look
at any address that a schema names; the hash changes when anything changes that a model, or a
check of ours, relies on. It does not know whether a tool may be called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from jsonschema import Draft202012Validator, SchemaError
from jsonschema.exceptions import best_match
from jsonschema.validators import validator_for
from mcp_types import Tool
from referencing import Registry
from referencing.exceptions import Unresolvable

from millstream.model.tool import ToolInfo
from millstream_worker.tools.faults import Malformed, Unfit
from millstream_worker.tools.policy import Hints

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

#: A schema that contains more, or deeper, than this takes longer to check than to call.
_DEEPEST = 64


class Described:
    """One tool, as its server describes it."""

    def __init__(self, tool: Tool) -> None:
        hints = tool.annotations
        self.info = ToolInfo(
            name=tool.name,
            description=tool.description or "",
            input_schema=dict(tool.input_schema),
        )
        self.hints = Hints(
            read_only=bool(hints and hints.read_only_hint),
            idempotent=bool(hints and hints.idempotent_hint),
        )
        self._schema = tool.input_schema
        self._validator: Validator | None = None

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raise `Unfit` when the arguments do not fit the tool's schema."""
        if _deeper_than(arguments, _DEEPEST):
            raise Unfit(f"the arguments are nested deeper than {_DEEPEST} levels")
        try:
            # `best_match` prefers the error that explains the most.
            error = best_match(self._compiled().iter_errors(dict(arguments)))
        except SchemaError as broken:
            raise Unfit(f"the server's schema of the tool is broken ({broken.message})") from broken
        except Unresolvable as missing:
            raise Unfit(
                f"the server's schema of the tool refers to {missing.ref!r}, which is not in it"
            ) from missing
        except RecursionError as loop:
            raise Unfit("the server's schema of the tool refers to itself without end") from loop

        if error is not None:
            where = "/".join(str(part) for part in error.absolute_path)
            raise Unfit(
                f"the arguments do not fit the tool's schema{f' at {where}' if where else ''}:"
                f" {error.message}"
            )

    def _compiled(self) -> Validator:
        if self._validator is None:
            cls = validator_for(self._schema, default=Draft202012Validator)
            cls.check_schema(self._schema)
            # An empty registry: a reference is found inside the schema, or not at all.
            self._validator = cls(self._schema, registry=Registry())
        return self._validator


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All tools of a server at one time."""

    tools: Mapping[str, Described]
    #: Hash of names, descriptions, schemas and annotations, independent of their order.
    digest: str

    @classmethod
    def of(cls, tools: Sequence[Tool]) -> Catalogue:
        """Return the catalogue of these tools, or raise `Malformed` where names repeat."""
        described = {tool.name: Described(tool) for tool in tools}
        if len(described) != len(tools):
            raise Malformed("its list of tools names one of them twice")
        return cls(tools=described, digest=_digest(tools))


def _digest(tools: Sequence[Tool]) -> str:
    relied_on = sorted(
        (
            tool.name,
            tool.description,
            msgspec.json.encode(tool.input_schema, order="sorted"),
            msgspec.json.encode(tool.output_schema, order="sorted"),
            tool.annotations.model_dump_json(exclude_none=True) if tool.annotations else "",
        )
        for tool in tools
    )
    return hashlib.sha256(msgspec.json.encode(relied_on)).hexdigest()


def _deeper_than(value: Any, levels: int) -> bool:
    if levels < 0:
        return True
    if isinstance(value, Mapping):
        return any(_deeper_than(item, levels - 1) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_deeper_than(item, levels - 1) for item in value)
    return False
