"""Where other agents want to be told: kept, delivered in order and at least once, and guarded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import anyio
import pytest
from a2a.types.a2a_pb2 import (
    DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest,
    ListTaskPushNotificationConfigsRequest,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError
from aiohttp import web
from google.protobuf.json_format import ParseDict

from millstream.egress import AddressRefused
from millstream.events import MessageSent
from millstream.store import catalogues, pushes
from millstream.store.conversations import Subject
from millstream.store.pushes import Errand, Progress, Wish
from millstream_gateway.a2a import courier
from millstream_gateway.a2a.destinations import Destinations
from millstream_worker.described import describe
from tests.gateway.agents import BINDINGS, peer, plain, states
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served, served, worker_of
from tests.gateway.test_a2a import app


@dataclass(slots=True)
class Hook:
    """Takes notifications."""

    url: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    #: Statuses that are answered before any notification is taken.
    refuse: list[int] = field(default_factory=list)
    heard: anyio.Event = field(default_factory=anyio.Event)

    async def until(self, state: str) -> None:
        """Return when a state was told."""
        with anyio.fail_after(20):
            while not states(self.told) or states(self.told)[-1] != state:
                self.heard = anyio.Event()
                await self.heard.wait()


@asynccontextmanager
async def hook() -> AsyncIterator[Hook]:
    """Take notifications for this block."""
    found = Hook()

    async def take(request: web.BaseRequest) -> web.Response:
        body: dict[str, Any] = await request.json() if request.method == "POST" else {}
        if found.refuse:
            status = found.refuse.pop(0)
            return web.Response(status=status, headers={"Location": found.url})
        found.told.append(body or {})
        found.headers.append(request.headers)
        found.heard.set()
        return web.Response(status=204)

    runner = web.ServerRunner(web.Server(take, access_log=None))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/told"
        yield found
    finally:
        await runner.cleanup()


@pytest.fixture
async def gateway(
    memory_url: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    """A gateway that may tell anybody on this machine, soon."""
    monkeypatch.setattr(courier, "_LOOK_S", 0.01)
    monkeypatch.setattr(courier, "_SOONEST_S", 0.01)
    monkeypatch.setattr(courier, "_RETRY_S", 0.01)
    async with (
        served(memory_url, issuer, grpc=0, push_private=True) as gateway,
        worker_of(gateway.store, app),
    ):
        data = catalogues.note(describe(app))
        await catalogues.publish(gateway.connection, "default", data, 600)
        yield gateway


async def test_an_agent_is_told_everything_in_its_order(gateway: Served) -> None:
    """From a wish that came with the message; with what it gave us to show there."""
    async with hook() as there, peer(gateway.url, "JSONRPC", gateway.token) as agent:
        there.refuse = [500, 302]  # it is tried again, and no redirect is followed
        push = {
            "url": there.url,
            "token": "t1",
            "authentication": {"scheme": "Bearer", "credentials": "secret"},
        }
        task = await agent.send("Ada", skill="greet", push=push)
        await there.until("completed")

    assert states(there.told) == ["submitted", "working", "completed"] or states(there.told) == [
        "working", "completed"
    ]  # fmt: skip
    kinds = [next(iter(each)) for each in there.told]
    assert kinds[-1] == "statusUpdate"
    assert kinds.count("artifactUpdate") == 3
    assert {body[kind]["taskId"] for body in there.told for kind in body} == {task["id"]}
    headers = there.headers[0]
    assert (headers["X-A2A-Notification-Token"], headers["Authorization"]) == (
        "t1", "Bearer secret"
    )  # fmt: skip
    sent = [event.kind for event in gateway.of(MessageSent)]
    assert sent[:3] == ["push_failed", "push_failed", "push"]


@pytest.mark.slow
async def test_a_wish_may_come_later_and_is_kept_until_it_is_taken_back(gateway: Served) -> None:
    """In each binding; what stands in it to be shown elsewhere is shown to nobody."""
    for binding in BINDINGS:
        async with hook() as there, peer(gateway.url, binding, gateway.token) as agent:
            task = (await agent.send("pies", skill="order"))["id"]
            call = {"context": agent.context}
            wish = {
                "taskId": task, "id": "mine", "url": there.url,
                "authentication": {"scheme": "Bearer", "credentials": "secret"},
            }  # fmt: skip
            made = await agent.client.create_task_push_notification_config(
                ParseDict(wish, TaskPushNotificationConfig()), **call
            )
            get = GetTaskPushNotificationConfigRequest(task_id=task, id="mine")
            found = await agent.client.get_task_push_notification_config(get, **call)
            assert made == found
            assert (found.url, found.authentication.scheme) == (there.url, "Bearer")
            assert "secret" not in str(found)
            every = ListTaskPushNotificationConfigsRequest(task_id=task)
            listed = await agent.client.list_task_push_notification_configs(every, **call)
            assert [each["id"] for each in plain(listed)["configs"]] == ["mine"]

            # What it sees itself is not told; what comes then is.
            await agent.send("3", task=task)
            await there.until("input_required")
            drop = DeleteTaskPushNotificationConfigRequest(task_id=task, id="mine")
            for _ in range(2):
                await agent.client.delete_task_push_notification_config(drop, **call)
            with pytest.raises(TaskNotFoundError):
                await agent.client.get_task_push_notification_config(get, **call)
            told = len(there.told)
            done = await agent.send("yes", task=task)
            assert done["status"]["state"] == "TASK_STATE_COMPLETED"
            errand = Errand(Subject("default", task), "mine")
            while await gateway.connection.client.zscore("millstream:{pushes}:due", errand.member):
                await anyio.sleep(0.01)
            assert len(there.told) == told


async def test_what_a_gateway_had_in_hand_is_taken_by_another(gateway: Served) -> None:
    """When its time is over; and whoever comes too late takes nothing away."""
    store = gateway.connection
    subject = Subject("default", "r1")
    wish = Wish(id="w", url="https://example.com")
    errand = Errand(subject, "w")
    gateway.gateway.drain.set()  # its own courier leaves
    await anyio.wait_all_tasks_blocked()
    await pushes.put(store, subject, wish, Progress())
    await pushes.put(store, subject, wish, Progress(after="9-9"))
    claimed: list[Errand] = []
    with anyio.fail_after(10):
        while not claimed:
            claimed = list(await pushes.claim(store, 0.001))
        again = list(await pushes.claim(store, 60))
        while not again:
            again = list(await pushes.claim(store, 60))
    assert claimed == again == [errand]
    assert await pushes.claim(store, 60) == []
    assert await pushes.read(store, errand) == (wish, Progress())
    await pushes.drop(store, errand)
    await pushes.postpone(store, errand, 0)
    await pushes.proceed(store, errand, Progress(failures=1))
    assert await pushes.claim(store, 60) == []
    assert await pushes.read(store, errand) is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.com/x", "https"),
        ("ftp://example.com/x", "https"),
        ("https://127.0.0.1/x", "private"),
        ("https://[::1]/x", "private"),
        ("https://10.1.2.3/x", "private"),
        ("https://169.254.169.254/latest", "never called"),
        ("https://[::ffff:169.254.169.254]/", "never called"),
        ("https://user:pw@example.com/", "password"),
        ("https://", "is none"),
        ("https://exa mple.com/\n", "is none"),
        ("https://example.com:99999/", "is none"),
        ("https://example.com/" + "x" * 3000, "is none"),
    ],
)
def test_an_address_that_is_not_to_be_trusted_is_refused(url: str, reason: str) -> None:
    """It comes from a caller, who might want to reach what only we can."""
    with pytest.raises(InvalidParamsError, match=reason):
        Destinations().check(url)


async def test_hosts_are_as_listed_and_names_are_checked_when_they_are_dialled() -> None:
    """A name that leads to a private address is not called, whatever it led to before."""
    listed = Destinations(hosts=("*.example.com",))
    listed.check("https://a.example.com/x")
    with pytest.raises(InvalidParamsError, match="list"):
        listed.check("https://example.org/x")
    Destinations(private=True).check("http://127.0.0.1:1/x")
    with pytest.raises(InvalidParamsError, match="never"):
        Destinations(private=True).check("http://169.254.169.254/")
    Destinations().check("https://localhost/x")  # a name: what it leads to is seen later
    async with Destinations().open() as http:
        with pytest.raises(aiohttp.ClientConnectorError) as refused:
            await http.post("https://localhost/x")
    assert isinstance(refused.value.__cause__, AddressRefused)
