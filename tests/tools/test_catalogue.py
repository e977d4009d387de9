"""Arguments are checked before anything is sent, against the server's schema and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from mcp_types import Tool, ToolAnnotations

from millstream.errors import ToolRejected
from millstream.model.tool import Effect, OnUnknown
from millstream_worker.tools.catalogue import Catalogue, Described
from millstream_worker.tools.faults import Malformed, Unfit
from tests.tools.bench import benched, web
from tests.tools.fault_http import FaultHttp


def described(schema: dict[str, Any]) -> Described:
    return Described(Tool(name="t", input_schema={"type": "object", **schema}))


DEEP: dict[str, Any] = {}
for _ in range(100):
    DEEP = {"d": DEEP}

UNFIT: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"required": ["a"]}, {}, "'a' is a required property"),
    ({"properties": {"a": {"items": {"type": "string"}}}}, {"a": ["x", 5]}, "at a/1: 5 is not of"),
    ({"prefixItems": []}, DEEP, "nested deeper than 64"),
    ({"$ref": "https://example.org/schema.json"}, {}, "refers to 'https://example.org/schema"),
    ({"type": "nonsense"}, {}, "schema of the tool is broken"),
    ({"$ref": "#"}, {}, "refers to itself without end"),
]


@pytest.mark.parametrize(("schema", "arguments", "message"), UNFIT)
def test_unfit_arguments_and_broken_schemas_are_told_apart(
    schema: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    """Who has to mend something is said; no address that a schema names is looked at."""
    with pytest.raises(Unfit) as raised:
        described(schema).check(arguments)
    assert message in str(raised.value)


def test_the_dialect_of_a_schema_is_respected() -> None:
    """Servers written in TypeScript say draft 7, where `items` may be a list."""
    draft7 = {"$schema": "http://json-schema.org/draft-07/schema#"}
    pair = {"properties": {"p": {"items": [{"type": "string"}, {"type": "number"}]}}}
    described(draft7 | pair).check({"p": ["a", 1]})
    with pytest.raises(Unfit):
        described(draft7 | pair).check({"p": [1, "a"]})


def test_the_digest_changes_with_everything_a_model_relies_on() -> None:
    """And not with the order in which a server lists its tools."""
    a = Tool(name="a", input_schema={"type": "object"})
    b = Tool(name="b", input_schema={"type": "object"}, description="b")
    same = Catalogue.of([b, a]).digest
    assert Catalogue.of([a, b]).digest == same
    for changed in (
        a.model_copy(update={"description": "a, and it sends mail"}),
        a.model_copy(update={"input_schema": {"type": "object", "properties": {}}}),
        a.model_copy(update={"output_schema": {"type": "object"}}),
        a.model_copy(update={"annotations": ToolAnnotations(read_only_hint=True)}),
        a.model_copy(update={"name": "c"}),
    ):
        assert Catalogue.of([changed, b]).digest != same


def test_a_name_that_repeats_is_an_error() -> None:
    """Nobody could say which of the two would be called."""
    tool = Tool(name="a", input_schema={"type": "object"})
    with pytest.raises(Malformed, match="twice"):
        Catalogue.of([tool, tool])


async def test_what_is_unknown_is_answered_with_what_there_is() -> None:
    """The author of a workflow has mistyped something, and sees it at once."""
    async with FaultHttp().serve() as server:
        entry = web(server, deny=["fault", "rpc_*", "hang"])
        async with benched({"faults": entry}) as bench:
            with pytest.raises(ToolRejected, match="no such MCP server; there are faults"):
                await bench.prepare("fault", "echo")
            with pytest.raises(ToolRejected, match=r"no such tool; there are .*echo, effect") as e:
                await bench.prepare("faults", "eko")
            with pytest.raises(ToolRejected, match="it allows every tool except fault, rpc_"):
                await bench.prepare("faults", "rpc_error", {"code": 1})
            with pytest.raises(ToolRejected, match="at text: 5 is not of type 'string'"):
                await bench.prepare("faults", "echo", {"text": 5})

    assert "hang" not in str(e.value)
    # No tool that does not exist becomes a label of a metric.
    assert bench.statuses == ["rejected"] * 3
    assert server.tools.metas == []


async def test_a_prepared_call_says_what_a_repetition_would_do() -> None:
    """By our word, else by the server's where it is trusted."""
    async with FaultHttp().serve() as server:
        servers = {
            "trusted": web(server, trustAnnotations=True),
            "stranger": web(server),
            "configured": web(
                server,
                tools={
                    "effect": {"effect": "idempotent"},
                    "echo": {"effect": "unsafe", "onUnknown": "retry"},
                },
            ),
        }
        async with benched(servers) as bench:
            seen = {
                (name, tool): await bench.prepare(name, tool)
                for name in servers
                for tool in ("echo", "effect")
            }

    facts = {key: (call.effect, call.needs_intent) for key, call in seen.items()}
    assert facts == {
        ("trusted", "echo"): (Effect.READ_ONLY, False),
        ("trusted", "effect"): (Effect.UNSAFE, True),
        ("stranger", "echo"): (Effect.UNSAFE, False),
        ("stranger", "effect"): (Effect.UNSAFE, True),
        ("configured", "echo"): (Effect.UNSAFE, True),
        ("configured", "effect"): (Effect.IDEMPOTENT, False),
    }
    assert seen["configured", "echo"].on_unknown is OnUnknown.RETRY
    assert seen["configured", "effect"].on_unknown is OnUnknown.FAIL


async def test_the_key_is_put_where_the_tool_wants_it() -> None:
    """A server that knows nothing of our `_meta` may still know what a request id is."""
    async with FaultHttp().serve() as server:
        entry = web(server, tools={"keyed_effect": {"keyArgument": "request_id"}})
        async with benched({"faults": entry}) as bench:
            for _ in range(3):
                await bench.call("faults", "keyed_effect", {"name": "e"}, key="the-key")

    assert list(server.tools.answers) == ["the-key"]
    assert server.tools.effects["e"] == 1
