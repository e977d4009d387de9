"""An example that is printed fits the workflow it is for, or is not printed."""

from __future__ import annotations

import enum
import shlex
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict
from uuid import UUID

import msgspec
import pytest

from millstream import Context, Workflows
from millstream.cli.enqueue import read_arguments
from millstream.cli.flags import ClientConfig
from millstream.cli.hints import again
from millstream.cli.samples import flags_for
from millstream.store import codec
from millstream_worker.arguments import bind


class Colour(enum.Enum):
    RED = "red"


class Place(TypedDict):
    name: str


@dataclass
class Order:
    id: str
    lines: list[int]
    place: Place
    note: str = ""


@pytest.mark.parametrize(
    "wanted",
    [
        str, int, float, bool, Any, list[str], dict[str, int], tuple[int, str], tuple[int, ...],
        set[int], Literal["a", "b"], Colour, Order, Place, int | None, list[Order],
        Annotated[int, msgspec.Meta(ge=7)],
    ],
    ids=str,
)  # fmt: skip
def test_an_example_fits(wanted: Any) -> None:
    """It is read as the flags are, and checked as the worker checks it."""
    workflow = _taking(wanted)

    flags = flags_for(workflow)

    assert flags is not None
    words = shlex.split(flags)
    assert words[0] == "--arg"
    assert bind(workflow, codec.encode(read_arguments([words[1]], None, None), "it"))


@pytest.mark.parametrize(
    "wanted", [UUID, Annotated[str, msgspec.Meta(pattern="^[0-9]+$")]], ids=["uuid", "pattern"]
)
def test_where_no_example_would_fit_there_is_none(wanted: Any) -> None:
    """Better none than one that fails."""
    assert flags_for(_taking(wanted)) is None


def test_what_need_not_be_given_is_left_out() -> None:
    app = Workflows()

    @app.workflow()
    async def flow(ctx: Context, name: str = "x") -> None:
        pass

    (found,) = app
    assert flags_for(found) == ""


def test_a_hint_repeats_what_only_the_flags_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pasted, it goes where the command before it went; a password is not printed."""
    monkeypatch.setenv("MILLSTREAM_REDIS", "redis://here")

    def hint(redis: str) -> str:
        config = ClientConfig(redis=redis)
        return again(config, "dead", "list", queue="q")

    assert hint("redis://here") == "millstream dead list -q q"
    assert hint("redis://there:1/0") == "millstream dead list --redis redis://there:1/0 -q q"
    assert "secret" not in hint("redis://user:secret@there")
    assert again(ClientConfig(redis="redis://here"), "x", queue="default") == "millstream x"


def _taking(wanted: Any) -> Any:
    app = Workflows()

    async def flow(ctx: Context, value: Any) -> None:
        pass

    flow.__annotations__ = {"ctx": Context, "value": wanted}
    app.workflow()(flow)
    (found,) = app
    return found
