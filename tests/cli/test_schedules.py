"""``schedules``: made, shown, paused, triggered and deleted from a shell."""

from __future__ import annotations

import os

from millstream import SyncClient
from tests.cli.inside import Inside


def test_a_schedule_from_its_beginning_to_its_end(inside: Inside) -> None:
    made = inside(
        "schedules", "create", "nightly", "report", "--cron", "30 2 * * *",
        "--timezone", "Europe/Berlin", "-a", "day=1", "--overlap", "queue", "--json",
    )  # fmt: skip
    assert made.code == 0, made.err
    assert (made.json["state"], made.json["arguments"]) == ("active", {"day": 1})
    assert len(made.json["upcoming"]) == 5

    lines = inside("schedules", "list").out.splitlines()
    assert lines[0].split()[:5] == ["NAME", "WORKFLOW", "WHEN", "ZONE", "STATE"]
    assert " 02:30:00+0" in lines[1]
    assert "overlap    queue" in inside("schedules", "show", "nightly").out

    assert inside("schedules", "pause", "nightly", "no-such").code == 4
    assert inside("schedules", "show", "nightly", "--json").json["state"] == "paused"
    run = inside("schedules", "trigger", "nightly").out.strip()
    assert inside("runs", "show", run, "--json").json["run"]["workflow"] == "report"
    assert "fires next at" in inside("schedules", "resume", "nightly").out
    assert inside("schedules", "delete", "nightly", "--json").json == {"schedules": ["nightly"]}
    assert inside("schedules", "list", "--json").json == {"schedules": []}


def test_what_cannot_be_is_one_line(inside: Inside) -> None:
    """Said before anything is written, with what to do instead."""
    for flags, said in [
        (["--cron", "0 0 30 2 *"], "cron line '0 0 30 2 *' cannot be read"),
        (["--cron", "@daily", "--timezone", "Mars/Olympus"], "use an IANA name"),
        (["--every", "0.1"], "must be 1 s to ten years"),
        (["--cron", "@daily", "--start", "tomorrow"], "write it as 2026-12-24T18:00"),
        ([], "either a cron line or an interval"),
    ]:
        answer = inside("schedules", "create", "bad", "report", *flags)
        assert answer.code == 2
        assert len(answer.lines) == 1
        assert said in answer.err

    assert inside("schedules", "list", "--json").json == {"schedules": []}


def test_the_doctor_misses_the_scheduler(inside: Inside) -> None:
    """Schedules without a scheduler are the usual reason why nothing happens at night."""
    inside("schedules", "create", "nightly", "report", "--every", "60")
    with SyncClient(os.environ["MILLSTREAM_REDIS"]) as client:
        redis = client._parts()[1]._connection.client
        key = "millstream:{schedules}:schedule:nightly"
        client._parts()[0].call(redis.hset, key, "progress", '{"next": 1000}')
        client._parts()[0].call(redis.zadd, "millstream:{schedules}:due", {"nightly": 1})
    inside("queues", "pause", "default")

    said = inside("doctor").out
    assert "nightly should have fired" in said
    assert "-> millstream scheduler" in said
    assert "-> millstream queues resume default" in said


def test_those_of_an_application_are_applied(inside: Inside) -> None:
    (inside.directory / "planned.py").write_text(
        "from millstream import Context, Workflows\n"
        "app = Workflows()\n"
        "app.schedule('hourly', 'report', every=3600)\n"
        "@app.workflow()\n"
        "async def report(ctx: Context) -> None: ...\n"
    )

    assert inside("schedules", "apply", "planned:app").out == "hourly created\n"
    assert inside("schedules", "apply", "planned:app").out == "hourly unchanged\n"
