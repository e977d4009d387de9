"""The last chapter of the report: how it was made, and what the kill did to it."""

from __future__ import annotations

from collections.abc import Iterator

from millstream.cli.demo.markdown import code, count, table
from millstream.cli.demo.play import Played
from millstream.cli.demo.stage import LEASE_S


def how_it_was_made(played: Played) -> Iterator[str]:
    """Tell of the runs, the workers and the kill; show the proof."""
    proof, kill = played.proof, played.kill
    yield "## How this report was made"
    yield ""
    yield (
        f"By {count(proof.runs, 'durable run')} on two workers, in {played.took_s:.0f} seconds: one"
        f" to survey the repository, one for each of {count(len(played.commits), 'commit')} and"
        f" {count(len(played.files), 'file')}, and one to put the findings together. Their text"
        f" came from the public MCP server {code('mcp-server-git')}; their journals stood in a"
        f" private {played.redis}."
    )
    yield (
        f"After {kill.at_s:.1f} seconds worker {kill.worker} was killed with SIGKILL while it held"
        f" {count(len(kill.held), 'run')}. {_recovery(played)}"
    )
    yield ""
    yield (
        "Whether anything was done twice was not asked of millstream: every step, when it began,"
        " wrote a line to a file, and every call that reached the MCP server was counted on its"
        " way. Held against the journals, that gives:"
    )
    yield ""
    yield from table(
        ("What was counted", "number"),
        (
            ("runs completed", f"{proof.runs}"),
            ("steps recorded", f"{proof.steps}"),
            ("MCP calls recorded", f"{proof.calls}"),
            ("effects counted outside of millstream", f"{proof.effects}"),
            (f"runs that moved to worker {kill.heir}", f"{len(proof.moved)}"),
            ("their records by the killed worker, not done again", f"{proof.kept}"),
            ("cut short before they could be recorded, run again", f"{proof.cut}"),
            ("**run again after they were recorded**", f"**{len(proof.violations)}**"),
        ),
        " r",
    )
    yield _about_the_cut(played)


def _recovery(played: Played) -> str:
    kill = played.kill
    if kill.recovered_s is None:
        return ""
    return (
        f"Its lease of {LEASE_S:g} seconds ran out; {kill.recovered_s:.1f} seconds after the kill"
        f" worker {kill.heir} had them all in hand, and went on after their last records."
    )


def _about_the_cut(played: Played) -> str:
    if not played.proof.cut:
        return "No step was under way at the moment of the kill, so every effect happened once."
    return (
        "Between an effect and its record there is always a moment in which a crash can fall. What"
        " was cut short there has happened twice; it only reads, so that does no harm. A call"
        " that must not be repeated would have recorded its intent first."
    )
