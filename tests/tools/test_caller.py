"""The caller as its worker holds it: light until it is used, and gone without a trace."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import anyio
import pytest

from millstream.errors import ToolInterrupted
from millstream_worker.tools.caller import ToolCaller
from millstream_worker.tools.faults import Cut, Unsent
from millstream_worker.tools.sockets import Ticket, faults
from tests.tools.bench import ROOT, benched, in_time, web
from tests.tools.fault_http import FaultHttp

PROBE = """
import sys
import millstream_worker.tools.caller, millstream_worker.tools.servers
print(*[name for name in ("mcp", "aiohttp", "jsonschema", "pydantic") if name in sys.modules])
"""


def test_nothing_heavy_is_imported_before_a_server_is_needed() -> None:
    """A worker without tools must not pay for them: 60 MB, most of it the SDK."""
    loaded = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'worker'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.strip() == ""


async def test_an_error_of_the_body_is_not_wrapped() -> None:
    """Whoever catches it must find what was raised, not a group of one."""
    with pytest.raises(KeyError):
        async with ToolCaller({}, emit=lambda _: None):
            raise KeyError("mine")


async def test_leaving_cuts_what_is_under_way_and_waits_for_no_server() -> None:
    """A call that outlives the caller is interrupted; it does not keep the worker alive."""
    caught: list[BaseException] = []

    async with FaultHttp().serve() as server, anyio.create_task_group() as group:

        async def hang() -> None:
            with pytest.raises(ToolInterrupted) as raised:
                await bench.call("faults", "hang", {"name": "h"})
            caught.append(raised.value)

        async with in_time(10), benched({"faults": web(server)}) as bench:
            group.start_soon(hang)
            await server.tools.started["h"].wait()

    assert len(caught) == 1


@pytest.mark.parametrize(("sent", "fault"), [(False, Unsent), (True, Cut)])
async def test_a_lost_connection_never_looks_like_a_cancellation(
    sent: bool, fault: type[Exception]
) -> None:
    """A cancelled future below us is a fault of the transport: nobody cancelled the run."""
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    lost.cancel()
    with pytest.raises(fault), faults(Ticket(sent)):
        await lost


async def test_a_real_cancellation_stays_one() -> None:
    """And the other way round."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        with faults(Ticket(sent=True)):
            await anyio.sleep_forever()
    assert scope.cancelled_caught
