"""The workflows as an agent, called by the official A2A client over each binding."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from a2a.client.errors import A2AClientError
from a2a.types.a2a_pb2 import GetExtendedAgentCardRequest, Part, TaskState
from a2a.utils.errors import (
    ContentTypeNotSupportedError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from millstream import Context, Workflows
from millstream.events import MessageReceived, OperatorActed
from millstream.store import catalogues
from millstream_gateway.a2a.intake import Intake
from millstream_worker.described import describe
from tests.gateway.agents import BINDINGS, Peer, peer, plain, request_of, states
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served, served, worker_of

app = Workflows()


@app.workflow()
async def add(ctx: Context, a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


@app.workflow()
async def greet(ctx: Context, name: str, greeting: str = "Hello") -> str:
    """Greet somebody."""
    ctx.emit("thinking", {"of": name})
    ctx.emit("artifact", {"artifactId": "notes", "parts": [{"text": "n1"}], "lastChunk": False})
    ctx.emit("artifact", {"artifactId": "notes", "parts": [{"text": "n2"}], "append": True})
    return f"{greeting}, {name}"


@app.workflow()
async def order(ctx: Context, what: str) -> dict[str, Any]:
    """Ask how many, then whether, then do it."""
    count = await ctx.wait_signal("count")
    answer = await ctx.approve(f"{count} of {what}?")
    return {"what": what, "count": count, "approved": answer.approved, "by": answer.by}


@app.workflow()
async def counts(ctx: Context) -> str:
    """Say something before and after an answer."""
    ctx.emit("artifact", {"artifactId": "before", "parts": [{"text": "b"}]})
    await ctx.wait_signal("go")
    ctx.emit("thinking", 1)
    ctx.emit("artifact", {"artifactId": "after", "parts": [{"text": "a"}]})
    return "done"


@app.workflow()
async def copies(ctx: Context, files: list[dict[str, Any]], note: str = "") -> list[Any]:
    """Give files back as artifacts, and return what came."""
    for file in files:
        content: dict[str, Any] = {name: file[name] for name in ("raw", "url") if name in file}
        part = {**content, "filename": file["name"], "mediaType": file["mediaType"]}
        ctx.emit("artifact", {"artifactId": file["name"], "parts": [part]})
    return [note, files, await ctx.wait_signal("more")]


@app.workflow()
async def decides(ctx: Context) -> bool:
    """Ask a person."""
    return (await ctx.approve("go on?")).approved


@app.workflow()
async def fails(ctx: Context) -> None:
    """Fail, once."""
    raise ValueError("the tide is out")


@app.workflow()
async def waits(ctx: Context) -> None:
    """Wait for a long time."""
    await ctx.sleep(3600)


@app.workflow()
async def keeps(ctx: Context, message: dict[str, Any], files: list[dict[str, Any]]) -> list[Any]:
    """Tell what came in which place."""
    return [message["parts"], [each["name"] for each in files]]


@app.workflow()
async def hears(ctx: Context, message: dict[str, Any]) -> str:
    """Return the id of the message that began it."""
    return str(message["messageId"])


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    """Signs tokens that the gateway takes."""
    return Issuer(tmp_path_factory.mktemp("a2a") / "keys.json")


@pytest.fixture(scope="module")
async def gateway(issuer: Issuer) -> AsyncIterator[Served]:
    """A gateway that speaks gRPC too, with a worker that has said what it serves.

    All tests share it: each has conversations of its own.
    """
    url = "memory://a2a"
    async with served(url, issuer, grpc=0) as gateway, worker_of(gateway.store, app):
        data = catalogues.note(describe(app))
        for queue in ("default", "other"):
            await catalogues.publish(gateway.connection, queue, data, 600)
        yield gateway


#: One binding is looked at each time, all of them among the proofs: behind them is one agent.
_EACH = [BINDINGS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in BINDINGS[1:])]


@pytest.fixture(scope="module", params=_EACH)
async def agent(gateway: Served, request: pytest.FixtureRequest) -> AsyncIterator[Peer]:
    """Another agent, in each binding in turn."""
    async with peer(gateway.url, request.param, gateway.token) as found:
        yield found


def data_of(task: dict[str, Any]) -> Any:
    """The value of a task's result."""
    (artifact,) = [each for each in task["artifacts"] if each["artifactId"] == "result"]
    (part,) = artifact["parts"]
    return part.get("data", part.get("text"))


async def test_a_message_starts_a_workflow_and_brings_its_result(agent: Peer) -> None:
    """Data are arguments by name; the result is an artifact; the message is in the history."""
    context = f"c1-{agent.binding}"
    task = await agent.send({"a": 2, "b": 5}, skill="add", message_id="m1", context=context)

    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert data_of(task) == 7
    assert task["contextId"] == context
    assert [each["messageId"] for each in task["history"]] == ["m1"]
    assert task["metadata"]["workflow"] == "add"
    fetched = await agent.get(task["id"])
    assert fetched == task
    assert "history" not in await agent.get(task["id"], history_length=0)


async def test_a_stream_tells_everything_in_its_order(agent: Peer) -> None:
    """The task first, then what the run says and brings about, then its end."""
    told = await agent.stream("Ada", skill="greet")

    assert [next(iter(each)) for each in told] == [
        "task", "statusUpdate", "artifactUpdate", "artifactUpdate", "artifactUpdate", "statusUpdate"
    ]  # fmt: skip
    assert states(told) == ["submitted", "working", "completed"]
    assert told[1]["statusUpdate"]["status"]["message"]["parts"][0]["data"]["name"] == "thinking"
    assert told[3]["artifactUpdate"]["append"] is True
    task = await agent.get(told[0]["task"]["id"])
    notes, result = task["artifacts"]
    assert [part["text"] for part in notes["parts"]] == ["n1", "n2"]
    assert result["parts"][0]["text"] == "Hello, Ada"


async def test_a_task_asks_and_is_answered(agent: Peer) -> None:
    """A signal and a person's question, each as a message; sent twice, each is heard once."""
    asked = await agent.send("pies", skill="order")
    assert asked["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    text, data = asked["status"]["message"]["parts"]
    assert text["text"] == "waits for count"
    assert data["data"]["asks"] == [{"answers": "count", "kind": "signal"}]

    answer = {"task": asked["id"], "message_id": "a1"}
    again = await agent.send({"n": 3}, **answer)
    assert again["status"]["message"]["parts"][0]["text"] == "{'n': 3} of pies?"
    assert (await agent.send({"n": 3}, **answer))["status"] == again["status"]

    told = await agent.stream("yes, gladly", task=asked["id"])
    assert states(told)[-1] == "completed"
    result = data_of(await agent.get(asked["id"]))
    assert result == {"what": "pies", "count": {"n": 3}, "approved": True, "by": "token:alice"}


async def test_what_an_answer_sets_off_is_told_however_soon_it_comes(
    agent: Peer, gateway: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the run has ended before the stream's first word; what was told before is not again."""
    asked = await agent.send({}, skill="counts")
    answer = Intake._answer

    async def slow(*args: Any) -> Any:
        taken = await answer(*args)
        await gateway.client.run(asked["id"]).result(20)
        return taken

    monkeypatch.setattr(Intake, "_answer", slow)
    told = await agent.stream("now", task=asked["id"], message_id="go")

    assert [each["artifactId"] for each in told[0]["task"]["artifacts"]] == ["before"]
    assert [each["messageId"] for each in told[0]["task"]["history"]][-1:] == ["go"]
    assert [next(iter(each)) for each in told[1:]] == [
        "statusUpdate", "artifactUpdate", "artifactUpdate", "statusUpdate"
    ]  # fmt: skip
    assert told[1]["statusUpdate"]["status"]["message"]["parts"][0]["data"]["name"] == "thinking"
    assert [each["artifactUpdate"]["artifact"]["artifactId"] for each in told[2:4]] == [
        "after", "result"
    ]  # fmt: skip
    assert states(told) == ["working", "completed"]
    # Sent again it sets off nothing, and is answered with how it is.
    (again,) = await agent.stream("now", task=asked["id"], message_id="go")
    assert again["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_the_same_message_is_the_same_task(agent: Peer, gateway: Served) -> None:
    """A client that lost the answer sends again, and nothing runs twice."""
    first = await agent.send({"a": 1}, skill="add", message_id=f"once-{agent.binding}")
    second = await agent.send({"a": 1}, skill="add", message_id=f"once-{agent.binding}")
    assert first == second
    told = gateway.of(MessageReceived)[-1]
    assert (told.kind, told.sender) == ("send", "token")
    other = await agent.send({"a": 2}, skill="add", message_id=f"once-{agent.binding}")
    assert (other["id"] != first["id"], data_of(other)) == (True, 3)
    assert len((await agent.list(context_id=first["contextId"]))["tasks"]) == 2


async def test_a_task_is_cancelled_by_whom_began_it(agent: Peer, gateway: Served) -> None:
    """Once; and it is audited."""
    task = await agent.send({}, skill="waits", wait=False)
    stopped = await agent.cancel(task["id"])
    assert stopped["status"]["state"] == "TASK_STATE_CANCELED"
    with pytest.raises(TaskNotCancelableError):
        await agent.cancel(task["id"])
    acts = [(act.action, act.run_id, act.outcome) for act in gateway.of(OperatorActed)]
    assert acts.count(("cancel", task["id"], "done")) == 1


async def test_what_cannot_be_done_is_said_in_the_words_of_the_protocol(agent: Peer) -> None:
    """Each mistake has its own error, the same in each binding."""
    done = await agent.send({"a": 1}, skill="add")
    for wrong in ("nobody", "other~nobody", "elsewhere~x", "~"):
        with pytest.raises(TaskNotFoundError):
            await agent.get(wrong)
    with pytest.raises(UnsupportedOperationError):
        await agent.send("more", task=done["id"])
    with pytest.raises(UnsupportedOperationError):
        await agent.subscribe(done["id"])
    with pytest.raises(InvalidParamsError, match="nothing"):
        await agent.send("x", skill="nothing")
    with pytest.raises(InvalidParamsError, match="names no skill"):
        await agent.send("x")
    with pytest.raises(InvalidParamsError, match="no one argument"):
        await agent.send("two", skill="add")
    request = request_of("x", skill="greet")
    request.message.parts[0].media_type = "image/png"
    with pytest.raises(ContentTypeNotSupportedError):
        _ = [each async for each in agent.client.send_message(request, context=agent.context)]


async def test_a_failed_run_is_a_failed_task(agent: Peer) -> None:
    """With what went wrong as a message."""
    task = await agent.send({}, skill="fails")
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert task["status"]["message"]["parts"][0]["text"] == "ValueError: the tide is out"


async def test_whoever_subscribes_sees_the_rest(agent: Peer, gateway: Served) -> None:
    """The task as it is, then what becomes of it, however often somebody comes and goes."""
    asked = await agent.send("pies", skill="order")
    told: list[dict[str, Any]] = []
    seen = anyio.Event()

    async def follow() -> None:
        async for each in agent.followed(asked["id"]):
            told.append(each)
            seen.set()

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await seen.wait()
        run = gateway.client.run(asked["id"])
        await run.signal("count", 2)
        again = await agent.get(asked["id"])
        while again["status"]["state"] != "TASK_STATE_INPUT_REQUIRED":
            again = await agent.get(asked["id"])
        while not (await gateway.client.questions(await run.status())):
            await anyio.sleep(0.01)
        await agent.send({"approved": False, "comment": "no"}, task=asked["id"])
    assert states(told)[0] == "input_required"
    assert states(told)[-1] == "completed"


async def test_tasks_are_listed_newest_first_in_pages(agent: Peer) -> None:
    """By conversation and state; a cursor goes on behind what was seen."""
    context = f"pages-{agent.binding}"
    made = [await agent.send({"a": n}, skill="add", context=context) for n in range(5)]
    found: list[str] = []
    token = ""
    for _ in range(3):
        page = await agent.list(context_id=context, page_size=2, page_token=token)
        assert page["totalSize"] == 5
        found += [task["id"] for task in page["tasks"]]
        assert all("artifacts" not in task for task in page["tasks"])
        token = page.get("nextPageToken", "")
    assert token == ""
    times = {task["id"]: task["status"]["timestamp"] for task in made}
    assert sorted(found) == sorted(times)
    assert [times[task] for task in found] == sorted(times.values(), reverse=True)
    failed = await agent.list(context_id=context, status=TaskState.TASK_STATE_FAILED)
    assert failed.get("tasks", []) == []
    with pytest.raises(InvalidParamsError):
        await agent.list(page_size=101)
    with pytest.raises(InvalidParamsError):
        await agent.list(page_token="bm9uZQ")


async def test_the_card_shows_a_skill_for_each_workflow(agent: Peer, gateway: Served) -> None:
    """And where it is spoken to; the schemas are for those who may start it."""
    skills = {skill.id: skill for skill in agent.card.skills}
    assert {"add", "greet", "other__add"} <= set(skills)
    assert skills["add"].description == "Add two numbers."
    assert [each.protocol_binding for each in agent.card.supported_interfaces] == list(BINDINGS)
    request = GetExtendedAgentCardRequest()
    extended = plain(await agent.client.get_extended_agent_card(request, context=agent.context))
    (extension,) = extended["capabilities"]["extensions"]
    assert extension["params"]["add"]["required"] == ["a"]


@pytest.mark.slow
async def test_a_caller_sees_and_does_what_its_role_and_tenant_allow(
    gateway: Served, issuer: Issuer
) -> None:
    """In each binding alike: the tenant is the token's, and what is not for it is not there."""
    ours = issuer.token("submitter", tenant="acme", sub="a")
    theirs = issuer.token("submitter", tenant="evil", sub="b")
    looks = issuer.token("viewer", tenant="acme", sub="c")
    for binding in BINDINGS:
        async with peer(gateway.url, binding, ours) as agent:
            task = await agent.send("pies", skill="order", message_id=f"m-{binding}")
            assert (await gateway.client.run(task["id"]).status()).tenant == "acme"
            # Who sees the token of a question can answer it: it is for operators.
            told = await agent.stream({}, skill="decides")
            assert (states(told)[-1], "'token': '***'" in str(told)) == ("input_required", True)
            await agent.send("3", task=task["id"])
            # What a workflow asks of people is not for whoever began it to answer.
            with pytest.raises(A2AClientError, match=r"403|PERMISSION_DENIED"):
                await agent.send("yes", task=task["id"])
        async with peer(gateway.url, binding, looks) as agent:
            assert (await agent.get(task["id"]))["id"] == task["id"]
            assert task["id"] in {each["id"] for each in (await agent.list())["tasks"]}
            with pytest.raises((A2AClientError, InvalidParamsError)):
                await agent.send("x", skill="greet")
            with pytest.raises(A2AClientError):
                await agent.cancel(task["id"])
        async with peer(gateway.url, binding, theirs) as agent:
            for attempt in (agent.get, agent.cancel):
                with pytest.raises(TaskNotFoundError):
                    await attempt(task["id"])
            with pytest.raises(TaskNotFoundError):
                await agent.send("yes", task=task["id"])
            listed = (await agent.list()).get("tasks", [])
            assert task["id"] not in {each["id"] for each in listed}
            again = await agent.send("pies", skill="order", message_id=f"m-{binding}")
            assert again["id"] != task["id"]


async def test_nobody_speaks_without_a_name(gateway: Served, issuer: Issuer) -> None:
    """In any binding; and not even the card is shown, unless that is meant."""
    status, _ = await gateway.ask("GET", "/.well-known/agent-card.json", token="")
    assert status == 401
    assert (await gateway.ask("POST", "/a2a", token="", json={}))[0] == 401
    async with peer(gateway.url, "GRPC", gateway.token) as agent:
        agent.context.service_parameters = {"authorization": "Bearer nonsense"}
        with pytest.raises(A2AClientError, match="UNAUTHENTICATED"):
            await agent.get("x")
        agent.context.service_parameters = {}
        with pytest.raises(A2AClientError, match="UNAUTHENTICATED"):
            await agent.get("x")
    async with served(gateway.store, issuer, a2a_discovery=True) as other:
        url = f"{other.url}/.well-known/agent-card.json"
        async with other.http.get(url) as answer:
            tag = answer.headers["ETag"]
            card = await answer.json()
        assert "params" not in str(card["capabilities"])
        async with other.http.get(url, headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304
        assert (await other.ask("GET", "/a2a/v1/tasks", token=""))[0] == 401


async def test_a_message_that_is_no_request_is_refused(gateway: Served) -> None:
    """With the protocol's own code, and nothing is started."""
    version = {"A2A-Version": "1.0"}

    async def code(body: Any, headers: dict[str, str] = version) -> int:
        _, answer = await gateway.ask("POST", "/a2a", json=body, headers=headers)
        return int(answer["error"]["code"])

    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}
    sent = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    assert await code([]) == -32600
    assert await code({"jsonrpc": "2.0", "id": 1}) == -32600
    assert await code({"jsonrpc": "2.0", "id": True, "method": "GetTask"}) == -32600
    assert await code({"jsonrpc": "2.0", "id": 1, "method": "Nothing"}) == -32601
    assert await code({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": []}) == -32602
    assert await code({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {}}) == -32602
    assert await code({**sent, "params": {}}) == -32602
    assert await code(sent, {}) == -32009
    assert await code(sent, {"A2A-Version": "0.3"}) == -32009
    status, answer = await gateway.ask("GET", "/a2a/v1/tasks/x", headers=version)
    assert (status, answer["error"]["details"][0]["reason"]) == (404, "TASK_NOT_FOUND")
    assert (await gateway.ask("POST", "/a2a", data=b"{", headers=version))[0] == 415
    assert await gateway.client.list(tenant="nobody") == []


async def test_a_workflow_may_take_the_whole_message(gateway: Served) -> None:
    """Where its argument `message` is an object."""
    async with peer(gateway.url, "JSONRPC", gateway.token) as agent:
        assert data_of(await agent.send("x", skill="hears", message_id="m7")) == "m7"


async def test_files_stand_beside_the_whole_message_and_not_in_it(gateway: Served) -> None:
    """Twice they would take twice the room."""
    async with peer(gateway.url, "JSONRPC", gateway.token) as agent:
        task = await agent.send("x", Part(raw=b"abc", filename="a"), skill="keeps")
    assert data_of(task) == [[{"text": "x"}], ["a"]]


async def test_files_reach_a_workflow_and_come_back(gateway: Served) -> None:
    """By bytes and by address, which nobody asks for; who takes no files says so."""
    parts = [
        Part(raw=b"\x00%PDF", filename="a.pdf", media_type="application/pdf"),
        Part(url="https://files.invalid/b.png", filename="b.png", media_type="image/png"),
    ]
    files = [
        {"name": "a.pdf", "mediaType": "application/pdf", "raw": "ACVQREY="},
        {"name": "b.png", "mediaType": "image/png", "url": "https://files.invalid/b.png"},
    ]
    async with peer(gateway.url, "JSONRPC", gateway.token) as agent:
        asked = await agent.send("look", *parts, skill="copies")
        for data in ([1, 2], {"files": ["mine"]}):
            with pytest.raises(InvalidParamsError, match="beside files"):
                await agent.send(data, *parts, task=asked["id"])
        task = await agent.send("and", {"n": 1}, *parts, task=asked["id"])
        with pytest.raises(ContentTypeNotSupportedError):
            await agent.send("x", *parts, skill="greet")
        # Nothing but its scheme is read of an address.
        assert await agent.send(Part(url="https://[x/"), skill="copies")
        for url in ("file:///etc/passwd", "ht\ntps://a/b", "https://a\r\nb"):
            with pytest.raises(InvalidParamsError, match="begins with one of"):
                await agent.send(Part(url=url), skill="copies")
        with pytest.raises(InvalidParamsError, match="stands in the data"):
            await agent.send(*parts, {"files": []}, skill="copies")
        with pytest.raises(InvalidParamsError, match="the limit is"):
            await agent.send(Part(raw=b"x" * 800_000), skill="copies")
        decides = await agent.send({}, skill="decides")
        with pytest.raises(ContentTypeNotSupportedError):
            await agent.send("yes", *parts, task=decides["id"])
        modes = {each.id: list(each.input_modes) for each in agent.card.skills}

    more = {"message": "and", "n": 1, "files": files}
    assert data_of(task) == ["look", files, more]
    brought = [each["parts"][0] for each in task["artifacts"] if each["artifactId"] != "result"]
    assert [each["filename"] for each in brought] == ["a.pdf", "b.png"]
    assert (brought[0]["raw"], brought[1]["url"]) == (files[0]["raw"], files[1]["url"])
    assert ("*/*" in modes["copies"], "*/*" in modes["greet"]) == (True, False)
