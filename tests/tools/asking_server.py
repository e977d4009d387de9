"""A server of the official SDK whose tools ask a person before they act, over stdio."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from mcp.server import MCPServer
from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Elicit, Resolve
from pydantic import BaseModel

server = MCPServer("asking")
effects = Path(sys.argv[1])


class Sure(BaseModel):
    """What the first question wants."""

    reason: str
    copies: int = 1


class Colour(BaseModel):
    """What the second question wants."""

    colour: str


def ask_sure(what: str) -> Elicit[Sure]:
    """Ask once."""
    return Elicit(f"print {what}?", Sure)


def ask_colour(
    sure: Annotated[ElicitationResult[Sure], Resolve(ask_sure)],
) -> Elicit[Colour] | Colour:
    """Ask again, when the first answer was yes."""
    return Elicit("in which colour?", Colour) if sure.action == "accept" else Colour(colour="none")


@server.tool()
def print_out(
    what: str,
    sure: Annotated[ElicitationResult[Sure], Resolve(ask_sure)],
    colour: Annotated[ElicitationResult[Colour], Resolve(ask_colour)],
) -> str:
    """Print, unless nobody wants it. Counts as an effect."""
    if not isinstance(sure, AcceptedElicitation):
        return f"not printed: {sure.action}"
    assert isinstance(colour, AcceptedElicitation)
    with effects.open("a") as out:
        out.write(f"{what}\n")
    return f"{sure.data.copies} of {what} in {colour.data.colour}: {sure.data.reason}"


if __name__ == "__main__":
    server.run()
