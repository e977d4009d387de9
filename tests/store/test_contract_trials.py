"""Trials of versions: new runs are shared out by their ids, and stay where they were put."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec.structs
import pytest

from millstream.errors import TrialConflict, UsageError
from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.limit import Asked
from millstream.model.outcome import (
    Completed,
    Continued,
    Failed,
    Parked,
    Refused,
    Released,
    Retry,
)
from millstream.model.run import Delivery, RunState
from millstream.model.trial import Phase, Tally, Trial
from millstream.store import codec, commits, outbox, trials
from millstream.store.commits import Child, Verdict, Want
from millstream.store.keys import Lane
from tests.store.bench import RETENTION_S, Bench, ending

pytestmark = pytest.mark.anyio

TRIAL = Trial(workflow="flow", version="2", kept="1", share=0.2, started=1.0, changed=1.0)
RUNS = 1_000
ONE = [Asked("one", 1)]


def after(trial: Trial = TRIAL, **values: Any) -> Trial:
    return msgspec.structs.replace(trial, **values)


async def tried(bench: Bench, before: Trial | None = None, now: Trial | None = TRIAL) -> None:
    known = (await trials.read(bench.store, bench.lane)).get("flow") if before else None
    await trials.change(bench.store, [bench.lane], "flow", known, now, fresh=before is None)


async def versions(bench: Bench, ids: list[str]) -> dict[str, str | None]:
    return {x: (await bench.fields(x)).get("version") for x in ids}


async def take(bench: Bench, token: str = "w1", count: int = 1, *, canary: bool) -> list[Delivery]:
    reply = await bench.commit(token, want=Want(normal=count, suspect=True, canary=canary))
    return list(reply.taken)


async def drawn(bench: Bench, run_id: str = "r1", **values: object) -> Delivery:
    """A run of the version on trial, taken by who knows it."""
    await tried(bench, now=after(share=1.0))
    await bench.accept(run_id, **values)
    (delivery,) = await take(bench, canary=True)
    assert (delivery.run_id, delivery.version, delivery.level) == (run_id, "2", "canary")
    return delivery


async def test_a_share_of_the_new_runs_gets_the_version(bench: Bench) -> None:
    """By a hash of the id: as close to the share as chance allows, and the same each time."""
    await tried(bench)
    ids = [f"r{n}" for n in range(RUNS)]
    for first in range(0, RUNS, 250):
        await bench.accept(*ids[first : first + 250])
    found = await versions(bench, ids)
    chosen = {x for x, version in found.items() if version == "2"}

    assert set(found.values()) == {"1", "2"}
    # Four standard deviations of 1,000 draws of a fifth.
    assert abs(len(chosen) - 200) < 51
    assert {x for level, x in await bench.waiting() if level == "canary"} == chosen
    assert await bench.accept(*ids[:250]) == [False] * 250
    assert await trials.waiting(bench.store, [bench.lane]) == len(chosen)


async def test_nothing_else_is_drawn(bench: Bench) -> None:
    """Another workflow, a version that was asked for, and whatever came before."""
    await bench.accept("before")
    await tried(bench, now=after(share=1.0))
    await bench.accept("other", workflow="flow2")
    await bench.accept("asked", version="1")

    assert await versions(bench, ["before", "other", "asked"]) == {
        "before": None, "other": None, "asked": "1",
    }  # fmt: skip
    assert {level for level, _ in await bench.waiting()} == {"normal"}


async def test_what_is_on_trial_is_taken_by_those_who_know_it(bench: Bench) -> None:
    """And by the blocking read no more than by a commit."""
    await tried(bench, now=after(share=1.0))
    await bench.accept("r1", "r2")

    assert await take(bench, canary=False) == []
    assert await bench.read("w1") == []
    assert [x.run_id for x in await take(bench, canary=True)] == ["r1"]


async def test_a_trial_is_neither_starved_nor_starves(bench: Bench) -> None:
    """Half of what a worker takes, and the rest where the others have nothing."""
    await bench.accept(*(f"a{n}" for n in range(6)))
    await tried(bench, now=after(share=1.0))
    await bench.accept(*(f"b{n}" for n in range(8)))

    first = [x.run_id[0] for x in await take(bench, count=8, canary=True)]
    assert (first.count("a"), first.count("b")) == (4, 4)
    assert len(await take(bench, count=8, canary=True)) == 6


async def test_a_single_place_is_not_always_a_trials(bench: Bench) -> None:
    """A worker that is full frees one place at a time, and others wait for it too."""
    await tried(bench, now=after(share=1.0))
    await bench.accept(*(f"a{n}" for n in range(40)))
    await bench.accept("other", workflow="flow2")

    taken = [x.run_id for _ in range(40) for x in await take(bench, canary=True)]
    assert "other" in taken
    assert len(taken) == 40


async def test_a_delayed_run_outlives_its_trial(bench: Bench) -> None:
    """Nobody has begun it, and when it is due nobody tries anything any more."""
    await tried(bench, now=after(share=1.0))
    await bench.accept("r1", delay_s=3600)
    assert await versions(bench, ["r1"]) == {"r1": "2"}
    await tried(bench, TRIAL, after(phase=Phase.ROLLED_BACK))
    await tried(bench, TRIAL, None)
    await bench.fall_due("r1")
    await bench.sweep()

    assert await versions(bench, ["r1"]) == {"r1": None}
    assert [x.run_id for x in await take(bench, canary=False)] == ["r1"]


async def limited_trial(bench: Bench) -> Delivery:
    """Stable ``a`` holds the only permit; ``b`` of the trial and stable ``c`` wait for it."""
    await bench.accept("a")
    (held,) = await take(bench, canary=False)
    assert await bench.verdict("w1", commits.admit(held, ONE)) is Verdict.WRITTEN
    await tried(bench, now=after(share=1.0))
    for run_id, version in (("b", ""), ("c", "1")):
        await bench.accept(run_id, version=version)
        (late,) = await take(bench, canary=run_id == "b")
        assert late.run_id == run_id
        assert await bench.verdict("w1", commits.admit(late, ONE)) is Verdict.LIMITED
    return held


async def test_a_permit_is_not_left_where_nobody_reads(bench: Bench) -> None:
    """The workers of a trial may be gone: after a lease the next in line goes on."""
    held = await limited_trial(bench)
    await bench.end(held, Completed(b"1"))
    assert await take(bench, canary=False) == []

    await bench.sweep(lease_s=0)
    assert [x.run_id for x in await take(bench, canary=False)] == ["c"]
    assert [x.run_id for x in await take(bench, canary=True)] == ["b"], "it asks again"


async def test_who_waits_for_a_permit_is_recalled(bench: Bench) -> None:
    """A worker has had it only to ask: it has begun nothing."""
    held = await limited_trial(bench)
    await tried(bench, TRIAL, after(phase=Phase.ROLLED_BACK))
    assert await trials.recall(bench.store, [bench.lane]) == 1
    assert await versions(bench, ["b"]) == {"b": "1"}

    await bench.end(held, Completed(b"1"))
    assert [x.run_id for x in await take(bench, canary=False)] == ["b"]


@pytest.mark.parametrize("way", ["released", "parked", "retried", "reclaimed", "revived"])
async def test_a_run_comes_back_to_those_who_know_its_version(bench: Bench, way: str) -> None:
    """On whatever way it comes back, and whatever has become of the trial."""
    held = await drawn(bench)
    await tried(bench, TRIAL, after(phase=Phase.ROLLED_BACK))
    match way:
        case "released":
            await bench.end(held, Released())
        case "parked":
            await bench.end(held, Parked(1.0, 0.0, 0, ()))
            await bench.sweep()
        case "retried":
            await bench.end(held, Retry(0.0, "E", "e"))
            await bench.fall_due("r1")
            await bench.sweep()
        case "reclaimed":
            await bench.renew("w1")
            await bench.lapse("w1")
            await bench.sweep()
        case _:
            await bench.end(held, Failed("E", "e"))
            assert await bench.revive("r1") == ["queued"]

    (again,) = await take(bench, "w2", canary=True)
    assert (again.run_id, again.version, again.level) == ("r1", "2", "canary")


async def test_a_suspect_of_a_trial_stays_with_those_who_know_it(bench: Bench) -> None:
    """Those who read suspects need not have the version."""
    await drawn(bench)
    for token in ("w1", "w2"):
        await bench.renew(token)
        await bench.lapse(token)
        await bench.sweep()
        (again,) = await take(bench, "w2", canary=True)
    assert (again.crashes, again.level) == (2, "canary")


async def test_a_delayed_run_is_drawn_when_it_is_accepted(bench: Bench) -> None:
    await tried(bench, now=after(share=1.0))
    await bench.accept("late", delay_s=5.0)
    assert await bench.state("late") is RunState.SCHEDULED
    await bench.fall_due("late")
    await bench.sweep()

    assert await bench.waiting() == [("canary", "late")]
    assert await versions(bench, ["late"]) == {"late": "2"}


async def test_a_child_is_drawn_like_any_other_run(bench: Bench) -> None:
    """It is accepted on another way, and perhaps in another queue."""
    kids = replace(bench, lane=Lane("kids"))
    await kids.prepare()
    await tried(kids, now=after(share=1.0))
    dad = await bench.held("dad")
    start = outbox.encoded(outbox.Start(workflow="flow", arguments=msgspec.Raw(b"{}"), attempt=1))
    wait = Record(StepKind.CHILD, "flow", "", RecordStatus.WAITING, "kid", began=1.0)
    record = codec.encode_record(wait, 1000)
    await bench.verdict(
        "w1", commits.start_child(dad, "k", record, Child("kid", "kids", start), "1")
    )
    await outbox.dispatch(bench.store, bench.lane, RETENTION_S)

    assert await kids.waiting() == [("canary", "kid")]
    assert await versions(kids, ["kid"]) == {"kid": "2"}


async def test_a_rollback_recalls_what_nobody_has_begun(bench: Bench) -> None:
    """Queued or delayed; and what has begun goes on as it is."""
    held = await drawn(bench)
    await bench.accept("urgent", priority="high")
    await bench.accept("queued")
    await bench.accept("late", delay_s=5.0)
    await tried(bench, TRIAL, after(phase=Phase.ROLLED_BACK))

    assert await trials.recall(bench.store, [bench.lane]) == 2
    assert await trials.recall(bench.store, [bench.lane]) == 0
    await bench.fall_due("late")
    await bench.sweep()
    assert await versions(bench, ["r1", "urgent", "queued", "late"]) == {
        "r1": "2", "urgent": "1", "queued": "1", "late": "1",
    }  # fmt: skip
    assert sorted(await bench.waiting()) == [
        ("canary", "r1"), ("high", "urgent"), ("normal", "late"), ("normal", "queued"),
    ]  # fmt: skip
    assert [x.version for x in await take(bench, "w2", 9, canary=False)] == ["1", "1", "1"]
    assert (await bench.end(held, Completed(b"1"))).name == "WRITTEN"


async def test_a_run_that_a_rate_delays_is_recalled(bench: Bench) -> None:
    """A worker of the trial has had it, but only to be told to wait: it has begun nothing."""
    await tried(bench, now=after(share=1.0))
    await bench.accept("r1", "r2")
    rate = [Asked("rate", 1, 60_000)]
    verdicts = [
        await bench.verdict("w1", commits.admit(x, rate))
        for x in await take(bench, count=2, canary=True)
    ]
    assert verdicts == [Verdict.WRITTEN, Verdict.LIMITED]
    await tried(bench, TRIAL, after(phase=Phase.ROLLED_BACK))
    await bench.fall_due("r2")
    await bench.sweep()

    (again,) = await take(bench, canary=False)
    assert (again.run_id, again.version) == ("r2", "1")


async def test_what_was_on_its_version_before_is_kept_with_those_who_know_it(bench: Bench) -> None:
    """Others hand it back once, and not twenty times until it fails."""
    held = await bench.held("r1")
    await bench.verdict("w1", commits.journal(held, [("k", b"x")], "2"))
    await tried(bench)
    await bench.end(held, Released())
    (lost,) = await take(bench, "w2", canary=False)
    await bench.verdict("w2", ending(lost, Refused(0.0), ""))
    await bench.fall_due("r1")
    await bench.sweep()

    assert await take(bench, "w2", canary=False) == []
    (again,) = await take(bench, canary=True)
    assert (again.run_id, again.version, again.level) == ("r1", "2", "canary")


@pytest.mark.parametrize("begun", [False, True])
async def test_what_a_trial_left_flows_back_while_another_is_on(bench: Bench, begun: bool) -> None:
    """Those who read the stream of trials are the workers of another workflow now."""
    held = await drawn(bench)
    if begun:
        await bench.verdict("w1", commits.journal(held, [("k", b"x")], "2"))
    await bench.end(held, Released())
    other = after(workflow="other", version="7", kept="6")
    await trials.change(bench.store, [bench.lane], "other", None, other)
    await tried(bench, TRIAL, None)
    await bench.sweep()

    (again,) = await take(bench, canary=False)
    assert (again.run_id, again.version) == ("r1", "2" if begun else None)
    await bench.end(again, Released())
    assert [x.run_id for x in await take(bench, canary=False)] == ["r1"], "and does not return"


async def test_what_another_trial_waits_for_does_not_hide_what_is_left(bench: Bench) -> None:
    """A page of the stream is looked at by each sweep."""
    await tried(bench, now=after(share=1.0))
    await bench.accept(*(f"a{n}" for n in range(150)))
    other = after(workflow="other", version="7", kept="6", share=1.0)
    await trials.change(bench.store, [bench.lane], "other", None, other)
    await bench.accept("left", workflow="other")
    await trials.change(bench.store, [bench.lane], "other", b"*", None)
    for _ in range(3):
        await bench.sweep()

    assert [x.run_id for x in await take(bench, canary=False)] == ["left"]
    assert await trials.waiting(bench.store, [bench.lane]) == 150


async def test_after_the_end_of_a_trial_nothing_is_counted(bench: Bench) -> None:
    """It would be counted as another trial's, or for ever."""
    held = await drawn(bench)
    await tried(bench, TRIAL, None)
    await bench.end(held, Completed(b"1"))
    assert await trials.tallies(bench.store, [bench.lane]) == {}

    await tried(bench, now=after(version="3"))
    await bench.accept("r2", version="2")
    (late,) = await take(bench, canary=False)
    await bench.redis.hset(bench.lane.run("r2"), "arm", "canary")
    await bench.end(late, Completed(b"1"))
    assert await trials.tallies(bench.store, [bench.lane]) == {}


async def test_a_promoted_version_gets_every_new_run(bench: Bench) -> None:
    await tried(bench)
    await tried(bench, TRIAL, after(phase=Phase.PROMOTED, share=1.0))
    ids = [f"r{n}" for n in range(50)]
    await bench.accept(*ids)

    assert set((await versions(bench, ids)).values()) == {"2"}


async def test_a_run_that_begins_anew_is_drawn_anew(bench: Bench) -> None:
    """It has no past: a version that was rolled back would keep an endless agent for ever."""
    held = await drawn(bench)
    await tried(bench, TRIAL, after(phase=Phase.ROLLED_BACK))
    await bench.end(held, Continued(b'{"n":2}'))

    (again,) = await take(bench, canary=False)
    assert (again.run_id, again.version, again.level) == ("r1", "1", "resume")


async def test_when_a_trial_is_over_what_it_left_is_read_by_everybody(bench: Bench) -> None:
    await drawn(bench)
    await tried(bench, TRIAL, after(phase=Phase.ROLLED_BACK))
    await tried(bench, TRIAL, None)
    await bench.accept("new")

    assert (await bench.fields("new")).get("version") is None
    lines = (await bench.sweep()).trials
    assert lines == b""
    assert trials.concerns(lines, lambda _workflow, _version: False)


@pytest.mark.parametrize("lines", [b"flow 2 1 500", b"other 7 6 1\nflow 2 1 500"])
def test_a_worker_reads_what_it_knows_a_version_of(lines: bytes) -> None:
    assert trials.concerns(lines, lambda workflow, version: (workflow, version) == ("flow", "2"))
    assert not trials.concerns(
        lines, lambda workflow, version: (workflow, version) == ("flow", "1")
    )


async def test_the_sweep_says_nothing_where_there_never_was_a_trial(bench: Bench) -> None:
    """Nobody pays for what nobody uses."""
    assert (await bench.sweep()).trials is None
    assert (await bench.sweep(interval_s=1000)).trials is None


async def test_ends_are_counted_by_version(bench: Bench) -> None:
    """Of both sides of a trial, once each, and of nothing else."""
    await bench.accept("before")
    (before,) = await bench.take("w1")
    await tried(bench, now=after(share=1.0))
    await bench.accept("good", "bad")
    await tried(bench, TRIAL, after(phase=Phase.ROLLED_BACK))
    await bench.accept("kept")
    await bench.accept("cancelled")
    assert await bench.cancel("cancelled") == ["cancelled"]

    held = {x.run_id: x for x in [before, *await take(bench, count=9, canary=True)]}
    for run_id in ("before", "good", "kept", "good"):
        await bench.end(held[run_id], Completed(b"1"))
    await bench.verdict("w1", ending(held["bad"], Failed("E", "e")))

    assert await trials.tallies(bench.store, [bench.lane]) == {
        ("flow", "2"): Tally(completed=1, failed=1),
        ("flow", "1"): Tally(completed=1, cancelled=1),
    }
    # Of another trial of the same workflow nothing is known.
    await tried(bench, TRIAL, None)
    await tried(bench)
    assert await trials.tallies(bench.store, [bench.lane]) == {}


async def test_of_two_who_change_a_trial_one_is_told(bench: Bench) -> None:
    """Nothing of the second is written; and a lost reply is no conflict."""
    await tried(bench)
    known = (await trials.read(bench.store, bench.lane))["flow"]
    promoted, back = after(phase=Phase.PROMOTED), after(phase=Phase.ROLLED_BACK)
    await trials.change(bench.store, [bench.lane], "flow", known, promoted)
    await trials.change(bench.store, [bench.lane], "flow", known, promoted)
    with pytest.raises(TrialConflict, match="somebody else"):
        await trials.change(bench.store, [bench.lane], "flow", known, back)

    assert trials.decode((await trials.read(bench.store, bench.lane))["flow"]) == promoted


async def test_a_lane_that_missed_a_change_is_brought_up(bench: Bench) -> None:
    """A call was cut off between two lanes, or the queue got more of them."""
    late = replace(bench.lane, number=1)
    await tried(bench)
    await trials.spread(bench.store, [bench.lane, late])
    assert await trials.read(bench.store, late) == await trials.read(bench.store, bench.lane)
    assert await bench.redis.hget(late.meta, "trials") == b"flow 2 1 2000"

    await tried(bench, TRIAL, None)
    await trials.spread(bench.store, [bench.lane, late])
    assert await trials.read(bench.store, late) == {}
    assert await bench.redis.hget(late.meta, "trials") == b""


async def test_there_is_a_bound(bench: Bench) -> None:
    for n in range(trials.MOST):
        trial = after(workflow=f"flow{n}")
        await trials.change(bench.store, [bench.lane], trial.workflow, None, trial)
    with pytest.raises(UsageError, match="at most 16"):
        await tried(bench)
    assert "flow" not in await trials.read(bench.store, bench.lane)
