"""``runs cancel``, ``retry``, ``fork`` and ``list``, and ``queues pause``: many at once, safely."""

from __future__ import annotations

from tests.cli.inside import Inside


def enqueue(inside: Inside, *names: str, workflow: str = "mail") -> None:
    for name in names:
        assert inside("enqueue", workflow, "--id", name).code == 0


def test_nothing_is_done_to_many_without_a_word(inside: Inside) -> None:
    """Shown, asked about, and only what was meant."""
    enqueue(inside, "a", "b")
    enqueue(inside, "c", workflow="sms")

    dry = inside("runs", "cancel", "--all", "--workflow", "mail", "--dry-run")
    assert dry.out.splitlines()[-1] == "2 in all; nothing was done"
    refused = inside("runs", "cancel", "--all", "--workflow", "mail")
    assert refused.code == 2
    assert "Cancel 2 runs? " in refused.err
    assert "add --yes" in refused.err
    assert "Cancel 1 run? " in inside("runs", "cancel", "--all", "--workflow", "sms").err
    assert inside("runs", "cancel", "a", "--workflow", "mail").code == 2
    assert inside("runs", "cancel").code == 2

    done = inside("runs", "cancel", "--all", "--workflow", "mail", "--yes", "--json")
    assert done.json == {"done": {"cancelled": 2}}
    assert inside("runs", "cancel", "--all", "--workflow", "mail", "--yes").err == (
        "note: no runs match\n"
    )
    queued = inside("runs", "list", "--state", "queued", "--json").json["runs"]
    assert [run["id"] for run in queued] == ["c"]


def test_many_are_started_again(inside: Inside) -> None:
    enqueue(inside, "a", "b")
    inside("runs", "cancel", "a", "b")

    assert inside("runs", "retry", "--all", "--yes").err == "note: no runs match\n"
    again = inside("runs", "retry", "--all", "--state", "cancelled", "--since", "1h", "-y")
    assert again.out == "2 queued\n"
    assert inside("runs", "retry", "--all", "--since", "yesterday").code == 2


def test_runs_are_chosen_by_their_attributes(inside: Inside) -> None:
    """A support desk knows a customer, and no id."""
    for run_id, customer in (("a", "42"), ("b", "42"), ("c", "7")):
        inside(
            "enqueue", "add", "--id", run_id, "--attribute", f"customer={customer}", "--attribute",
            "by=desk", "--force",
        )  # fmt: skip

    found = inside("runs", "list", "--attribute", "customer=42", "--json").json["runs"]
    assert {run["id"] for run in found} == {"a", "b"}
    assert found[0]["attributes"] == {"by": "desk", "customer": "42"}
    assert "customer=42" in inside("runs", "list", "-o", "wide").out
    assert "customer=42" in inside("runs", "show", "a").out
    wanted = ("--all", "--attribute", "customer=42", "--attribute", "by=desk", "--yes")
    assert inside("runs", "cancel", *wanted).out == "2 cancelled\n"
    assert inside("runs", "list", "--attribute", "customer").code == 2
    assert inside("enqueue", "add", "--attribute", "a b=1", "--force").code == 2


def test_a_list_goes_on_page_by_page(inside: Inside) -> None:
    enqueue(inside, "a", "b")
    inside("runs", "cancel", "a")

    page = inside("runs", "list", "--after", "first", "-n", "1", "--json").json
    found = [run["id"] for run in page["runs"]]
    while page["next"]:
        page = inside("runs", "list", "--after", page["next"], "-n", "1", "--json").json
        found += [run["id"] for run in page["runs"]]
    assert set(found) == {"a", "b"}
    assert inside("runs", "list", "--after", "zzz").code == 2


def test_a_queue_is_paused_and_goes_on(inside: Inside) -> None:
    assert inside("queues", "pause", "default").out == "queue default is paused\n"
    assert inside("queues", "--json").json["queues"][0]["paused"] is True
    assert "paused" in inside("queues").out
    assert inside("queues", "resume", "default").out == "queue default goes on\n"
    assert inside("queues", "resume", "default").out == "queue default was not paused\n"


def test_a_fork_from_nowhere_is_refused(inside: Inside) -> None:
    enqueue(inside, "a")

    refused = inside("runs", "fork", "a", "--from", "nowhere")
    assert refused.code == 4
    assert "has no record of step 'nowhere'" in refused.err
    assert len(inside("runs", "list", "--json").json["runs"]) == 1
