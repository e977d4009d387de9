"""What operators do over HTTP: speak to runs, fork them, act on many, pause queues."""

from __future__ import annotations

from typing import Any

from millstream.events import OperatorActed
from millstream.store import audit
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served

ADD = {"workflow": "add", "arguments": {"a": 2}}


async def end_of(gateway: Served, run_id: str) -> Any:
    """How a run ended."""
    status, end = await gateway.get(f"/runs/{run_id}/result?wait=20")
    assert status == 200, end
    return end


async def test_a_signal_is_heard(working: Served) -> None:
    """With an id it is taken once, however often it is sent; and a run that is over hears none."""
    await working.post("/runs", {"workflow": "hears", "id": "r1"})
    for _ in range(2):
        said = {"name": "go", "payload": {"n": 7}, "id": "once"}
        status, told = await working.post("/runs/r1/signal", said)
        assert (status, told) == (202, {"id": "r1", "queue": "default"})

    assert (await end_of(working, "r1"))["result"] == {"n": 7}
    status, problem = await working.post("/runs/r1/signal", {"name": "go"})
    assert (status, problem["type"]) == (409, "urn:millstream:run-ended")
    acts = [(x.action, x.outcome) for x in working.of(OperatorActed)]
    assert acts == [("signal", "done"), ("signal", "done"), ("signal", "RunEnded")]
    trail = [line.text async for line in audit.lines(working.connection)]
    assert [b'"signal"' in line and b"token:alice" in line for line in trail] == [True] * 3


async def test_a_question_is_listed_and_answered(working: Served) -> None:
    """In the name of whoever calls; the hash of its token stays where it is."""
    await working.post("/runs", {"workflow": "asks", "id": "r1"})
    await working.parked("r1")
    status, end = await working.get("/runs/r1/result")
    assert (status, end["state"]) == (202, "parked")
    assert end["waits_for"].startswith("approval "), "a caller sees why it goes on"

    _, found = await working.get("/queues/default/questions")
    (question,) = found["questions"]
    assert (question["run"], question["kind"], question["question"]) == (
        "r1",
        "approval",
        "Deploy?",
    )
    assert "token" not in str(question)
    body = {"approved": False, "question": question["step"], "comment": "not on a Friday"}
    assert (await working.post("/runs/r1/answer", body))[0] == 202

    assert (await end_of(working, "r1"))["result"] == [False, "token:alice", "not on a Friday"]
    assert (await working.get("/queues/default/questions"))[1]["questions"] == []
    assert (await working.post("/runs/r1/answer", {"approved": True}))[0] == 409


async def test_a_call_that_may_have_run_is_resolved(working: Served) -> None:
    """It is listed among the questions, and one word of an operator lets the run go on."""
    await working.post("/runs", {"workflow": "pays", "id": "r1"})
    await working.parked("r1")

    _, found = await working.get("/queues/default/questions")
    (doubt,) = found["questions"]
    assert (doubt["kind"], doubt["question"]) == ("doubt", "bank/pay")
    assert doubt["data"] == {"sum": 5, "token": "***"}
    no_step = {"step": "nothing#0", "verdict": "retry"}
    assert (await working.post("/runs/r1/resolve", no_step))[0] == 409
    verdict = {"step": doubt["step"], "verdict": "result", "result": {"receipt": 7}}
    assert (await working.post("/runs/r1/resolve", verdict))[0] == 202

    assert (await end_of(working, "r1"))["result"] == {"receipt": 7}


async def test_a_run_is_forked_from_a_step_that_its_steps_name(working: Served) -> None:
    """The same again is the same run, and an id that is taken is a conflict that names nobody."""
    arguments = {"a": 1, "note": "x", "api_key": "hunter2"}
    await working.post("/runs", {"workflow": "shows", "arguments": arguments, "id": "r1"})
    await end_of(working, "r1")
    await working.post("/runs", {**ADD, "id": "taken"})

    _, found = await working.get("/runs/r1/steps")
    step = next(each for each in found["steps"] if each["kind"] == "step")
    assert step["value"] == {"value": 2, "password": "***"}
    fork = {"step": step["key"], "id": "f1"}
    for expected in (201, 200):
        status, forked = await working.post("/runs/r1/fork", fork)
        assert (status, forked["id"], forked["created"]) == (expected, "f1", expected == 201)
    assert (await end_of(working, "f1"))["result"] == "x"
    assert (await working.get("/runs/f1"))[1]["forked_from"] == f"r1 at {step['key']}"

    status, problem = await working.post("/runs/r1/fork", {**fork, "id": "taken"})
    assert (status, "add" in problem["detail"]) == (409, False)
    status, problem = await working.post("/runs/r1/fork", {"step": "nothing#0"})
    assert (status, problem["type"]) == (404, "urn:millstream:unknown-step")


async def test_steps_are_shown_in_parts_and_say_what_they_were_called_with(
    working: Served,
) -> None:
    """A tool's arguments, without their secrets; a child's id, by which both runs are linked."""
    await working.post("/runs", {"workflow": "pays", "id": "r1"})
    await working.parked("r1")
    await working.post("/runs", {"workflow": "parent", "id": "r2"})
    await end_of(working, "r2")

    _, found = await working.get("/runs/r1/steps?limit=1")
    assert (len(found["steps"]), found["left"]) == (1, 1)
    _, found = await working.get("/runs/r1/steps")
    call = next(each for each in found["steps"] if each["kind"] == "tool")
    assert (call["target"], call["status"], call["inputs"]) == (
        "bank/pay", "intent", {"sum": 5, "token": "***"}
    )  # fmt: skip
    _, rest = await working.get("/runs/r1/steps?skip=2")
    assert rest == {"steps": [], "left": 0}
    (child,) = (await working.get("/runs/r2/steps"))[1]["steps"]
    assert (child["status"], child["inputs"]) == (
        "completed", {"id": "kid", "queue": "default"}
    )  # fmt: skip
    assert (await working.get("/runs/kid"))[1]["parent"] == "default/r2"


async def test_many_are_cancelled_and_retried_page_by_page(gateway: Served) -> None:
    """Filters choose, a dry run does nothing, and the mark leads on however many are gone."""
    runs: list[dict[str, Any]] = [{**ADD, "id": f"a{n}"} for n in range(7)]
    runs += [{"workflow": "fails", "id": f"f{n}"} for n in range(3)]
    await gateway.post("/runs/batch", {"runs": runs})
    path, asked = "/queues/default/runs/cancel", {"all": True, "workflow": "add", "limit": 3}

    _, dry = await gateway.post(path, {**asked, "limit": 10, "dry_run": True})
    assert sorted(dry["runs"]) == [f"a{n}" for n in range(7)]
    assert set(dry["runs"].values()) == {"queued"}
    assert (await gateway.client.depth()).waiting == 10

    done: dict[str, str] = {}
    cursor = None
    for _ in range(10):
        _, page = await gateway.post(path, {**asked, **({"cursor": cursor} if cursor else {})})
        done |= page["runs"]
        if (cursor := page["next"]) is None:
            break
    assert done == {f"a{n}": "cancelled" for n in range(7)}
    named = {"ids": ["a0", "f0", "gone"]}
    _, again = await gateway.post("/queues/default/runs/retry", named)
    assert again["runs"] == {"a0": "queued", "f0": "queued", "gone": "unknown"}
    states = {"all": True, "state": ["cancelled"]}
    _, rest = await gateway.post("/queues/default/runs/retry", states)
    assert rest["runs"] == {f"a{n}": "queued" for n in range(1, 7)}

    acts = [(x.action, x.run_id) for x in gateway.of(OperatorActed)]
    assert ("cancel many", "3 runs") in acts
    trail = [line.text async for line in audit.lines(gateway.connection)]
    assert sum(b'"cancel"' in line for line in trail) == 7


async def test_dead_letters_that_match_are_replayed(working: Served) -> None:
    """By workflow and cause."""
    for n in range(2):
        await working.post("/runs", {"workflow": "fails", "id": f"f{n}"})
        await end_of(working, f"f{n}")
    path = "/queues/default/dead/replay"

    _, none = await working.post(path, {"all": True, "cause": "KeyError"})
    _, dry = await working.post(path, {"all": True, "cause": "ValueError", "dry_run": True})
    _, done = await working.post(path, {"all": True, "workflow": "fails", "cause": "ValueError"})

    assert none == {"runs": {}, "next": None}
    assert dry["runs"] == {"f0": "failed", "f1": "failed"}
    assert done["runs"] == {"f0": "queued", "f1": "queued"}
    _, listed = await working.get("/queues/default/dead?cause=KeyError")
    assert listed["runs"] == []


#: What leaves it open who is meant, or is no choice at all.
DOUBTFUL: list[dict[str, Any]] = [
    {}, {"all": False}, {"ids": []}, {"ids": ["a"], "all": True}, {"ids": ["a"], "cause": "x"},
    {"all": True, "limit": 501}, {"all": True, "state": ["odd"]}, {"all": True, "since": -1},
    {"all": True, "cursor": "x"}, {"ids": ["{a}"]}, {"ids": ["a"] * 501},
]  # fmt: skip


async def test_who_is_meant_is_said_without_doubt(gateway: Served) -> None:
    """Nothing is chosen by leaving it out."""
    await gateway.post("/runs", {**ADD, "id": "a"})

    for body in DOUBTFUL:
        assert (await gateway.post("/queues/default/runs/cancel", body))[0] == 400, body

    assert (await gateway.client.depth()).waiting == 1


async def test_runs_are_listed_by_how_they_ended(working: Served) -> None:
    """What has ended stands in one place; a state asked for is still that state alone."""
    await working.post("/runs", {**ADD, "id": "a"})
    await working.post("/runs", {"workflow": "fails", "id": "f"})
    for run_id in ("a", "f"):
        await end_of(working, run_id)

    for query, expected in (
        ("state=completed", ["a"]), ("state=failed", ["f"]), ("cause=ValueError", ["f"]),
        ("cause=KeyError", []), ("since=1&until=2", []), ("since=1", ["a", "f"]),
        ("tenant=acme", []), ("workflow=add&state=failed", []),
    ):  # fmt: skip
        _, page = await working.get(f"/runs?{query}")
        assert sorted(run["id"] for run in page["runs"]) == expected, query


async def test_a_queue_is_paused_for_all_or_by_nobody(gateway: Served, issuer: Issuer) -> None:
    """It is shared: who acts for one tenant cannot stop the others."""
    path = "/queues/other"
    assert await gateway.post(f"{path}/pause") == (
        200, {"queue": "other", "paused": True, "changed": True}
    )  # fmt: skip
    assert (await gateway.get(path))[1]["paused"] is True
    assert (await gateway.post(f"{path}/pause"))[1]["changed"] is False
    bound = issuer.token("admin", tenant="acme")
    assert (await gateway.post(f"{path}/resume", token=bound))[0] == 403
    own = issuer.token("operator:other")
    assert (await gateway.post(f"{path}/resume", token=own))[1]["changed"] is True
    assert (await gateway.post("/queues/default/pause", token=own))[0] == 403
    assert (await gateway.get(path))[1]["paused"] is False
