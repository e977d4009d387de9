"""The pages of whoever operates: questions, schedules, models, a run and what belongs to it."""

from __future__ import annotations

import re

import msgspec
import pytest

from millstream import Schedule
from millstream.events import OperatorActed
from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.run import RunState, RunStatus, Times
from millstream.store import boards
from millstream_gateway.dashboard import timeline
from millstream_gateway.dashboard.flow import Flow, Pace
from tests.cli.test_models import NOTE
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served
from tests.gateway.test_pages import browser, text, token_of


async def test_a_run_is_linked_up_and_down(working: Served) -> None:
    """From a parent to its child and back, after both have ended."""
    await working.post("/runs", {"workflow": "parent", "id": "r1"})
    await working.get("/runs/r1/result?wait=20")
    async with browser(working, working.token) as http:
        above = await text(http, f"{working.url}/runs/r1")
        below = await text(http, f"{working.url}/runs/kid?queue=default")

    assert 'href="/runs/kid?queue=default"' in above
    assert 'href="/runs/r1?queue=default"' in below
    assert 'class="bar"' in above


async def test_a_call_shows_what_was_sent_and_its_doubt_is_resolved(working: Served) -> None:
    """Without its secrets; from the run's page and from that of the questions."""
    for run_id in ("r1", "r2"):
        await working.post("/runs", {"workflow": "pays", "id": run_id})
        await working.parked(run_id) if run_id == "r1" else None
    async with browser(working, working.token) as http:
        page = await text(http, f"{working.url}/runs/r1")
        asked = await text(http, f"{working.url}/questions")
        data = {"token": token_of(page), "step": "bank/pay#0", "verdict": "fail"}
        async with http.post(f"{working.url}/runs/r1/resolve?queue=default", data=data) as answer:
            assert answer.status == 200

    assert ("Called with" in page, "hunter2" in page) == (True, False)
    assert "&#34;sum&#34;: 5" in page
    assert "Call it again" in page
    assert ("may have run" in asked, "bank/pay" in asked) == (True, True)
    assert (await working.get("/runs/r1/result?wait=20"))[1]["error"]["cause"] == "OutcomeUnknown"


async def test_a_question_is_answered_from_its_page(working: Served, issuer: Issuer) -> None:
    """By whoever may; a viewer sees it and finds no button."""
    await working.post("/runs", {"workflow": "asks", "id": "r1"})
    await working.parked("r1")
    async with browser(working, issuer.token("viewer")) as http:
        seen = await text(http, f"{working.url}/questions?queue=default")
    async with browser(working, working.token) as http:
        page = await text(http, f"{working.url}/questions?queue=default")
        run = await text(http, f"{working.url}/runs/r1")
        data = {
            "token": token_of(page), "question": "approve:prod", "approved": "true", "comment": "",
        }  # fmt: skip
        async with http.post(f"{working.url}/runs/r1/answer?queue=default", data=data) as answer:
            assert answer.status == 200

    assert ("Deploy?" in seen, "Approve" in seen, "hunter2" in seen) == (True, False, False)
    assert "Approve</button>" in page
    assert "Approve</button>" in run
    _, end = await working.get("/runs/r1/result?wait=20")
    assert end["result"] == [True, "token:alice", None]


async def test_a_run_is_forked_from_its_page(working: Served) -> None:
    """And the page of the new run says where it comes from."""
    arguments = {"a": 1, "note": "x", "api_key": "k"}
    await working.post("/runs", {"workflow": "shows", "arguments": arguments, "id": "r1"})
    await working.get("/runs/r1/result?wait=20")
    async with browser(working, working.token) as http:
        page = await text(http, f"{working.url}/runs/r1")
        found = re.search(r'aria-label="Fork from ([^"]+)"', page)
        assert found is not None
        data = {"token": token_of(page), "step": found[1]}
        async with http.post(f"{working.url}/runs/r1/fork?queue=default", data=data) as answer:
            forked = await answer.text()
        data = {"token": token_of(page), "step": "nothing"}
        async with http.post(f"{working.url}/runs/r1/fork?queue=default", data=data) as answer:
            assert answer.status == 404

    assert ("Forked from" in forked, 'href="/runs/r1?queue=default"' in forked) == (True, True)


async def test_schedules_are_shown_and_turned(gateway: Served, issuer: Issuer) -> None:
    """With their next times; whoever may not turn them finds no button."""
    await gateway.client.schedules.create(Schedule("nightly", "add", {"a": 1}, cron="30 2 * * *"))
    await gateway.client.schedules.create(Schedule("poll", "add", {"a": 1}, every=30))
    async with browser(gateway, issuer.token("viewer", tenant="*")) as http:
        assert "<button" not in (await text(http, f"{gateway.url}/schedules")).partition("<main")[2]
    async with browser(gateway, gateway.token) as http:
        page = await text(http, f"{gateway.url}/schedules")
        data = {"token": token_of(page)}
        for verb, expected in (
            ("pause", "Resume nightly"), ("resume", "Pause nightly"), ("trigger", "Run nightly@"),
            ("delete", "poll"),
        ):  # fmt: skip
            async with http.post(f"{gateway.url}/schedules/nightly/{verb}", data=data) as answer:
                assert expected in await answer.text(), verb

    assert ("30 2 * * *" in page, "every 30 s" in page) == (True, True)
    assert re.search(r"\d{4}-\d\d-\d\d 02:30:00 UTC, in ", page)
    assert [each.name for each in await gateway.client.schedules.list()] == ["poll"]
    assert {x.action for x in gateway.of(OperatorActed)} == {
        f"{verb} schedule" for verb in ("pause", "resume", "trigger", "delete")
    }


async def test_devices_are_shown_with_their_budgets(gateway: Served, issuer: Issuer) -> None:
    """What workers say; what one of another release says is passed over."""
    await boards.pin(gateway.connection, boards.MODELS, "w1", msgspec.json.encode(NOTE), 60)
    await boards.pin(gateway.connection, boards.MODELS, "w2", b'{"odd": 1}', 60)
    async with browser(gateway, gateway.token) as http:
        page = await text(http, f"{gateway.url}/models")
    viewer = issuer.token("viewer")
    async with browser(gateway, viewer) as http, http.get(f"{gateway.url}/models") as answer:
        assert answer.status == 403

    for shown in ("64.0 GiB", "60.0 GiB", "1.0 GiB", "50.0 MiB", "remote, 3 of 16", "kept"):
        assert shown in page, shown
    assert page.count("<meter") == 1


async def test_a_queue_is_paused_from_the_overview(gateway: Served, issuer: Issuer) -> None:
    """And goes on again; who acts for one tenant finds no button."""
    async with browser(gateway, issuer.token("admin", tenant="acme")) as http:
        assert "Pause" not in await text(http, f"{gateway.url}/")
    async with browser(gateway, gateway.token) as http:
        data = {"token": token_of(await text(http, f"{gateway.url}/"))}
        for verb, state in (("pause", True), ("resume", False)):
            async with http.post(f"{gateway.url}/queues/other/{verb}", data=data) as answer:
                assert ("Resume other" in str(await answer.read())) is state
            assert (await gateway.client.depth("other")).paused is state


async def test_dead_letters_that_match_are_replayed_from_their_page(working: Served) -> None:
    """All of them at once, by the filter that is shown; choosing none does nothing."""
    for n in range(2):
        await working.post("/runs", {"workflow": "fails", "id": f"f{n}"})
        await working.get(f"/runs/f{n}/result?wait=20")
    async with browser(working, working.token) as http:
        page = await text(http, f"{working.url}/dead?cause=ValueError&workflow=")
        none = await text(http, f"{working.url}/dead?cause=KeyError")
        url = f"{working.url}/dead/replay?queue=default"
        async with http.post(url, data={"token": token_of(page)}) as answer:
            assert answer.status == 200
        assert working.of(OperatorActed) == []
        data = {"token": token_of(page), "all": "true", "cause": "ValueError", "workflow": ""}
        async with http.post(url, data=data) as answer:
            assert answer.status == 200

    assert ("f0" in page, "f1" in page, "There are none" in none) == (True, True, True)
    acts = [(x.action, x.run_id) for x in working.of(OperatorActed)]
    assert acts == [("replay many", "2 runs")]


def test_a_pace_is_taken_from_what_was_seen() -> None:
    """Between two looks; nothing is known at once, or when Redis has forgotten."""
    now = [0.0]
    flow = Flow(lambda: now[0])

    assert flow.look("q", 100, 90) is None
    now[0] = 10.0
    assert flow.look("q", 150, 110) == Pace(5.0, 2.0)
    assert flow.look("other", 5, 5) is None
    now[0] = 100.0
    assert flow.look("q", 240, 200) == Pace(1.0, 1.0)  # since ten seconds, not since the beginning
    now[0] = 102.0
    assert flow.look("q", 3, 3) is None


@pytest.mark.parametrize("ended", [None, 20.0])
def test_bars_lie_where_steps_lay(ended: float | None) -> None:
    """In per cent of the run, never outside it, never too narrow to be seen."""
    status = RunStatus(
        id="r", state=RunState.COMPLETED if ended else RunState.RUNNING, attempt=1, workflow="w",
        version="1", error=None, times=Times(enqueued=5.0, started=10.0, ended=ended),
    )  # fmt: skip
    journal = {
        "b#0": Record(StepKind.STEP, "b", "", RecordStatus.OK, 1, began=15.0, took_s=2.5),
        "a#0": Record(StepKind.STEP, "a", "", RecordStatus.OK, 1, began=10.0, took_s=0.0),
        "late": Record(
            StepKind.SLEEP, "late", "", RecordStatus.WAITING, 99.0, began=20.0, took_s=9
        ),
    }

    drawn = timeline.drawn(status, journal, 20.0)

    assert [line.step.key for line in drawn.lines] == ["a#0", "b#0", "late"]
    assert [(line.left, line.width) for line in drawn.lines] == [(0, 0.5), (50, 25), (99.5, 0.5)]
    assert drawn.length_s == 10
