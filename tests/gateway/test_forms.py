"""The forms of the pages: a schedule is made and changed, a run enqueued; or it is said why not."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import aiohttp
import pytest

from millstream import Schedule
from millstream.events import OperatorActed
from millstream.model.run import Priority
from millstream.model.schedule import CatchUp, Overlap
from millstream.store import audit, catalogues
from millstream_gateway.dashboard import filling
from millstream_gateway.dashboard.unshown import OnlyAMark, restored
from millstream_gateway.refusals import Malformed
from millstream_gateway.rest.schedule_shapes import NewSchedule
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served
from tests.gateway.test_pages import browser, text, token_of

NIGHTLY = {
    "name": "nightly", "workflow": "add", "arguments": '{"a": 1}', "queue": "default",
    "cron": "30 2 * * *", "timezone": "Europe/Berlin", "every": "", "start": "", "end": "",
    "jitter": "", "overlap": "skip", "catch_up": "last", "catch_up_limit": "",
    "priority": "normal", "timeout": "", "version": "",
}  # fmt: skip
ADD = {"workflow": "add", "arguments": '{"a": 2}', "queue": "default", "id": "r1", "delay": ""}


async def sent(
    http: aiohttp.ClientSession, url: str, form: dict[str, str], at: str | None = None
) -> tuple[int, str, str]:
    """Send the form of a page; return the status, where that led, and the page."""
    data = {**form, "token": token_of(await text(http, at or url))}
    async with http.post(url, data=data) as answer:
        return answer.status, str(answer.url), await answer.text()


def beside(page: str, field: str) -> str:
    """What is said beside a field; it is bound to it, for those who do not see it."""
    found = re.search(rf'<p id="{field}-fault" class="error">(.*?)</p>', page)
    assert found is not None, (field, page)
    assert re.search(rf'id="{field}" [^>]*aria-describedby="[^"]*{field}-fault"', page), field
    assert re.search(rf'id="{field}" [^>]*aria-invalid="true"', page), field
    return found[1]


async def test_a_schedule_is_made_from_its_form(gateway: Served, issuer: Issuer) -> None:
    """As the API makes it: for the tenant of whoever is signed in, and written down."""
    full = {
        **NIGHTLY, "name": "poll", "cron": "", "every": "90", "start": "2030-01-01T06:00",
        "end": "2031-01-01T06:00:00+01:00", "jitter": "2.5", "overlap": "queue",
        "catch_up": "all", "catch_up_limit": "7", "priority": "high", "timeout": "60",
        "version": "2", "paused": "true", "queue": "other",
    }  # fmt: skip
    async with browser(gateway, issuer.token("operator", tenant="acme")) as http:
        for form in (NIGHTLY, full):
            status, where, page = await sent(http, f"{gateway.url}/schedules/new", form)
            assert (status, where) == (200, f"{gateway.url}/schedules"), page
    made = (await gateway.client.schedules.get("nightly")).schedule
    poll = await gateway.client.schedules.get("poll")

    assert (made.arguments, made.cron, made.tenant) == ({"a": 1}, "30 2 * * *", "acme")
    told = poll.schedule
    assert (told.every, told.jitter, told.timeout, told.version) == (90, 2.5, 60, "2")
    assert (told.overlap, told.catch_up, told.catch_up_limit) == (Overlap.QUEUE, CatchUp.ALL, 7)
    assert (told.priority, told.queue, poll.paused) == (Priority.HIGH, "other", True)
    assert told.start is not None
    assert told.end is not None
    assert (told.start.isoformat(), told.end.utcoffset() is None) == ("2030-01-01T06:00:00", False)
    acts = [(x.actor, x.action, x.run_id, x.outcome) for x in gateway.of(OperatorActed)]
    assert acts == [("token:alice", "write schedule", n, "done") for n in ("nightly", "poll")]
    trail = [json.loads(line.text) async for line in audit.lines(gateway.connection)]
    assert [(x["actor"], x["verb"], x["target"]) for x in trail] == [
        ("token:alice", "write schedule", name) for name in ("nightly", "poll")
    ]


#: What is typed, beside which field something is said, and what.
WRONG: list[tuple[dict[str, str], str, str]] = [
    ({"name": ""}, "name", "needed"), ({"name": "a/b"}, "name", "Letters"),
    ({"name": "x" * 101}, "name", "100 characters"), ({"workflow": "a b"}, "workflow", "Letters"),
    ({"arguments": "{"}, "arguments", "no JSON"), ({"arguments": "[1]"}, "arguments", "object"),
    ({"arguments": '{"a": "' + "x" * 70_000 + '"}'}, "arguments", "limit"),
    ({"arguments": "[" * 20_000}, "arguments", ""),
    ({"cron": "60 * * * *"}, "cron", "cannot be read"), ({"cron": ""}, "cron", "either"),
    ({"every": "30"}, "cron", "either"), ({"cron": "0 0 30 2 *"}, "cron", "day-of-month"),
    ({"cron": "", "every": "often"}, "every", "a number"),
    ({"cron": "", "every": "0.5"}, "every", "number &gt;= 1"),
    ({"cron": "", "every": "nan"}, "every", "a number"),
    ({"timeout": "inf"}, "timeout", "a number"), ({"timeout": "0"}, "timeout", "number &gt; 0"),
    ({"timezone": "Mars/Olympus"}, "timezone", "not known"),
    ({"timezone": "../../etc/passwd"}, "timezone", "not known"),
    ({"start": "tomorrow"}, "start", "2026-12-24"), ({"end": "2001-01-01T00:00"}, "end", "never"),
    ({"start": "2031-01-01T00:00", "end": "2030-01-01T00:00"}, "end", "before it starts"),
    ({"jitter": "1e9"}, "jitter", "number &lt;="), ({"overlap": "fight"}, "overlap", "choices"),
    ({"catch_up_limit": "0"}, "catch_up_limit", "number &gt;= 1"),
    ({"name": "taken"}, "name", "taken"),
]  # fmt: skip


async def test_what_is_wrong_with_a_schedule_is_said_beside_the_field(gateway: Served) -> None:
    """What was typed stands there still, and nothing is written."""
    await gateway.client.schedules.create(Schedule("taken", "add", every=60))
    url = f"{gateway.url}/schedules/new"
    async with browser(gateway, gateway.token) as http:
        token = token_of(await text(http, url))
        for change, field, says in WRONG:
            async with http.post(url, data={**NIGHTLY, **change, "token": token}) as answer:
                page = await answer.text()
            expected = {"taken": 409}.get(change.get("name", ""), 413 if says == "limit" else 400)
            assert answer.status == expected, (change, page[:3000])
            assert says in beside(page, field), change
            assert f'href="#{field}"' in page
            assert 'role="alert"' in page
        several = {**NIGHTLY, "name": "<b>", "workflow": "", "arguments": "x", "token": token}
        async with http.post(url, data=several) as answer:
            page = await answer.text()

    assert [bool(beside(page, each)) for each in ("name", "workflow", "arguments")] == [True] * 3
    assert ('value="&lt;b&gt;"' in page, "<b>" in page) == (True, False)
    assert [each.name for each in await gateway.client.schedules.list()] == ["taken"]


async def test_a_form_is_for_whoever_may_and_from_a_page_of_ours(
    gateway: Served, issuer: Issuer
) -> None:
    """Roles hold, of a queue too; no other page sends it, and it has no other fields."""
    await gateway.client.schedules.create(Schedule("theirs", "add", every=60, tenant="umbrella"))
    new, enqueue = f"{gateway.url}/schedules/new", f"{gateway.url}/enqueue"
    async with browser(gateway, issuer.token("viewer", tenant="*")) as http:
        token = token_of(await text(http, f"{gateway.url}/schedules"))
        for url, form in ((new, NIGHTLY), (enqueue, ADD)):
            async with http.get(url) as answer:
                assert answer.status == 403
            async with http.post(url, data={**form, "token": token}) as answer:
                assert answer.status == 403
    async with browser(gateway, issuer.token("operator:other", tenant="acme")) as http:
        for url, form in ((new, NIGHTLY), (enqueue, ADD)):
            page = await text(http, url if url == new else f"{url}?queue=other")
            assert '<option value="default"' not in page
            data = {**form, "token": token_of(page)}
            for change, origin, expected in (
                ({}, gateway.url, 403), ({"queue": "nowhere"}, gateway.url, 403),
                ({"token": "x", "queue": "other"}, gateway.url, 403),
                ({"queue": "other"}, "http://elsewhere.example", 403),
                ({"queue": "other", "tenant": "umbrella"}, gateway.url, 400),
            ):  # fmt: skip
                body, headers = {**data, **change}, {"Origin": origin}
                async with http.post(url, data=body, headers=headers) as answer:
                    assert answer.status == expected, (url, change)
        for name in ("theirs", "none"):
            async with http.get(f"{gateway.url}/schedules/{name}/change") as answer:
                assert answer.status == 404

    assert [each.name for each in await gateway.client.schedules.list()] == ["theirs"]
    for queue in ("default", "other"):
        assert (await gateway.client.depth(queue)).waiting == 0


async def test_a_schedule_is_changed_in_its_form(gateway: Served) -> None:
    """It stays its tenant's, paused, and has the secrets that were not shown."""
    secret = {"a": 1, "api_key": "hunter2", "to": [{"password": "hunter3", "n": 1}]}
    await gateway.client.schedules.create(
        Schedule("nightly", "add", secret, cron="30 2 * * *", tenant="acme", queue="other"),
        paused=True,
    )
    url = f"{gateway.url}/schedules/nightly/change"
    async with browser(gateway, gateway.token) as http:
        page = await text(http, url)
        form = form_of(page)
        assert ("hunter" in page, form["cron"], form["queue"]) == (False, "30 2 * * *", "other")
        arguments = form["arguments"].replace('"a": 1', '"a": 5').replace('"n": 1', '"n": 2')
        change = {**form, "cron": "", "every": "3600", "arguments": arguments}
        async with http.post(url, data=change) as answer:
            assert str(answer.url) == f"{gateway.url}/schedules"
        found = await gateway.client.schedules.get("nightly")
        moved = form["arguments"].replace("api_key", "other_name")
        form = {**form_of(await text(http, url)), "arguments": moved}
        async with http.post(url, data=form) as answer:
            assert "each in its own place" in beside(await answer.text(), "arguments")

    assert found.schedule.arguments == {
        "a": 5, "api_key": "hunter2", "to": [{"password": "hunter3", "n": 2}]
    }  # fmt: skip
    assert (found.schedule.every, found.schedule.cron) == (3600, None)
    assert (found.schedule.tenant, found.schedule.queue, found.paused) == ("acme", "other", True)
    assert await gateway.client.schedules.get("nightly") == found


async def test_whoever_was_slower_changes_nothing(gateway: Served) -> None:
    """And is shown what stands there now."""
    await gateway.client.schedules.create(Schedule("nightly", "add", cron="30 2 * * *"))
    url = f"{gateway.url}/schedules/nightly/change"
    async with browser(gateway, gateway.token) as http:
        form = form_of(await text(http, url))
        await gateway.client.schedules.apply([Schedule("nightly", "add", cron="0 5 * * *")])
        async with http.post(url, data={**form, "cron": "0 4 * * *"}) as answer:
            page = await answer.text()
            assert (answer.status, "Somebody else changed it" in page) == (409, True)
        again = form_of(page)
        assert again["cron"] == "0 5 * * *"
        async with http.post(url, data={**again, "cron": "@never"}) as answer:
            page = await answer.text()
            assert (answer.status, "cannot be read" in beside(page, "cron")) == (400, True)
        async with http.post(url, data={**form_of(page), "cron": "0 4 * * *"}) as answer:
            assert answer.status == 200

    assert (await gateway.client.schedules.get("nightly")).schedule.cron == "0 4 * * *"


async def test_a_run_is_enqueued_from_its_form(working: Served, issuer: Issuer) -> None:
    """For the tenant of whoever is signed in; and sent twice, it is one run."""
    url = f"{working.url}/enqueue"
    note = catalogues.note([catalogues.Described(name="add", version="1")])
    await catalogues.publish(working.connection, "default", note, 60)
    async with browser(working, issuer.token("submitter", tenant="acme")) as http:
        page = await text(http, f"{url}?queue=default")
        form = {**form_of(page), "workflow": "add", "arguments": '{"a": 2, "b": 5}'}
        form["attributes"] = '{"customer": "42"}'
        assert '<option value="add"></option>' in page
        for _ in range(2):
            async with http.post(url, data=form) as answer:
                assert str(answer.url) == f"{working.url}/runs/{form['id']}?queue=default"
        async with http.post(url, data={**form, "arguments": '{"a": 3}'}) as answer:
            assert answer.status == 409
            assert "taken" in beside(await answer.text(), "id")
        for change, field in (
            ({"workflow": ""}, "workflow"), ({"arguments": "1"}, "arguments"),
            ({"id": "a b"}, "id"), ({"delay": "-1"}, "delay"),
            ({"attributes": '{"a b": "c"}'}, "attributes"),
        ):  # fmt: skip
            async with http.post(url, data={**form, "id": "r9", **change}) as answer:
                assert (answer.status, bool(beside(await answer.text(), field))) == (400, True)
        seen = await text(http, f"{working.url}/runs")
    _, end = await working.get(f"/runs/{form['id']}/result?wait=20")
    status = await working.client.run(form["id"]).status()

    assert (end["result"], status.tenant, dict(status.attributes)) == (
        7,
        "acme",
        {"customer": "42"},
    )
    assert 'href="/enqueue?queue=default"' in seen
    assert (await working.get("/runs/r9"))[0] == 404


async def test_a_schedule_is_changed_over_http(gateway: Served, issuer: Issuer) -> None:
    """By whoever may in both queues; its tenant stays, and so does its name."""
    await gateway.client.schedules.create(
        Schedule("nightly", "add", {"a": 1}, cron="30 2 * * *", tenant="acme"), paused=True
    )
    put = "/api/v1/schedules/nightly"
    wanted: dict[str, Any] = {"workflow": "counts", "every": 60}
    token = issuer.token("operator:default", tenant="acme")
    for change, expected in (
        ({"name": "other"}, 400), ({"cron": "* * * * *"}, 400), ({"queue": "other"}, 403),
    ):  # fmt: skip
        found = await gateway.ask("PUT", put, token=token, json={**wanted, **change})
        assert found[0] == expected, change
    status, told = await gateway.ask("PUT", put, token=token, json=wanted)
    stranger = issuer.token("operator", tenant="umbrella")

    assert (status, told["workflow"], told["arguments"], told["cron"]) == (200, "counts", {}, None)
    assert (told["tenant"], told["queue"], told["paused"]) == ("acme", "default", True)
    assert (await gateway.ask("PUT", put, token=stranger, json=wanted))[0] == 404


def form_of(page: str) -> dict[str, str]:
    """What a browser would send from the form of a page as it stands."""
    main = page.partition("<main")[2]
    form: dict[str, str] = {}
    for tag in re.findall(r"<input ([^>]*)>", main.partition("</form>")[0], re.DOTALL):
        found = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        if found["type"] != "checkbox":
            form[found["name"]] = html.unescape(found["value"])
    for name, value in re.findall(r'<textarea id="(\w+)"[^>]*>\n(.*?)</textarea>', main, re.DOTALL):
        form[name] = html.unescape(value)
    for name, options in re.findall(r'<select id="(\w+)"[^>]*>(.*?)</select>', main, re.DOTALL):
        chosen = re.findall(r'<option value="([^"]*)" selected', options)
        form[name] = chosen[0] if chosen else re.findall(r'<option value="([^"]*)"', options)[0]
    return form


MARK = "***"


@pytest.mark.parametrize(
    ("typed", "before", "expected"),
    [
        ({"token": MARK}, {"token": "t"}, {"token": "t"}),
        ({"token": "new"}, {"token": "t"}, {"token": "new"}),
        ({}, {"token": "t"}, {}),
        ({"token": MARK, "b": 2}, {"token": "t", "b": 1}, {"token": "t", "b": 2}),
        ({"x": MARK}, {"token": "t"}, None),
        ([{"token": MARK}, 2], [{"token": "t"}, 1], [{"token": "t"}, 2]),
        ([{"token": MARK}], [{"token": "t"}, 1], None),
        ({"u": f"http://{MARK}@h/b"}, {"u": "http://p@h/a"}, None),
        ({"u": f"http://{MARK}@h/a", "b": 1}, {"u": "http://p@h/a"}, {"u": "http://p@h/a", "b": 1}),
        ({"said": "…"}, {"said": ""}, None),
        ({"said": "well…"}, {"said": ""}, {"said": "well…"}),
        ({"said": MARK}, {"said": MARK}, {"said": MARK}),
    ],
)  # fmt: skip
def test_what_was_not_shown_is_kept(typed: Any, before: Any, expected: Any) -> None:
    """In its own place; a mark anywhere else is no value."""
    if expected is None:
        with pytest.raises(OnlyAMark):
            restored(typed, before)
    else:
        assert restored(typed, before) == expected


def test_members_that_are_too_many_to_be_shown_are_kept() -> None:
    """A change of one of the first does not lose the last."""
    before = {f"k{n}": n for n in range(150)}
    shown = {f"k{n}": n for n in range(100)}

    assert restored({**shown, "k0": "new"}, before) == {**before, "k0": "new"}


def test_a_form_with_a_field_twice_is_none_of_ours() -> None:
    """Nobody knows which of them was meant."""
    with pytest.raises(Malformed):
        filling.read({"name": ["a", "b"]}, NewSchedule)
