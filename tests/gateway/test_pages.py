"""The pages show what is there, and do what they say for whoever may, from a page of ours."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from millstream.events import OperatorActed
from millstream.store import api_keys, audit
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served, served

ADD = {"workflow": "add", "arguments": {"a": 2, "b": 5}}


@asynccontextmanager
async def browser(gateway: Served, shown: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Somebody who has signed in with a key or token."""
    jar = aiohttp.CookieJar(unsafe=True)  # an address is no name that cookies are kept for
    async with aiohttp.ClientSession(cookie_jar=jar, headers={"Origin": gateway.url}) as http:
        async with http.post(f"{gateway.url}/login", data={"key": shown}) as answer:
            assert (answer.status, str(answer.url)) == (200, f"{gateway.url}/")
        yield http


async def text(http: aiohttp.ClientSession, url: str) -> str:
    """A page."""
    async with http.get(url) as answer:
        assert answer.status == 200, await answer.text()
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        found: str = await answer.text()
        return found


def token_of(page: str) -> str:
    """What a form of a page brings."""
    found = re.search(r'name="token" value="([^"]+)"', page)
    assert found is not None
    return found[1]


async def test_whoever_is_not_signed_in_sees_where_to_do_that(gateway: Served) -> None:
    """And nothing else; a wrong key is told as such."""
    async with aiohttp.ClientSession(headers={"Origin": gateway.url}) as http:
        for path in ("/", "/runs", "/runs/r1", "/dead", "/workers", "/runs/r1/events"):
            async with http.get(f"{gateway.url}{path}") as answer:
                assert str(answer.url) == f"{gateway.url}/login"
        async with http.post(f"{gateway.url}/login", data={"key": "wrong"}) as answer:
            assert (answer.status, "Set-Cookie" in answer.headers) == (401, False)
        async with http.get(f"{gateway.url}/static/htmx.min.js") as answer:
            assert (answer.status, answer.content_type) == (200, "text/javascript")
        for name in ("..%2f__init__.py", "nothing", "htmx.min.js%00"):
            async with http.get(f"{gateway.url}/static/{name}") as answer:
                assert answer.status in {400, 404}


async def test_a_run_is_shown_with_its_steps_and_without_its_secrets(working: Served) -> None:
    """What a workflow was given and what came of each step; and markup in it is text."""
    arguments = {"a": 1, "note": "<script>alert(1)</script>", "api_key": "hunter2"}
    await working.post("/runs", {"workflow": "shows", "arguments": arguments, "id": "r/1"})
    await working.get("/runs/r%2F1/result?wait=20")
    async with browser(working, working.token) as http:
        page = await text(http, f"{working.url}/runs/r%2F1?queue=default")
        listed = await text(http, f"{working.url}/runs?queue=default&state=completed&workflow=")
        overview = await text(http, f"{working.url}/")
        workers = await text(http, f"{working.url}/workers")
        async with http.get(f"{working.url}/runs/r%2F1/events") as answer:
            told = await answer.text()

    assert "double" in page
    assert "&lt;script&gt;" in page
    assert "<script>alert" not in page
    assert "hunter2" not in page
    assert "hunter2" not in told
    assert '"api_key":"***"' in told
    assert 'href="/runs/r%2F1?queue=default"' in listed
    assert "default" in overview
    assert "shows@1" in workers


async def test_a_run_is_cancelled_and_retried_from_its_page(gateway: Served) -> None:
    """And it is written down who did it."""
    await gateway.post("/runs", {**ADD, "id": "r1", "delay": 1000})
    async with browser(gateway, gateway.token) as http:
        url = f"{gateway.url}/runs/r1"
        token = token_of(await text(http, url))
        for action, state in (("cancel", "cancelled"), ("retry", "queued")):
            async with http.post(f"{url}/{action}?queue=default", data={"token": token}) as answer:
                assert f'class="state {state}"' in await answer.text()
        async with http.post(f"{gateway.url}/logout", data={"token": token}) as answer:
            assert str(answer.url) == f"{gateway.url}/login"
        async with http.get(url) as answer:
            assert str(answer.url) == f"{gateway.url}/login"

    acts = [(act.actor, act.action, act.outcome) for act in gateway.of(OperatorActed)]
    assert acts == [("token:alice", "cancel", "done"), ("token:alice", "retry", "done")]


async def test_dead_letters_are_replayed_in_bulk(working: Served) -> None:
    """Those that were chosen, and no others."""
    for n in range(3):
        await working.post("/runs", {"workflow": "fails", "id": f"f{n}"})
        await working.get(f"/runs/f{n}/result?wait=20")
    async with browser(working, working.token) as http:
        token = token_of(await text(http, f"{working.url}/dead"))
        data = [("token", token), ("id", "f0"), ("id", "f2"), ("id", "gone")]
        async with http.post(f"{working.url}/dead/replay?queue=default", data=data) as answer:
            assert answer.status == 200

    acts = [(act.action, act.run_id) for act in working.of(OperatorActed)]
    assert acts == [("replay many", "2 runs")]
    trail = [json.loads(line.text) async for line in audit.lines(working.connection)]
    assert {(each["actor"], each["target"]) for each in trail} == {
        ("token:alice", "f0"), ("token:alice", "f2")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("origin", "token"), [(None, "own"), ("https://evil.test", "own"), ("own", ""), ("own", "x")]
)
async def test_a_form_of_another_page_does_nothing(
    gateway: Served, origin: str | None, token: str
) -> None:
    """A browser sends the cookie with it; that must not be enough."""
    await gateway.post("/runs", {**ADD, "id": "r1"})
    async with browser(gateway, gateway.token) as http:
        own = token_of(await text(http, f"{gateway.url}/runs/r1"))
        http.headers.pop("Origin", None)
        headers = {"Origin": gateway.url if origin == "own" else origin} if origin else {}
        async with aiohttp.ClientSession(cookie_jar=http.cookie_jar) as bare:
            url = f"{gateway.url}/runs/r1/cancel?queue=default"
            data = {"token": own if token == "own" else token}
            async with bare.post(url, data=data, headers=headers) as answer:
                assert answer.status == 403

    assert (await gateway.get("/runs/r1"))[1]["state"] == "queued"


async def test_a_page_shows_what_its_reader_may_see(gateway: Served, issuer: Issuer) -> None:
    """Roles, queues and tenants hold here as everywhere."""
    await gateway.post("/runs", {**ADD, "id": "r1"}, token=issuer.token("admin", tenant="acme"))
    await gateway.post("/runs", {**ADD, "id": "r2"})
    async with browser(gateway, issuer.token("viewer", tenant="acme")) as http:
        listed = await text(http, f"{gateway.url}/runs")
        page = await text(http, f"{gateway.url}/runs/r1")
        assert ("r1" in listed, "/runs/r2" in listed) == (True, False)
        assert "/cancel" not in page
        token = token_of(page)
        async with http.get(f"{gateway.url}/runs/r2") as answer:
            assert answer.status == 404
        for path in ("/runs/r1/cancel?queue=default", "/dead/replay?queue=default"):
            async with http.post(f"{gateway.url}{path}", data={"token": token}) as answer:
                assert answer.status == 403
        async with http.get(f"{gateway.url}/workers") as answer:
            assert answer.status == 403


async def test_a_revoked_key_ends_its_sessions(memory_url: str, issuer: Issuer) -> None:
    """Whoever signed in with it is asked to sign in again."""
    now = [1000.0]
    async with served(memory_url, issuer, parts={"mono": lambda: now[0]}) as gateway:
        key, shown = await api_keys.create(
            gateway.connection, name="me", roles=("viewer",), tenant=None, lasts_s=600
        )
        async with browser(gateway, shown) as http:
            await text(http, f"{gateway.url}/")
            await api_keys.revoke(gateway.connection, key.id)
            now[0] += 6
            async with http.get(f"{gateway.url}/") as answer:
                assert str(answer.url) == f"{gateway.url}/login"


async def test_the_cookie_is_out_of_reach(gateway: Served) -> None:
    """Of scripts, of other sites, and of connections in the clear where there is a name."""
    headers = {"Host": "runs.test", "Origin": "https://runs.test"}
    data = {"key": gateway.token}
    async with gateway.http.post(
        f"{gateway.url}/login", data=data, headers=headers, allow_redirects=False
    ) as answer:
        cookie = answer.headers["Set-Cookie"]

    assert answer.status == 303
    assert {"HttpOnly", "Secure", "SameSite=Strict"} <= set(cookie.split("; "))
    rows = await gateway.connection.client.keys("millstream:{session}:*")
    assert len(rows) == 1
    assert cookie.partition("=")[2].partition(";")[0] not in rows[0].decode()
