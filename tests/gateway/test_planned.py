"""Schedules over HTTP: what the client can do, for whoever may, and for nobody else's tenant."""

from __future__ import annotations

from typing import Any

from millstream import Schedule
from millstream.events import OperatorActed
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served

NIGHTLY: dict[str, Any] = {
    "name": "nightly", "workflow": "add", "arguments": {"a": 1}, "cron": "30 2 * * *",
    "timezone": "Europe/Berlin",
}  # fmt: skip


async def test_a_schedule_is_made_looked_at_turned_and_deleted(gateway: Served) -> None:
    """Its life, as the client has it."""
    status, made = await gateway.post("/schedules", NIGHTLY)
    assert (status, made["name"], made["queue"], len(made["upcoming"])) == (
        201, "nightly", "default", 5
    )  # fmt: skip
    assert (await gateway.post("/schedules", NIGHTLY))[0] == 201
    status, problem = await gateway.post("/schedules", {**NIGHTLY, "cron": "0 3 * * *"})
    assert (status, problem["type"]) == (409, "urn:millstream:conflict")

    _, paused = await gateway.post("/schedules/nightly/pause")
    assert (paused["paused"], paused["upcoming"]) == (True, [])
    for expected in (201, 200):
        status, run = await gateway.post("/schedules/nightly/trigger", {"id": "now-1"})
        assert (status, run["id"]) == (expected, "now-1")
    assert (await gateway.get("/runs/now-1"))[1]["workflow"] == "add"
    assert (await gateway.post("/schedules/nightly/trigger"))[1]["id"].startswith("nightly@")
    _, resumed = await gateway.post("/schedules/nightly/resume")
    assert resumed["paused"] is False
    assert (await gateway.get("/schedules"))[1]["schedules"][0]["upcoming"]
    assert await gateway.ask("DELETE", "/api/v1/schedules/nightly") == (200, {"name": "nightly"})
    status, problem = await gateway.get("/schedules/nightly")
    assert (status, problem["type"]) == (404, "urn:millstream:unknown-schedule")

    acts = {(x.action, x.run_id) for x in gateway.of(OperatorActed)}
    assert acts == {
        (f"{verb} schedule", "nightly")
        for verb in ("write", "pause", "resume", "trigger", "delete")
    }


async def test_schedules_of_others_do_not_exist(gateway: Served, issuer: Issuer) -> None:
    """Not in lists, not by name; and the mark of a page is the name of one that was shown."""
    for n in range(6):
        tenant = "acme" if n % 2 else "umbrella"
        token = issuer.token("operator", tenant=tenant)
        body = {**NIGHTLY, "name": f"s{n}"}
        assert (await gateway.post("/schedules", body, token=token))[1]["tenant"] == tenant
    token = issuer.token("operator", tenant="acme")

    _, first = await gateway.get("/schedules?limit=2", token=token)
    _, rest = await gateway.get(f"/schedules?limit=2&after={first['next']}", token=token)
    names = [each["name"] for each in first["schedules"] + rest["schedules"]]
    assert (names, first["next"], rest["next"]) == (["s1", "s3", "s5"], "s3", None)
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/trigger"),
    ):  # fmt: skip
        found = await gateway.ask(method, f"/api/v1/schedules/s0{path}", token=token, json={})
        none = await gateway.ask(method, f"/api/v1/schedules/s9{path}", token=token, json={})
        assert found[0] == none[0] == 404, path
        assert found[1]["detail"].replace("s0", "s9") == none[1]["detail"]
    taken = await gateway.post("/schedules", {**NIGHTLY, "name": "s0"}, token=token)
    assert (taken[0], "umbrella" in str(taken[1])) == (409, False)
    assert (await gateway.post("/schedules", {**NIGHTLY, "tenant": "x"}, token=token))[0] == 400
    await gateway.client.enqueue("add", {"a": 1}, id="theirs", tenant="umbrella")
    shared = await gateway.post("/schedules/s1/trigger", {"id": "theirs"}, token=token)
    assert shared[0] == 409


async def test_schedules_are_for_the_queues_that_one_may_act_in(
    gateway: Served, issuer: Issuer
) -> None:
    """A viewer looks; who has no role in a queue does not see its schedules."""
    await gateway.client.schedules.create(Schedule("here", "add", every=60))
    await gateway.client.schedules.create(Schedule("there", "add", every=60, queue="other"))
    await gateway.client.schedules.create(Schedule("away", "add", every=60, queue="unserved"))
    viewer, elsewhere = issuer.token("viewer:other"), issuer.token("operator:other")

    for token in (viewer, elsewhere):
        _, found = await gateway.get("/schedules", token=token)
        assert [each["name"] for each in found["schedules"]] == ["there"]
        assert (await gateway.get("/schedules/here", token=token))[0] == 404
        assert (await gateway.post("/schedules", NIGHTLY, token=token))[0] == 403
    assert (await gateway.post("/schedules/there/pause", token=viewer))[0] == 403
    assert (await gateway.post("/schedules/there/pause", token=elsewhere))[0] == 200
    assert (await gateway.get("/schedules/away"))[0] == 404


#: What is said otherwise than of a schedule that could be.
NEVER: list[dict[str, Any]] = [
    {"cron": None}, {"every": 5}, {"cron": "60 * * * *"}, {"cron": "0 0 30 2 *"},
    {"timezone": "Mars/Olympus"}, {"timezone": "../../etc/passwd"}, {"overlap": "fight"},
    {"end": "2001-01-01T00:00:00Z"}, {"start": "tomorrow"}, {"jitter": 1e9},
    {"catch_up_limit": 0}, {"name": "a/b"}, {"name": "{x}"}, {"workflow": "a b"},
    {"queue": "elsewhere"}, {"arguments": []}, {"arguments": {"a": "x" * 70_000}},
    {"more": 1}, {"cron": None, "every": 0.5},
]  # fmt: skip


async def test_a_schedule_that_could_never_be_is_refused(gateway: Served) -> None:
    """Where it is made, and nothing is written."""
    for change in NEVER:
        status, problem = await gateway.post("/schedules", {**NIGHTLY, **change})
        assert (status, problem["status"]) in {(400, 400), (404, 404), (413, 413)}, change

    assert await gateway.client.schedules.list() == []
