"""The commands of ``millstream runs`` that say something to a run that waits for it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

import msgspec
import typer

from millstream.cli.access import ago, client_of, located, span
from millstream.cli.flags import ClientConfig, command
from millstream.cli.output import Listing, Output, Row
from millstream.errors import UsageError

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the run.")]
Question = Annotated[
    str | None,
    typer.Argument(metavar="[KEY]", help="Key or token of the question; or the only one."),
]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who answers.")]
Comment = Annotated[str | None, typer.Option("--comment", metavar="TEXT", help="And why.")]

_COLUMNS = ("ID", "WORKFLOW", "KEY", "QUESTION", "AGE", "LEFT")


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command("signal")(signal)
    group.command("resolve")(resolve)
    group.command("approvals")(approvals)
    group.command("approve")(approve)
    group.command("reject")(reject)
    group.command("answer")(answer)


@command(ClientConfig)
async def signal(
    *,
    config: ClientConfig,
    out: Output,
    id: Id,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the signal.")],
    payload: Annotated[
        str, typer.Argument(metavar="[JSON]", help="What it says; a value of JSON.")
    ] = "null",
    signal_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Taken once, however often sent.")
    ] = None,
) -> None:
    """Send a run a signal. It is kept until the run takes it."""
    value = json_of(payload, "JSON")
    async with client_of(config) as client:
        run, _ = await located(client, config, id)
        await run.signal(name, value, id=signal_id)

    out.say(f"{id} has signal {name!r}")
    if out.json:
        out.document({"id": id, "signal": name})


@command(ClientConfig)
async def resolve(
    *,
    config: ClientConfig,
    out: Output,
    id: Id,
    step: Annotated[str, typer.Argument(metavar="STEP", help="Key of the step, as shown.")],
    retry: Annotated[bool, typer.Option("--retry", help="Send the call again.")] = False,
    fail: Annotated[bool, typer.Option("--fail", help="Give the call up.")] = False,
    result: Annotated[
        str | None, typer.Option("--result", metavar="JSON", help="What the call answered.")
    ] = None,
) -> None:
    """Say what became of a tool call whose outcome nobody knows."""
    if retry + fail + (result is not None) != 1:
        raise UsageError("say what became of the call: --retry, --fail or --result JSON")

    answer = {"result": json_of(result, "--result")} if result is not None else ""
    async with client_of(config) as client:
        run, _ = await located(client, config, id)
        await run.resolve(step, answer or ("retry" if retry else "fail"))

    out.say(f"{id} {step} resolved")
    if out.json:
        out.document({"id": id, "step": step})


@command(ClientConfig)
async def approvals(
    *,
    config: ClientConfig,
    out: Output,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=10_000, help="At most so many.")
    ] = 50,
) -> None:
    """List the questions that parked runs wait for the answer to, the oldest first."""
    async with client_of(config) as client:
        found = [
            question
            for queue in dict.fromkeys(config.queue)
            for question in await client.approvals(queue, limit=limit)
        ]
    found.sort(key=lambda question: question.asked)
    rows = [
        Row(
            f"{each.run_id} {each.key}",
            [each.run_id, each.workflow, each.key, each.question, ago(each.asked), _left(each.due)],
            asdict(each),
        )
        for each in found[:limit]
    ]
    out.listing(Listing("approvals", _COLUMNS, rows))


@command(ClientConfig)
async def approve(
    *,
    config: ClientConfig,
    out: Output,
    id: Id,
    question: Question = None,
    by: By = None,
    comment: Comment = None,
) -> None:
    """Answer a question with yes."""
    await _answer(config, out, id, question, approved=True, by=by, comment=comment)


@command(ClientConfig)
async def reject(
    *,
    config: ClientConfig,
    out: Output,
    id: Id,
    question: Question = None,
    by: By = None,
    comment: Comment = None,
) -> None:
    """Answer a question with no."""
    await _answer(config, out, id, question, approved=False, by=by, comment=comment)


@command(ClientConfig)
async def answer(
    *,
    config: ClientConfig,
    out: Output,
    id: Id,
    content: Annotated[
        str, typer.Argument(metavar="JSON", help="What the form asks for; an object.")
    ],
    question: Question = None,
) -> None:
    """Give a tool what it asks for. `runs approvals --json` shows its form."""
    value = json_of(content, "JSON")
    if not isinstance(value, dict):
        raise UsageError(f'JSON {content!r} is no object; a form wants {{"NAME": VALUE}}')
    async with client_of(config) as client:
        run, _ = await located(client, config, id)
        await run.answer(value, question)

    out.say(f"{id} answered")
    if out.json:
        out.document({"id": id, "answered": True})


async def _answer(
    config: ClientConfig,
    out: Output,
    id: str,
    question: str | None,
    *,
    approved: bool,
    by: str | None,
    comment: str | None,
) -> None:
    async with client_of(config) as client:
        run, _ = await located(client, config, id)
        await run.approve(question, approved, by=by, comment=comment)

    out.say(f"{id} {'approved' if approved else 'rejected'}")
    if out.json:
        out.document({"id": id, "approved": approved})


def _left(due: float | None) -> str:
    return "-" if due is None else span(max(0.0, due - time.time()))


def json_of(text: str, what: str) -> Any:
    """Return a value that was written as JSON. Raises `UsageError`."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError(f"{what} {text!r} is no JSON ({error}); a text needs its quotes") from None
