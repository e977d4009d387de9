"""Commits that read alike: found by the embedder that every worker has."""

from __future__ import annotations

from millstream.cli.demo import alike
from millstream.cli.demo.findings import Commit
from millstream_worker.inference.backends import BackendOptions
from millstream_worker.inference.backends.hashing import HashingBackend


def commit(number: int, subject: str) -> Commit:
    return Commit(
        sha=f"{number:040}", who="ada", when=number, subject=subject, files=[], file_count=0,
        added=0, removed=0,
    )  # fmt: skip


def test_commits_that_share_words_are_put_together() -> None:
    commits = [
        commit(1, "Fix the timeout of the parser"),
        commit(2, "Describe installation on a tablet"),
        commit(3, "Raise the parser's timeout"),
        commit(4, "Release 2.0"),
    ]
    model = HashingBackend(BackendOptions(model="m", path=None, options={}))
    payloads = [model.prepare(x, {}).payload for x in alike.words(commits)]

    (pair,) = alike.nearest(commits, [list(x) for x in model.run(payloads, {})])

    assert {pair.subject, pair.other_subject} == {commits[0].subject, commits[2].subject}
    assert "parser" in "\n".join(alike.chapter([pair]))


def test_nothing_alike_is_one_sentence() -> None:
    assert alike.nearest([], []) == []
    assert "No two commits" in "\n".join(alike.chapter([]))
