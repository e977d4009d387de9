"""Which commits read alike: their words go through a model, and the nearest are put together.

The model is the embedder that every worker has: it needs no download, and finds texts that share
words and stems. All texts are asked for at once; the worker computes them in batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from millstream.cli.demo.effects import counted
from millstream.cli.demo.findings import Commit
from millstream.cli.demo.markdown import code, table, text

#: Nearer than this and a reader sees why; nearer than the second and it is one text twice.
_ALIKE, _SAME = 0.45, 0.999
_MOST = 5
#: Every commit is held against every other: this many are enough for a page.
MOST_COMMITS = 150


@dataclass(frozen=True, slots=True)
class Alike:
    """Two commits whose words are near each other."""

    sha: str
    subject: str
    other_sha: str
    other_subject: str
    nearness: float


def words(commits: Sequence[Commit]) -> list[str]:
    """Return what the model is asked about each commit: its subject, and what it touched."""
    return [
        f"{commit.subject} {commit.subject} {' '.join(x.path for x in commit.files[:8])}"
        for commit in commits[:MOST_COMMITS]
    ]


@counted
def nearest(commits: list[Commit], vectors: list[list[float]]) -> list[Alike]:
    """Return the pairs that are nearest, each commit in one of them at most."""
    found = []
    sparse = [{i: x for i, x in enumerate(row) if x} for row in vectors]
    for one in range(len(sparse)):
        for other in range(one):
            product = sum(x * sparse[other].get(i, 0.0) for i, x in sparse[one].items())
            if _ALIKE <= product < _SAME:
                found.append((product, one, other))
    found.sort(reverse=True)
    seen: set[int] = set()
    pairs = []
    for product, one, other in found:
        if seen.isdisjoint({one, other}) and commits[one].subject != commits[other].subject:
            seen |= {one, other}
            a, b = commits[one], commits[other]
            pairs.append(Alike(a.sha, a.subject, b.sha, b.subject, round(product, 2)))
    return pairs[:_MOST]


def chapter(pairs: Sequence[Alike]) -> Iterator[str]:
    """Yield the chapter of the report."""
    yield "## Commits that read alike"
    yield ""
    if not pairs:
        yield "No two commits are described in words that are near each other."
        yield ""
        return

    yield (
        "By the words of their subjects and files, through `ctx.infer` and the embedder without"
        " weights that every worker has; 1 would be the same words:"
    )
    yield ""
    yield from table(
        ("One", "the other", "nearness"),
        (
            (
                f"{code(pair.sha[:8])} {text(pair.subject)}",
                f"{code(pair.other_sha[:8])} {text(pair.other_subject)}",
                f"{pair.nearness:.2f}",
            )
            for pair in pairs
        ),
        "  r",
    )
