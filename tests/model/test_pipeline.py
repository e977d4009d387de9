"""What a pipeline may say, in which order it runs, and that a mistake is named with its place."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.errors import InvalidPipeline
from millstream.model.actions import Block
from millstream.model.expressions import evaluate, holds
from millstream.model.pipeline import read

SCOPE = {"page": {"text": "hi", "data": {"links": ["a", "b"], "a.b": 7}}, "n": 3}


def tool(id: str, arguments: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": id, "tool": "web/fetch", "arguments": arguments or {}, **more}


def ref(path: str) -> dict[str, str]:
    return {"$ref": path}


def order(block: Block) -> list[list[str]]:
    return [[step.id for step in generation] for generation in block.generations]


def test_steps_run_as_soon_as_their_references_are_there() -> None:
    """Not in the order in which they were written."""
    steps = [
        tool("last", {"of": [ref("a.text"), ref("b.data.0")]}),
        tool("b", {"from": {"$text": "see ${a.text}"}}),
        tool("a"),
        tool("free"),
        tool("late", after=["free"]),
    ]
    assert order(read(steps)) == [["a", "free"], ["b", "late"], ["last"]]


def test_an_inner_block_waits_for_what_it_mentions_outside() -> None:
    """Also where only a condition inside mentions it."""
    inner = [{"id": "deep", "if": {"less": [ref("count.data"), 5]}, "then": [tool("go")]}]
    steps = [{"id": "each", "map": [1, 2], "steps": inner}, tool("count")]
    assert order(read(steps)) == [["count"], ["each"]]


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ({"$ref": "page.data.links.1"}, "b"),
        ({"$ref": ["page", "data", "a.b"]}, 7),
        ({"$text": "${page.text} ${n} ${page.data.links}"}, 'hi 3 ["a", "b"]'),
        ({"$literal": {"$ref": "page"}}, {"$ref": "page"}),
        ({"x": [ref("n"), "${n}"]}, {"x": [3, "${n}"]}),
    ],
)
def test_a_template_has_a_value(template: Any, value: Any) -> None:
    """A plain string is never read for references, whoever wrote it."""
    assert evaluate(template, SCOPE) == value


@pytest.mark.parametrize(
    ("condition", "held"),
    [
        ({"equals": [ref("n"), 3]}, True),
        ({"at_least": [ref("n"), 4]}, False),
        ({"in": ["a", ref("page.data.links")]}, True),
        ({"exists": ref("page.data.nothing")}, False),
        ({"not": {"exists": ref("page.text")}}, False),
        ({"all": [ref("n"), {"any": [ref("page.data.links"), {"less": [1, 0]}]}]}, True),
        (ref("page.text"), True),
    ],
)
def test_a_condition_holds_or_not(condition: Any, held: bool) -> None:
    """Comparisons, joins and plain values."""
    assert holds(condition, SCOPE) is held


@pytest.mark.parametrize(
    "path", ["page.data.links.2", "page.text.x", "nobody", "page.data.links.x"]
)
def test_a_path_that_leads_nowhere_is_named(path: str) -> None:
    """With the part that is missing."""
    with pytest.raises(InvalidPipeline, match=path.rsplit(".", maxsplit=1)[-1]):
        evaluate(ref(path), SCOPE)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ("no list", "must be a list"),
        ([{"tool": "a/b"}], r"steps\[0\]: needs an id"),
        ([tool("a"), tool("a")], "id 'a' is taken"),
        ([tool("input")], "needs an id"),
        ([tool("a", ref("b.text"))], "no result 'b'"),
        ([tool("a", ref("b")), tool("b", ref("a"))], "wait for each other: "),
        ([tool("a", ref("a"))], "wait for each other: a <- a"),
        ([tool("a", after=["x"])], "no result 'x'"),
        ([{"id": "a"}], "exactly one of tool, infer"),
        ([{"id": "a", "tool": "x/y", "infer": "m"}], "exactly one of"),
        ([tool("a", server="x")], "tool takes no 'server'"),
        ([{"id": "a", "tool": "fetch"}], "server/tool"),
        ([{"id": "a", "infer": "m"}], "infer needs inputs"),
        ([{"id": "a", "wait": {"minutes": 3}}], "wait is"),
        ([{"id": "a", "wait": {"seconds": -1}}], "number of seconds"),
        ([{"id": "a", "if": {"eq": [1, 2]}, "then": []}], "a condition is a reference or"),
        ([{"id": "a", "if": {"less": [1]}, "then": []}], "list of two values"),
        ([{"id": "a", "map": [1], "limit": 0, "steps": []}], "limit is"),
        ([{"id": "a", "map": [1], "as": "a", "steps": []}], "a new name"),
        ([{"id": "a", "map": [1], "steps": [tool("b", ref("c"))]}], r"a\.steps\.b: there is no"),
        ([tool("a", on_error="retry")], "on_error is"),
        ([tool("a", attempts=0)], "attempts is"),
        ([tool("a", {"x": {"$ref": "input", "y": 1}})], "must stand alone"),
        ([tool("a", {"x": {"$text": 7}})], "takes a string"),
        ([tool("a", {"x": {"$ref": "a b"}})], "is no reference"),
        ([tool(f"s{n}") for n in range(1_001)], "more than 1,000 steps"),
        ([tool("a", on_error=[])], "on_error is"),
        ([tool("a", ["no", "object"])], "arguments is an object"),
        ([{"id": "a", "wait": {"seconds": None}}], "wait is"),
        ([{"id": "a", "wait": {"signal": None}}], "wait is"),
        ([{"id": "a", "wait": {"seconds": 1e300}}], "up to ten years"),
        ([{"id": "a", "infer": "m", "inputs": 1, "options": {"key": "b"}}], "may not have key"),
        ([{"id": "a", "infer": "m", "inputs": 1, "options": [1]}], "options is an object"),
    ],
)
def test_a_mistake_is_named_with_its_place(steps: Any, says: str) -> None:
    """Before anything is accepted."""
    with pytest.raises(InvalidPipeline, match=says):
        read(steps)


def test_all_mistakes_are_named_at_once() -> None:
    """Whoever mends one does not have to come back for the next."""
    with pytest.raises(InvalidPipeline) as caught:
        read([tool("a", ref("x")), {"id": "b"}, tool("c", after=["y"])], ref("z"))
    assert len(caught.value.problems) == 4


def test_depth_is_bounded() -> None:
    """A pipeline comes from outside."""
    steps: list[Any] = [tool("end")]
    for level in range(10):
        steps = [{"id": f"l{level}", "if": True, "then": steps}]
    with pytest.raises(InvalidPipeline, match="deeper than"):
        read(steps)
    value: Any = 1
    for _ in range(100):
        value = [value]
    with pytest.raises(InvalidPipeline, match="deeper than"):
        read([tool("a", {"x": value})])
    condition: Any = True
    for _ in range(10_000):
        condition = {"not": condition}
    with pytest.raises(InvalidPipeline, match="condition is nested deeper than"):
        read([{"id": "a", "if": condition, "then": []}])


def test_a_text_is_read_in_one_pass() -> None:
    """A megabyte of openings without an end would keep a gateway busy for minutes."""
    assert order(read([tool("a", {"x": {"$text": "${" * 500_000}})])) == [["a"]]
    assert evaluate({"$text": "${n}, ${n"}, SCOPE) == "3, ${n"


@pytest.mark.parametrize(
    "template",
    [{"x": [ref("big")] * 40}, {"$text": "${big}" * 40}, [{"$text": "${n}"}, ref("all")]],
)
def test_what_a_template_comes_to_is_bounded(template: Any) -> None:
    """A few lines that refer to the same again and again are more than a worker has memory."""
    scope = {"n": 1, "big": "x" * 1_000_000, "all": ["x" * 1_000_000] * 40}
    with pytest.raises(InvalidPipeline, match="more than 32 MiB"):
        evaluate(template, scope)


def test_what_says_nothing_of_its_own_is_not_copied() -> None:
    """A map comes by its constants for every item."""
    constant = {"rows": [[1, 2], [3, 4]]}
    assert evaluate([constant, ref("n")], SCOPE)[0] is constant
