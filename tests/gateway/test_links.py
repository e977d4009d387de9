"""A link to a question: whoever has it may answer that question, and learns nothing else."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from millstream.events import OperatorActed
from millstream.store import audit
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served
from tests.gateway.sse import messages


async def asked(gateway: Served, **more: Any) -> str:
    """Have a run ask; return the token of its question."""
    await gateway.post("/runs", {"workflow": "asks", "id": "r1", **more})
    await gateway.parked("r1")
    (event,) = await gateway.client.said(gateway.client.run("r1"))
    return str(event.data["token"])


async def test_a_link_answers_without_any_other_name(working: Served) -> None:
    """Once; it is written down as what it was, and afterwards there is nothing behind it."""
    token = await asked(working)
    body = {"token": token, "approved": True, "comment": "fine"}

    assert await working.post("/runs/r1/answer-by-link", body, token="") == (
        202, {"id": "r1", "queue": "default"}
    )  # fmt: skip

    _, end = await working.get("/runs/r1/result?wait=20")
    assert end["result"] == [True, "link", "fine"]
    assert (await working.post("/runs/r1/answer-by-link", body, token=""))[0] == 404
    acts = [(x.actor, x.action, x.run_id, x.outcome) for x in working.of(OperatorActed)]
    assert acts == [("link", "answer", "r1", "done")]
    (line,) = [line.text async for line in audit.lines(working.connection)]
    assert json.loads(line)["actor"] == "link"
    assert token.encode() not in line


async def test_what_strangers_try_is_answered_alike_and_not_written_down(
    working: Served, issuer: Issuer
) -> None:
    """A wrong token, an unknown run or queue, a run of a tenant: nobody learns which it was."""
    token = await asked(working)
    tries = [
        ("r1", "", "0" * 40), ("r2", "", token), ("r1", "?queue=other", token),
        ("r1", "?queue=elsewhere", token),
    ]  # fmt: skip
    told = set()
    for run_id, query, shown in tries:
        body = {"token": shown, "approved": True}
        status, problem = await working.post(
            f"/runs/{run_id}/answer-by-link{query}", body, token=""
        )
        told.add((status, json.dumps(problem)))

    assert len(told) == 1
    assert told.pop()[0] == 404
    assert working.of(OperatorActed) == []
    assert [line async for line in audit.lines(working.connection)] == []
    assert (await working.get("/runs/r1"))[1]["state"] == "parked"
    # A key in its place is no token, and a token opens nothing else.
    for shown in (working.token, "approve:prod", token[:-1], token.upper() + "0"):
        body = {"token": shown, "approved": True}
        assert (await working.post("/runs/r1/answer-by-link", body, token=""))[0] == 400
    assert (await working.get("/runs/r1", token=token))[0] == 401


async def test_strangers_are_slowed_down(gateway: Served) -> None:
    """By address: guessing is hopeless, and asking costs the store something."""
    body = {"token": "0" * 40, "approved": True}
    codes = [(await gateway.post("/runs/r1/answer-by-link", body, token=""))[0] for _ in range(30)]

    assert set(codes) == {404, 429}
    assert codes.count(404) < 20


async def test_a_viewer_follows_a_run_without_its_tokens(working: Served, issuer: Issuer) -> None:
    """Whoever may not answer must not be handed what answers."""
    token = await asked(working)
    for role, expected in (("viewer", "***"), ("submitter", "***"), ("operator", token)):
        url = f"{working.url}/api/v1/runs/r1/events"
        headers = {"Authorization": f"Bearer {issuer.token(role)}"}
        async with working.http.get(url, headers=headers) as answer:
            found = await anext(messages(answer))
        assert (found.data["name"], found.data["data"]["token"]) == ("approval", expected)
        _, steps = await working.get("/runs/r1/steps", token=issuer.token(role))
        assert token not in json.dumps(steps)


async def test_the_page_behind_a_link_asks_and_decides_nothing_by_itself(working: Served) -> None:
    """Programs that read mail follow links; a person presses a button, on our page."""
    token = await asked(working)
    url = f"{working.url}/runs/r1/answer-by-link?token={token}"
    async with aiohttp.ClientSession() as http:
        async with http.get(url) as answer:
            page = await answer.text()
            assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
            assert answer.headers["Referrer-Policy"] == "same-origin"
        assert "Deploy?" in page
        assert "hunter2" not in page
        assert "/runs/r1?" not in page
        assert (await working.get("/runs/r1"))[1]["state"] == "parked"
        for headers in ({}, {"Origin": "https://evil.test"}):
            async with http.post(url, data={"approved": "true"}, headers=headers) as answer:
                assert answer.status == 403
        headers = {"Origin": working.url}
        for data in ({}, {"approved": "perhaps"}, {"approved": "true", "comment": "x" * 2001}):
            async with http.post(url, data=data, headers=headers) as answer:
                assert answer.status == 400
        data = {"approved": "false", "comment": " no "}
        async with http.post(url, data=data, headers=headers) as answer:
            assert (answer.status, "Rejected" in await answer.text()) == (200, True)

    _, end = await working.get("/runs/r1/result?wait=20")
    assert end["result"] == [False, "link", "no"]


async def test_a_link_that_was_cut_leads_nowhere(gateway: Served) -> None:
    """Mail programs break lines; a person is told, and nothing is asked."""
    for query in ("", "?token=", "?token=x", f"?token={'0' * 40}&token={'1' * 40}"):
        async with gateway.http.get(f"{gateway.url}/runs/r1/answer-by-link{query}") as answer:
            assert (answer.status, answer.content_type) == (400, "text/html")
