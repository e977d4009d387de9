"""Where the words of commits are found: the passages of files that read most like them.

Every file has a run of its own, and asks the embedder about its passages and the same questions;
those that ask at the same time share batches, and what several ask at once is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from millstream.cli.demo import git
from millstream.cli.demo.effects import counted
from millstream.cli.demo.findings import Commit
from millstream.cli.demo.markdown import code, table, text

#: Lines of a passage, and passages and questions of a run: their vectors fit into one record.
_LINES, _PASSAGES, MOST_QUESTIONS = 12, 48, 12
_WIDEST = 600
#: Below this no reader would call it found.
_NEAR = 0.3


@dataclass(frozen=True, slots=True)
class Passage:
    """Some lines of a file."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """The passage of a file that is nearest to a question."""

    question: str
    path: str
    line: int
    nearness: float


def questions(commits: Sequence[Commit]) -> list[str]:
    """Return what is searched for: what the newest commits say of themselves."""
    return list(dict.fromkeys(commit.subject for commit in commits))[:MOST_QUESTIONS]


@counted
def cut(repo: str, path: str) -> list[Passage]:
    """Cut a file into passages, spread over all of it."""
    lines = git.ask(repo, "show", f"HEAD:{path}").split("\n")
    found = []
    for start in range(0, len(lines), _LINES):
        words = "\n".join(lines[start : start + _LINES]).strip()
        if words:
            found.append(Passage(start + 1, words[:_WIDEST]))
    step = max(1, -(-len(found) // _PASSAGES))
    return found[::step]


@counted
def closest(
    path: str, asked: list[str], passages: list[Passage], vectors: list[list[float]]
) -> list[Hit]:
    """Return for each question the passage that is nearest to it, if one is near."""
    sparse = [{i: x for i, x in enumerate(row) if x} for row in vectors]
    hits = []
    for question, vector in zip(asked, sparse, strict=False):
        scores = [
            sum(x * row.get(i, 0.0) for i, x in vector.items()) for row in sparse[len(asked) :]
        ]
        if scores and (best := max(scores)) >= _NEAR:
            hits.append(Hit(question, path, passages[scores.index(best)].line, round(best, 2)))
    return hits


@counted
def best(hits: list[Hit]) -> list[Hit]:
    """Return the nearest hit of each question, the nearest first."""
    found: dict[str, Hit] = {}
    for hit in hits:
        if hit.question not in found or hit.nearness > found[hit.question].nearness:
            found[hit.question] = hit
    return sorted(found.values(), key=lambda hit: (-hit.nearness, hit.question))


def chapter(hits: Sequence[Hit]) -> Iterator[str]:
    """Yield the chapter of the report."""
    yield "## Where the words of commits are found"
    yield ""
    if not hits:
        yield "No passage of the files that were read is near to what a commit says of itself."
        yield ""
        return

    yield "For the newest commits, the passage that shares most words with what they say:"
    yield ""
    yield from table(
        ("Commit", "reads like", "nearness"),
        (
            (text(hit.question, 90), code(f"{hit.path}:{hit.line}"), f"{hit.nearness:.2f}")
            for hit in hits
        ),
        "  r",
    )
