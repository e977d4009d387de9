"""Markdown that shows what it is given, whatever stands in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&!])")
_BLOCKS = "▁▂▃▄▅▆▇█"


def text(words: str, widest: int = 160) -> str:
    """Return words that mean nothing to Markdown, as one line."""
    line = " ".join(words.split())
    line = line if len(line) <= widest else f"{line[: widest - 1]}…"
    return _SPECIAL.sub(r"\\\1", "".join(c for c in line if c.isprintable()))


def code(words: str, widest: int = 120) -> str:
    """Return words as code, also within a table."""
    line = "".join(c if c.isprintable() else "�" for c in words)
    line = line if len(line) <= widest else f"…{line[1 - widest :]}"
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", line)), default=0))
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: str = "") -> list[str]:
    """Return a table; ``right`` has an ``r`` for each column that is aligned so."""
    marks = ["---:" if right[at : at + 1] == "r" else "---" for at in range(len(head))]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, marks, *rows)]
    return [*lines, ""]


def bars(counts: Sequence[int]) -> str:
    """Return a row of bars, the highest as high as a line is."""
    most = max(counts, default=0) or 1
    return "".join(_BLOCKS[max(0, -(-count * 8 // most) - 1)] if count else "·" for count in counts)


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Sequence[str]) -> str:
    """Return names as they stand in a sentence."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
