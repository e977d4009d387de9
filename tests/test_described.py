"""What a worker says of its workflows: schemas that a caller can write arguments by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jsonschema
from pydantic import BaseModel

from millstream import Context, Workflows
from millstream_worker.described import describe

app = Workflows()


@dataclass
class Page:
    """A page."""

    url: str
    depth: int = 1


class Model(BaseModel):
    """A model."""

    name: str


class Odd:
    """A type that no schema describes."""


@app.workflow()
async def crawl(
    ctx: Context,
    pages: list[Page],
    kind: Literal["fast", "deep"] = "fast",
    model: Model | None = None,
    odd: Odd | None = None,
    **more: Any,
) -> None:
    """Look at pages.

    And at nothing else.
    """


@app.workflow(version="2")
async def bare(ctx: Context) -> None: ...


def test_a_schema_says_what_fits() -> None:
    """Nested types too, and a type without a schema stands for anything."""
    described = {each.name: each for each in describe(app)}
    schema = described["crawl"].arguments
    validator = jsonschema.Draft202012Validator(schema)
    jsonschema.Draft202012Validator.check_schema(schema)

    assert described["crawl"].description == "Look at pages."
    assert validator.is_valid({"pages": [{"url": "x"}], "odd": 7, "extra": 1})
    assert not validator.is_valid({"pages": [{"depth": 2}]})
    assert not validator.is_valid({"pages": [], "kind": "slow"})
    assert not validator.is_valid({})
    assert described["bare"].arguments == {
        "type": "object", "properties": {}, "required": [], "additionalProperties": False
    }  # fmt: skip
    assert described["bare"].version == "2"


def test_a_schema_that_is_too_large_is_left_out() -> None:
    """The name and what it is for stay."""
    large = Workflows()
    names = ", ".join(f"argument_{n}: str = ''" for n in range(900))
    scope: dict[str, Any] = {"Context": Context, "large": large}
    exec(f"@large.workflow()\nasync def wide(ctx: Context, {names}) -> None:\n    'Wide.'", scope)

    (found,) = describe(large)

    assert (found.description, found.arguments) == ("Wide.", {"type": "object"})
