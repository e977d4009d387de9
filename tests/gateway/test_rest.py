"""The API does what the client does, and says so in a way that programs can rely on."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.events import OperatorActed, RequestServed
from millstream.store import audit
from millstream.telemetry.health import Health
from millstream_gateway import probing
from millstream_gateway.calls import Reply
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served, served
from tests.gateway.test_pages import token_of
from tests.servers import RedisServer

ADD = {"workflow": "add", "arguments": {"a": 2}}


async def test_a_run_is_enqueued_and_its_result_waited_for(working: Served) -> None:
    """The way of most callers: two requests."""
    status, run = await working.post("/runs", ADD)
    assert (status, run["queue"], run["created"]) == (201, "default", True)

    status, end = await working.get(f"/runs/{run['id']}/result?wait=20")

    assert (status, end["state"], end["result"]) == (200, "completed", 3)
    status, view = await working.get(f"/runs/{run['id']}")
    assert (view["workflow"], view["state"], view["attempt"]) == ("add", "completed", 1)
    assert view["times"]["enqueued"] <= view["times"]["ended"]


async def test_a_run_that_goes_on_is_no_result_yet(gateway: Served) -> None:
    """Whoever polls is told where the run is, and when to ask again."""
    _, run = await gateway.post("/runs", ADD)

    status, end = await gateway.get(f"/runs/{run['id']}/result?wait=0.05")

    assert (status, end["state"], end["result"]) == (202, "queued", None)


async def test_a_failure_is_a_result_too(working: Served) -> None:
    """The request went well; the run did not."""
    _, run = await working.post("/runs", {"workflow": "fails"})

    status, end = await working.get(f"/runs/{run['id']}/result?wait=20")

    assert (status, end["state"]) == (200, "failed")
    assert end["error"] == {"cause": "ValueError", "message": "the tide is out"}


async def test_the_same_again_is_the_same_run(gateway: Served) -> None:
    """By id and by key: a caller that lost the answer asks again."""
    for body, headers in (({**ADD, "id": "mine/1"}, {}), (ADD, {"Idempotency-Key": "tuesday"})):
        first, run = await gateway.post("/runs", body, headers=headers)
        second, same = await gateway.post("/runs", body, headers=headers)

        assert (first, second) == (201, 200)
        assert same == {**run, "created": False}


async def test_an_id_that_means_something_else_is_a_conflict(gateway: Served) -> None:
    """Nothing is overwritten, and the answer is a problem document."""
    await gateway.post("/runs", {**ADD, "id": "r1"})

    status, problem = await gateway.post("/runs", {"workflow": "fails", "id": "r1"})

    assert (status, problem["status"], problem["type"]) == (409, 409, "urn:millstream:conflict")
    both = {**ADD, "id": "r2"}
    assert (await gateway.post("/runs", both, headers={"Idempotency-Key": "k"}))[0] == 400


async def test_a_full_queue_is_too_many_requests(gateway: Served) -> None:
    """The caller comes back later; of many runs each has an answer of its own."""
    await gateway.client.limit_depth("default", depth=1)
    assert (await gateway.post("/runs", {**ADD, "id": "r1"}))[0] == 201

    status, problem = await gateway.post("/runs", {**ADD, "id": "r2"})
    assert (status, problem["type"]) == (429, "urn:millstream:queue-full")
    status, many = await gateway.post(
        "/runs/batch", {"runs": [{**ADD, "id": "r1"}, {**ADD, "id": "r3"}]}
    )
    first, second = many["runs"]
    assert (first["id"], first["created"]) == ("r1", False)
    assert "is full" in second["error"]


async def test_an_id_with_a_slash_is_found_again(gateway: Served) -> None:
    """Ids may hold what a path gives another meaning to."""
    await gateway.post("/runs", {**ADD, "id": "2026/tides:7@x"})

    status, view = await gateway.get("/runs/2026%2Ftides%3A7%40x")

    assert (status, view["id"]) == (200, "2026/tides:7@x")


async def test_many_are_enqueued_and_each_is_answered(gateway: Served) -> None:
    """One that cannot be accepted costs the others nothing, also when all is said again."""
    await gateway.post("/runs", {**ADD, "id": "b"})
    runs = [{**ADD, "id": "a"}, {"workflow": "fails", "id": "b"}, {**ADD, "id": "c"}, ADD]

    for created in (False, False):
        status, answer = await gateway.post("/runs/batch", {"runs": runs})
        assert status == 200
        assert [each["id"] for each in answer["runs"]][:3] == ["a", "b", "c"]
        assert [bool(each["error"]) for each in answer["runs"]] == [False, True, False, False]
        assert answer["runs"][0]["created"] is created
    assert (await gateway.client.depth()).waiting == 5


async def test_runs_are_listed_page_by_page(gateway: Served) -> None:
    """Every run is met once, whatever the size of the pages, and filters hold."""
    runs: list[dict[str, Any]] = [{**ADD, "id": f"a{n}"} for n in range(25)]
    runs += [{"workflow": "fails", "id": f"f{n}"} for n in range(5)]
    runs += [{**ADD, "id": f"d{n}", "delay": 1000 + n} for n in range(10)]
    await gateway.post("/runs/batch", {"runs": runs})
    for n in range(10):
        await gateway.post(f"/runs/a{n}/cancel")

    for query, count in (("", 40), ("&workflow=add", 35), ("&state=cancelled&state=scheduled", 20),
                         ("&limited=true", 0)):  # fmt: skip
        found: list[str] = []
        cursor = ""
        for _ in range(20):
            status, page = await gateway.get(f"/runs?limit=7{query}{cursor}")
            assert status == 200
            found += [run["id"] for run in page["runs"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert len(found) == len(set(found)) == count


async def test_runs_are_found_by_their_attributes(gateway: Served) -> None:
    """What a caller wrote on a run is shown with it, and chooses it."""
    for run_id, customer in (("a", "42"), ("b", "7")):
        body = {**ADD, "id": run_id, "attributes": {"customer": customer, "by": "desk"}}
        assert (await gateway.post("/runs", body))[0] == 201

    async def found(query: str) -> list[str]:
        status, listed = await gateway.get(f"/runs?{query}")
        assert status == 200
        return [run["id"] for run in listed["runs"]]

    assert await found("attribute=customer=42") == ["a"]
    assert sorted(await found("attribute=by=desk")) == ["a", "b"]
    assert await found("attribute=by=desk&attribute=customer=7") == ["b"]
    _, view = await gateway.get("/runs/a")
    assert view["attributes"] == {"by": "desk", "customer": "42"}
    assert (await gateway.get("/runs?attribute=customer"))[0] == 400
    assert (await gateway.get("/runs?until=null"))[0] == 400, "no time, and not left out either"
    assert (await gateway.post("/runs", {**ADD, "attributes": {"a b": "x"}}))[0] == 400


@pytest.mark.parametrize(
    "cursor", ["x", "W10", "WzAsImVuZGVkIiwiXHJcbiIsMV0", "WzksImVuZGVkIiwiIiwwXQ", "%00"]
)
async def test_a_cursor_that_was_not_given_out_is_refused(gateway: Served, cursor: str) -> None:
    """It names places in the store: nothing of it may be believed."""
    status, problem = await gateway.get(f"/runs?cursor={cursor}")

    assert (status, problem["type"]) == (400, "urn:millstream:bad-request")


async def test_a_run_is_cancelled_and_retried_and_both_are_written_down(gateway: Served) -> None:
    """Who did what, to which run, from where, and what came of it."""
    await gateway.post("/runs", {**ADD, "id": "r1", "delay": 1000})

    assert (await gateway.post("/runs/r1/retry"))[0] == 409
    assert await gateway.post("/runs/r1/cancel") == (
        202, {"id": "r1", "queue": "default", "state": "cancelled"}
    )  # fmt: skip
    assert (await gateway.post("/runs/r1/retry"))[1]["state"] == "queued"

    acts = [(x.actor, x.action, x.run_id, x.outcome) for x in gateway.of(OperatorActed)]
    assert acts == [
        ("token:alice", "retry", "r1", "Conflict"),
        ("token:alice", "cancel", "r1", "done"),
        ("token:alice", "retry", "r1", "done"),
    ]
    trail = [line.text async for line in audit.lines(gateway.connection)]
    assert [b"token:alice" in line for line in trail] == [True] * 3


async def test_dead_letters_are_listed_and_replayed(working: Served) -> None:
    """In bulk, and each says what became of it."""
    for n in range(3):
        await working.post("/runs", {"workflow": "fails", "id": f"f{n}"})
        await working.get(f"/runs/f{n}/result?wait=20")

    _, page = await working.get("/queues/default/dead?limit=2")
    _, rest = await working.get(f"/queues/default/dead?limit=2&cursor={page['next']}")
    letters = [run["id"] for run in page["runs"] + rest["runs"]]
    status, became = await working.post("/queues/default/dead/replay", {"ids": [*letters, "gone"]})

    assert sorted(letters) == ["f0", "f1", "f2"]
    assert status == 200
    assert became["runs"] == dict.fromkeys(letters, "queued") | {"gone": "unknown"}


async def test_queues_show_what_they_hold(gateway: Served) -> None:
    """The numbers of the client, for the queues that this gateway serves."""
    await gateway.post("/runs", {**ADD, "queue": "other"})

    _, found = await gateway.get("/queues")

    assert [(q["queue"], q["waiting"]) for q in found["queues"]] == [("default", 0), ("other", 1)]
    assert (await gateway.get("/queues/other"))[1]["waiting"] == 1
    assert (await gateway.get("/queues/elsewhere"))[0] == 404
    assert (await gateway.post("/runs", {**ADD, "queue": "elsewhere"}))[0] == 404


async def test_requests_are_counted_under_their_templates(gateway: Served, issuer: Issuer) -> None:
    """A path that a stranger made up names no series."""
    await gateway.get("/runs/some-id")
    await gateway.get("/no/such/path")
    await gateway.ask("TRACE", "/api/v1/runs")

    told = [(x.method, x.endpoint, x.status) for x in gateway.of(RequestServed)]
    assert told == [
        ("GET", "/api/v1/runs/{id}", 404),
        ("GET", "unmatched", 404),
        ("other", "unmatched", 405),
    ]


async def test_the_probes_are_open_and_say_little(gateway: Served) -> None:
    """A kubelet has no token, and a stranger learns no address."""
    for path in ("/health", "/ready", "/startup"):
        status, body = await gateway.ask("GET", path, token="")
        assert (status, body) == (200, {"status": "ok", "reason": None})


async def test_a_probe_names_what_is_wrong_and_no_address() -> None:
    """Whoever waits for a gateway learns that it is Redis, without a look into the log."""
    health = Health()
    health.claim_turned()
    health.store_failed("cannot reach Redis at secret.internal:6379")
    ready = next(route for route in probing.routes(health) if route.path == "/ready")
    nobody: Any = None

    reply = await ready.handler(nobody)

    assert isinstance(reply, Reply)
    assert (reply.status, reply.value.status) == (503, "unavailable")
    assert reply.value.reason == "redis: the log says more"


async def test_a_change_that_could_not_be_noted_says_that_it_was_made(issuer: Issuer) -> None:
    """It cannot be undone, and nobody may do it again, or believe that it stands in the trail."""
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    with RedisServer(acl=["user half on >secret ~millstream:{default:* &* +@all"]) as server:
        async with served(server.url_as("half", "secret"), issuer) as gateway:
            await gateway.post("/runs", {**ADD, "id": "r1", "delay": 1000})
            status, problem = await gateway.post("/runs/r1/cancel")
            _, run = await gateway.get("/runs/r1")
        url = server.url_as("half", "secret")
        async with served(url, issuer, insecure_open=True, jwt_keys=()) as gateway:
            headers = {"Origin": gateway.url}
            async with gateway.http.get(f"{gateway.url}/runs/r1") as answer:
                form = {"token": token_of(await answer.text())}
            async with gateway.http.post(
                f"{gateway.url}/runs/r1/retry?queue=default", data=form, headers=headers
            ) as answer:
                shown, page = answer.status, await answer.text()

    assert (shown, "That was done, and could not be noted" in page) == (500, True)
    assert (status, problem["type"]) == (500, "urn:millstream:unaudited")
    assert "cancel 'r1' was done (cancelled)" in problem["detail"]
    assert run["state"] == "cancelled"
