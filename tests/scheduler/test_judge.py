"""Versions on trial are judged by the leader: rolled back once, for a reason, and told."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from millstream.events import TrialRolledBack, TrialSampled
from millstream.model.audit import entry_of
from millstream.model.outcome import Completed, Failed
from millstream.model.trial import WINDOW_S, Phase, Trial
from millstream.store import audit, trials
from millstream.store.commits import Want
from millstream_scheduler.judge import ACTOR, Judge
from tests.scheduler.replicas import Transcript
from tests.scheduler.test_ticker import Trusted
from tests.store.bench import Bench

pytestmark = pytest.mark.anyio

TRIAL = Trial(
    workflow="flow", version="2", kept="1", share=1.0, started=1000.0, changed=1000.0, minimum=4
)


class Court:
    """A judge with clocks of its own, and runs that end as they are told."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.told = Transcript()
        self.mono = 0.0
        self.count = 0
        self.judge = self.another()

    def another(self, ahead: float = 0.0) -> Judge:
        """A leader that has just begun, whose clock is ahead."""
        return Judge(
            self.bench.store,
            [self.bench.lane],
            Trusted(),
            "token",
            interval_s=1.0,
            emit=self.told,
            mono=lambda: self.mono,
            wall=lambda: 1000.0 + self.mono + ahead,
        )

    async def try_out(self, trial: Trial = TRIAL) -> None:
        await trials.change(self.bench.store, [self.bench.lane], "flow", None, trial, fresh=True)

    async def end(self, completed: int = 0, failed: int = 0, version: str = "2") -> None:
        """Have runs of a version end; those of the kept one are drawn by another share."""
        lane, store = self.bench.lane, self.bench.store
        known = (await trials.read(store, lane))["flow"]
        drawn = replace(trials.decode(known), share=1.0 if version == "2" else 0.0)
        await trials.change(store, [lane], "flow", known, drawn)
        for n in range(completed + failed):
            self.count += 1
            await self.bench.accept(f"r{self.count}")
            reply = await self.bench.commit("w1", want=Want(normal=1, canary=True))
            (held,) = reply.taken
            assert held.version == version
            await self.bench.end(held, Completed(b"1") if n < completed else Failed("E", "e"))
        shared = replace(drawn, share=1.0)
        now = (await trials.read(store, lane))["flow"]
        await trials.change(store, [lane], "flow", now, shared)

    async def look(self, after: float = 1.0) -> Phase:
        """What the trial is after another look."""
        self.mono += after
        await self.judge.look()
        return trials.decode((await trials.read(self.bench.store, self.bench.lane))["flow"]).phase

    def counted(self) -> dict[tuple[str, str], int]:
        """Everything that was told of ends, by arm and state."""
        found: dict[tuple[str, str], int] = {}
        for event in self.told.of(TrialSampled):
            key = (event.arm, event.state)
            found[key] = found.get(key, 0) + event.ended
        return {key: count for key, count in found.items() if count}


@pytest.fixture
async def court(bench: Bench) -> Court:
    return Court(bench)


async def test_a_version_that_fails_is_rolled_back_and_the_trail_says_so(court: Court) -> None:
    await court.try_out()
    await court.end(completed=8, version="1")
    await court.end(completed=2, failed=1)
    assert await court.look() is Phase.RUNNING  # three of four
    await court.end(failed=1)
    await court.bench.accept("waits")
    assert await court.look() is Phase.ROLLED_BACK

    (told,) = court.told.of(TrialRolledBack)
    assert told.reason == ("2 of 4 runs of version 2 failed within 5 minutes, 0 of 8 of version 1")
    (line,) = [x async for x in audit.lines(court.bench.store)]
    entry = entry_of(line.text)
    assert (entry.actor, entry.verb, entry.target) == (ACTOR, "roll back trial", "flow")
    # What nobody has begun is given back at once.
    assert (await court.bench.fields("waits"))["version"] == "1"
    assert court.counted() == {
        ("canary", "completed"): 2, ("canary", "failed"): 2, ("stable", "completed"): 8,
    }  # fmt: skip


async def test_only_the_last_minutes_count(court: Court) -> None:
    """What went well for a day does not outweigh what fails now; nor the other way round."""
    await court.try_out()
    await court.end(completed=40)
    assert await court.look() is Phase.RUNNING
    assert await court.look(WINDOW_S) is Phase.RUNNING
    await court.end(completed=2, failed=2)
    assert await court.look() is Phase.ROLLED_BACK


async def test_failures_of_before_are_forgotten(court: Court) -> None:
    await court.try_out(replace(TRIAL, minimum=5))
    await court.end(failed=3)
    assert await court.look() is Phase.RUNNING
    assert await court.look(WINDOW_S) is Phase.RUNNING
    await court.end(completed=5)
    assert await court.look(1.0) is Phase.RUNNING


async def test_a_new_leader_judges_by_what_it_sees_itself(court: Court) -> None:
    """Of an old trial it cannot know what of it is recent; of a young one, all is."""
    await court.try_out()
    court.mono = WINDOW_S + 1
    await court.end(failed=10)
    assert await court.look() is Phase.RUNNING
    assert court.counted() == {}
    await court.end(failed=4)
    assert await court.look() is Phase.ROLLED_BACK


async def test_who_wants_to_decide_himself_may(court: Court) -> None:
    await court.try_out(replace(TRIAL, automatic=False))
    await court.end(failed=10)
    assert await court.look() is Phase.RUNNING
    assert court.counted() == {("canary", "failed"): 10}


async def test_a_promoted_version_is_judged_no_more(court: Court) -> None:
    """There is nothing left to go back to that is known to be better."""
    await court.try_out(replace(TRIAL, phase=Phase.PROMOTED))
    await court.end(failed=10)
    assert await court.look() is Phase.PROMOTED


async def test_two_leaders_roll_back_once(court: Court, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second finds that it was done between its look and its verdict."""
    await court.try_out()
    await court.end(failed=4)
    late = court.another(ahead=0.25)
    before = trials.change

    async def overtaken(*args: object, **options: object) -> None:
        monkeypatch.setattr(trials, "change", before)
        await court.judge.look()
        await before(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(trials, "change", overtaken)
    court.mono += 1
    await late.look()

    assert len(court.told.of(TrialRolledBack)) == 1
    assert len([x async for x in audit.lines(court.bench.store)]) == 1


async def test_where_nothing_is_on_trial_a_look_is_one_question(
    court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    async def act(send: object, command: object) -> object:
        asked.append(command)
        return await send(*command)  # type: ignore[misc, operator]

    court.bench.intercept(monkeypatch, act)
    await court.judge.look()
    assert len(asked) == 1
