"""The proof finds what it is there to find: a comparison that cannot fail proves nothing."""

from __future__ import annotations

from millstream.cli.demo.effects import Effect
from millstream.cli.demo.proof import Proof, call_key, prove
from millstream.model.journal import Record, RecordStatus, StepKind

STEP = Effect("A", "run", "step#0")
CALL = Effect("A", call=call_key("run", "git/git_show#0"))


def test_every_effect_with_its_record_is_sound() -> None:
    """Once done, once recorded."""
    proof = _prove([STEP, CALL], by="a")

    assert (proof.violations, proof.effects, proof.cut) == ([], 2, 0)
    assert (proof.steps, proof.calls) == (1, 1)


def test_what_was_cut_short_is_counted_and_allowed() -> None:
    """The killed worker had begun, the other one recorded."""
    effects = [STEP, Effect("B", "run", "step#0"), CALL, Effect("B", call=CALL.call)]
    proof = _prove(effects, by="b")

    assert (proof.violations, proof.cut, proof.kept) == ([], 2, 0)


def test_a_step_that_runs_after_its_record_is_found() -> None:
    """The one thing that must never happen."""
    proof = _prove([STEP, CALL, Effect("B", "run", "step#0")], by="a")

    assert proof.violations == ["run step#0: done by worker B after it was recorded"]


def test_a_step_that_runs_twice_in_one_worker_is_found() -> None:
    """Also where nobody was killed."""
    proof = _prove([STEP, CALL, CALL], by="a")

    assert proof.violations == ["run git/git_show#0: done 1 times more than recorded"]


def test_effects_and_records_that_miss_each_other_are_found() -> None:
    """Else a lost file of effects would look like a proof."""
    proof = _prove([CALL, Effect("A", "run", "other#0")], by="a")

    assert proof.violations == [
        "run step#0: recorded by worker A, which was not seen doing it",
        "run other#0: done 1 times and never recorded",
    ]


def _prove(effects: list[Effect], by: str) -> Proof:
    journal = {
        "step#0": _record(StepKind.STEP, by),
        "git/git_show#0": _record(StepKind.TOOL, by),
        "emit x#0": _record(StepKind.EMIT, by),
    }
    names = {"a": "A", "b": "B"}
    return prove({"run": journal}, effects, names=names, killed="A", moved=["run"])


def _record(kind: StepKind, by: str) -> Record:
    return Record(kind=kind, target="", digest="", status=RecordStatus.OK, by=by)
