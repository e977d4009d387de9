"""A gateway in this process, on a real port, over a store of any kind; and workers beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import anyio

from millstream import Client, Context, Workflows
from millstream.errors import ToolInterrupted
from millstream.events import Event
from millstream.model.tool import OnUnknown
from millstream.store.connection import Connection
from millstream.store.sealing import sealer_of
from millstream.telemetry.health import Health
from millstream_gateway.compose import Parts, compose
from millstream_gateway.config import GatewayConfig
from millstream_gateway.serve import Gateway
from millstream_worker.embedded import EmbeddedWorker, FunctionModels, FunctionTools
from tests.gateway.issuer import AUDIENCE, ISSUER, Issuer

E = TypeVar("E")
app = Workflows()


@app.workflow()
async def add(ctx: Context, a: int, b: int = 1) -> int:
    """Add two numbers."""
    ctx.emit("adding", {"a": a, "b": b})
    return a + b


@app.workflow()
async def fails(ctx: Context) -> None:
    """Fail, once."""
    raise ValueError("the tide is out")


@app.workflow()
async def counts(ctx: Context, to: int) -> int:
    """Say every number."""
    for number in range(to):
        ctx.emit("count", number)
    return to


@app.workflow()
async def waits(ctx: Context) -> None:
    """Say one thing, and wait for a long time."""
    ctx.emit("waiting")
    await ctx.sleep(3600)


async def double(value: int) -> dict[str, Any]:
    """Twice a value."""
    return {"value": 2 * value, "password": "hunter2"}


@app.workflow()
async def shows(ctx: Context, a: int, note: str, api_key: str) -> str:
    """Do one step, and return what was noted."""
    ctx.emit("noted", {"api_key": api_key})
    await ctx.step(double, a)
    return note


async def _pause() -> None:
    await anyio.sleep(0.003)


@app.workflow()
async def ticks(ctx: Context, to: int) -> int:
    """Say every number, one after the other."""
    for number in range(to):
        ctx.emit("tick", number)
        await ctx.step(_pause)
    return to


async def poet(_: str) -> AsyncIterator[str]:
    """A model that streams."""
    yield "the tide "
    yield "is in"


@app.workflow(events="steps")
async def works(ctx: Context) -> str:
    """Tell of a step, and of what a model writes."""
    await ctx.step(double, 1)
    return str(await ctx.infer("poet", "tides", stream=True))


@app.workflow()
async def large(ctx: Context) -> None:
    """Say more than any buffer between two sockets holds."""
    for number in range(300):
        ctx.emit("large", [number, "x" * 60_000])


@app.workflow()
async def asks(ctx: Context) -> list[Any]:
    """Ask a person."""
    found = await ctx.approve("Deploy?", data={"to": "prod", "password": "hunter2"}, key="prod")
    return [found.approved, found.by, found.comment]


@app.workflow()
async def hears(ctx: Context) -> Any:
    """Wait for a program."""
    return await ctx.wait_signal("go")


@app.workflow()
async def pays(ctx: Context) -> Any:
    """Call a tool that does not answer the first time."""
    return (await ctx.tool("bank", "pay", {"sum": 5, "token": "hunter2"})).data


@app.workflow()
async def parent(ctx: Context) -> Any:
    """Have another run do it."""
    return await ctx.child("add", {"a": 1}, id="kid", queue="default")


class Bank(FunctionTools):
    """Pays, and is cut off the first time, before anybody hears of it. People are asked then."""

    def __init__(self) -> None:
        super().__init__({"bank": {"pay": self.pay}})
        self.paid = 0

    def pay(self, sum: int, token: str) -> str:
        """Pay."""
        self.paid += 1
        if self.paid == 1:
            raise ToolInterrupted("cut off", cause="ConnectionError")
        return f"paid {sum}"

    async def prepare(self, *args: Any, **options: Any) -> Any:
        """Find the tool."""
        prepared = await super().prepare(*args, **options)
        prepared.on_unknown = OnUnknown.ASK
        return prepared


@dataclass(slots=True)
class Served:
    """What a test calls and looks at."""

    url: str
    port: int
    gateway: Gateway
    http: aiohttp.ClientSession
    client: Client
    connection: Connection
    events: list[Event]
    store: str
    token: str = field(default="", repr=False)

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def ask(
        self, method: str, path: str, *, token: str | None = None, **options: Any
    ) -> tuple[int, Any]:
        """Return the status and the document of an answer."""
        shown = self.token if token is None else token
        headers = {
            **({"Authorization": f"Bearer {shown}"} if shown else {}),
            **options.pop("headers", {}),
        }
        async with self.http.request(
            method, f"{self.url}{path}", headers=headers, **options
        ) as answer:
            data = await answer.read()
            return answer.status, (await answer.json(content_type=None) if data else None)

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        """Ask for something."""
        return await self.ask("GET", f"/api/v1{path}", **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """Ask for something to be done."""
        return await self.ask(
            "POST", f"/api/v1{path}", json={} if body is None else body, **options
        )

    async def parked(self, run_id: str) -> None:
        """Return once a run waits for somebody."""
        with anyio.fail_after(20):
            while (await self.client.run(run_id).status()).state != "parked":
                await anyio.sleep(0.005)


@asynccontextmanager
async def served(
    url: str, issuer: Issuer, *, parts: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Served]:
    """Serve a gateway for this block. The token in hand is an administrator's of all tenants."""
    config = GatewayConfig(
        redis=url,
        **{
            "http": 0, "grpc": -1, "host": "127.0.0.1", "grace": 5.0,
            "jwt_keys": (str(issuer.path),),
            "jwt_issuer": (ISSUER,), "jwt_audience": (AUDIENCE,), "queue": ("default", "other"),
            **settings,
        },
    )  # fmt: skip
    events: list[Event] = []
    connection = Connection(url, sealer=sealer_of(config.seal_keys))
    async with Client(connection=connection, patience=2) as client:
        made = compose(
            config,
            Parts(
                connection=connection,
                client=client,
                emit=events.append,
                health=Health(),
                **(parts or {}),
            ),
        )
        async with anyio.create_task_group() as group:
            group.start_soon(made.serve)
            with anyio.fail_after(20):
                await made.started.wait()
            base = f"http://127.0.0.1:{made.port}"
            # A test may follow more runs than a client of aiohttp opens connections by itself.
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
                yield Served(
                    url=base,
                    port=made.port or 0,
                    gateway=made,
                    http=http,
                    client=client,
                    connection=connection,
                    events=events,
                    store=url,
                    token=issuer.token("admin", tenant="*"),
                )
            made.drain.set()


@asynccontextmanager
async def worker(url: str) -> AsyncIterator[None]:
    """Serve the workflows for this block."""
    async with worker_of(url, app):
        yield


@asynccontextmanager
async def worker_of(
    url: str, workflows: Workflows, seal_keys: str | None = None
) -> AsyncIterator[None]:
    """Serve some workflows for this block."""
    embedded = EmbeddedWorker(
        url, workflows, lambda _: None, Bank(), FunctionModels({"poet": poet}), seal_keys
    )
    try:
        async with anyio.create_task_group() as group:
            await embedded.start(group)
            yield
            embedded.crash()
            group.cancel_scope.cancel()
    finally:
        with anyio.move_on_after(2, shield=True):
            await embedded._connection.aclose()
