"""A workflow has another agent do something: one that is really there, over a real connection."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from millstream import AgentReply, Client, Context, RetryPolicy, RunFailed, Workflows
from millstream.errors import AgentRejected, ConfigError
from millstream.events import AgentDiscovered, Event, MessageSent
from millstream.model.journal import RecordStatus, StepKind
from millstream.store import catalogues
from millstream_worker.agents.caller import AgentCaller
from millstream_worker.agents.declared import parse_agents
from millstream_worker.described import describe
from millstream_worker.embedded import EmbeddedWorker, FunctionModels, FunctionTools
from tests.gateway.between import Between, between
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served, served, worker_of

theirs = Workflows()
ours = Workflows()
SOON = RetryPolicy(max_attempts=4, initial=0.01)


@theirs.workflow()
async def add(ctx: Context, a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@theirs.workflow()
async def ask(ctx: Context, what: str) -> str:
    """Ask how many."""
    return f"{await ctx.wait_signal('count')} {what}"


@theirs.workflow()
async def naps(ctx: Context, seconds: float) -> str:
    """Take a while."""
    await ctx.sleep(seconds)
    return "done"


@theirs.workflow()
async def fails(ctx: Context) -> None:
    """Fail, once."""
    raise ValueError("no")


@ours.workflow(retry=RetryPolicy(max_attempts=1))
async def asks(
    ctx: Context, agent: str, message: Any, skill: str | None = None, timeout: float | None = None
) -> dict[str, Any]:
    """Have an agent do something."""
    reply = await ctx.agent(agent, message, skill=skill, retry=SOON, timeout=timeout)
    return {"state": reply.state, "data": reply.data, "text": reply.text, "agent": reply.agent}


@ours.workflow()
async def talks(ctx: Context, count: int) -> str:
    """Answer what an agent asks."""
    reply: AgentReply = await ctx.agent("them", "pies", skill="ask")
    assert reply.asks
    done = await ctx.agent("them", count, reply_to=reply)
    assert (done.completed, done.task) == (True, reply.task)
    return done.text


@pytest.fixture
async def them(issuer: Issuer, memory_url: str) -> AsyncIterator[Served]:
    """The other agent."""
    async with served(memory_url, issuer) as gateway, worker_of(gateway.store, theirs):
        data = catalogues.note(describe(theirs))
        await catalogues.publish(gateway.connection, "default", data, 600)
        yield gateway


@pytest.fixture
async def way(them: Served) -> AsyncIterator[Between]:
    """The way to it."""
    async with between(them.url) as way:
        yield way


class Us:
    """Our own store, and workers that call the other agent."""

    def __init__(
        self, store: str, client: Client, caller: AgentCaller, events: list[Event]
    ) -> None:
        self.store, self.client, self.caller, self.events = store, client, caller, events

    def worker(self) -> EmbeddedWorker:
        """A worker that is to be started."""
        return EmbeddedWorker(
            self.store, ours, lambda _: None, FunctionTools({}), FunctionModels({}),
            agents=self.caller,
        )  # fmt: skip

    async def run(self, workflow: str, arguments: dict[str, Any]) -> Any:
        """What a run returns, with a worker that runs it."""
        run = await self.client.enqueue(workflow, arguments)
        worker = self.worker()
        failed: RunFailed | None = None
        async with anyio.create_task_group() as group:
            await worker.start(group)
            try:
                found = await run.result(20)
            except RunFailed as error:
                failed = error
            worker.crash()
            group.cancel_scope.cancel()
        if failed is not None:
            raise failed
        return found


@asynccontextmanager
async def us(url: str, token: str, **declared: Any) -> AsyncIterator[Us]:
    """Ourselves, with one agent declared."""
    entry = {"url": url, "headers": {"Authorization": f"Bearer {token}"}, "allowPrivate": True}
    specs = parse_agents({"agents": {"them": {**entry, **declared}}})
    store = f"memory://ours-{time.monotonic_ns()}"
    events: list[Event] = []
    async with (
        AgentCaller(specs, emit=events.append, mono=time.monotonic) as caller,
        Client(store) as client,
    ):
        yield Us(store, client, caller, events)


async def test_a_workflow_gets_what_another_agent_brings_about(them: Served, way: Between) -> None:
    """By its name, its address or a skill; and it is journaled as one step."""
    async with us(way.url, them.token) as we:
        by_name = await we.run(
            "asks", {"agent": "them", "message": {"a": 2, "b": 5}, "skill": "add"}
        )
        by_url = await we.run(
            "asks", {"agent": way.url, "message": {"a": 1, "b": 1}, "skill": "add"}
        )
        by_skill = await we.run(
            "asks", {"agent": "naps", "message": [{"seconds": 0}], "skill": "naps"}
        )
        failed = await we.run("asks", {"agent": "them", "message": {}, "skill": "fails"})

    assert by_name == {"state": "completed", "data": 7, "text": "", "agent": "them"}
    assert (by_url["data"], by_skill["text"]) == (2, "done")
    # That it failed is an answer too.
    assert (failed["state"], failed["text"]) == ("failed", "ValueError: no")
    assert way.asked.count("/.well-known/agent-card.json") == 1
    assert [e.recipient for e in we.events if isinstance(e, MessageSent)] == ["them"] * 4
    found = [(e.capability, e.status) for e in we.events if isinstance(e, AgentDiscovered)]
    assert found == [("naps", "found")]


@pytest.mark.slow
async def test_a_question_of_the_agent_is_answered(them: Served, way: Between) -> None:
    """The task comes back when it asks, and goes on with the answer."""
    async with us(way.url, them.token) as we:
        assert await we.run("talks", {"count": 3}) == "3 pies"
    assert way.sent == 2


@pytest.mark.slow
async def test_a_task_that_takes_its_time_is_waited_for(them: Served, way: Between) -> None:
    """Parked, with its task in the journal; and given up in time, where that is wanted."""
    async with us(way.url, them.token) as we:
        found = await we.run(
            "asks", {"agent": "them", "message": {"seconds": 0.6}, "skill": "naps"}
        )
        assert found["text"] == "done"
        with pytest.raises(RunFailed, match="AgentTimeout"):
            await we.run(
                "asks",
                {"agent": "them", "message": {"seconds": 60}, "skill": "naps", "timeout": 0.3},
            )
    assert way.sent == 2


@pytest.mark.slow
@pytest.mark.parametrize("resend", [False, True])
async def test_a_lost_answer_is_found_again(them: Served, way: Between, resend: bool) -> None:
    """By the conversation, without sending twice; or by sending, to one that drops repetitions."""
    way.lose = 1
    async with us(way.url, them.token, resend=resend) as we:
        found = await we.run("asks", {"agent": "them", "message": {"a": 2, "b": 5}, "skill": "add"})
    assert found["data"] == 7
    assert way.sent == (2 if resend else 1)
    assert len(await them.client.list()) == 1


async def test_a_worker_that_dies_sends_nothing_twice(them: Served, way: Between) -> None:
    """The next one finds the task of a message whose answer nobody wrote down."""
    async with us(way.url, them.token) as we, anyio.create_task_group() as group:
        first, second = we.worker(), we.worker()
        dead = anyio.Event()

        def die() -> None:
            first.crash()
            dead.set()

        way.delivered = die
        run = await we.client.enqueue(
            "asks", {"agent": "them", "message": {"a": 2, "b": 5}, "skill": "add"}
        )
        await first.start(group)
        await dead.wait()
        way.delivered = lambda: None
        ((_, intent),) = (await we.client.journal(run)).items()
        assert (intent.kind, intent.status) == (StepKind.AGENT, RecordStatus.INTENT)
        await first.bury(we.client._connection)
        await second.start(group)
        assert (await run.result(20))["data"] == 7
        second.crash()
        group.cancel_scope.cancel()
    assert way.sent == 1
    assert way.asked.count("ListTasks") == 1


@pytest.mark.slow
async def test_an_agent_that_will_not_take_it_is_asked_again(them: Served, way: Between) -> None:
    """What it says that it did not take is sent again; what it refuses is not."""
    way.refuse = [503, 429]
    async with us(way.url, them.token) as we:
        found = await we.run("asks", {"agent": "them", "message": {"a": 2, "b": 5}, "skill": "add"})
        assert found["data"] == 7
        assert way.sent == 1
        with pytest.raises(RunFailed, match="AgentRejected"):
            await we.run("asks", {"agent": "them", "message": "x", "skill": "nothing"})
        way.refuse = [503] * 9
        with pytest.raises(RunFailed, match="AgentNotReached"):
            await we.run("asks", {"agent": "them", "message": "x", "skill": "add"})
    async with us("http://127.0.0.1:9", them.token) as we:
        with pytest.raises(RunFailed, match="AgentNotReached"):
            await we.run("asks", {"agent": "them", "message": "x"})


@pytest.mark.slow
async def test_nobody_is_called_who_is_not_declared(
    them: Served, way: Between, issuer: Issuer
) -> None:
    """Whatever a workflow, or a card, says."""
    async with us(way.url, them.token) as we:
        for wanted in ("others", "https://evil.example", them.url, "translate"):
            with pytest.raises(RunFailed, match="no declared agent"):
                await we.run("asks", {"agent": wanted, "message": "x"})
    async with served(
        f"memory://far-{time.monotonic_ns()}", issuer,
        public_url="http://169.254.169.254/x", a2a_discovery=True,
    ) as far, us(far.url, "") as we:  # fmt: skip
        with pytest.raises(AgentRejected, match="others are not called"):
            await we.caller.task("them", "x")
    async with us(way.url, them.token, allowPrivate=True) as we:
        assert them.token not in repr(we.caller._specs)


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ({}, "url"),
        ({"url": "http://a.example"}, "https://"),
        ({"url": "https://a.example", "ulr": 1}, "is not an option"),
        ({"url": "https://a.example", "headers": {"A": "${env:NOT_SET_AT_ALL}"}}, "NOT_SET_AT_ALL"),
        ({"url": "https://a.example", "skills": "x"}, "list"),
    ],
)
def test_a_wrong_file_is_told_at_start(entry: dict[str, Any], wrong: str) -> None:
    """In one line that names the place, and shows no secret."""
    with pytest.raises(ConfigError, match=wrong):
        parse_agents({"agents": {"a": entry}})
