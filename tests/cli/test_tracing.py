"""From the command line to a real MCP server, one trace."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.cli.program import MCP, Program
from tests.telemetry.collector import collecting

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ASKS = """
from millstream import Context, Workflows

app = Workflows()

@app.workflow()
async def ask(ctx: Context, zone: str) -> str:
    ctx.log.info("asking")
    return (await ctx.tool("time", "get_current_time", {"timezone": zone})).text
"""


@pytest.mark.slow
@pytest.mark.mcp
def test_a_tool_call_hangs_under_the_command_that_asked_for_it(program: Program) -> None:
    """A build server hands its own trace on, as TRACEPARENT; the worker is told by its settings."""
    (program.directory / "mcp.json").write_text(MCP, "utf-8")
    (program.directory / "asks.py").write_text(ASKS, "utf-8")
    with collecting() as collector:
        traced = replace(
            program,
            environment={
                **program.environment,
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "TRACEPARENT": CALLER,
            },
        )
        worker = traced.start(
            "worker", "asks:app", "--http", "-1", "--metrics", "-1", "--log-format", "json",
            "--log-level", "DEBUG", "--mcp", "mcp.json",
        )  # fmt: skip
        try:
            worker.until("worker_started")
            said = traced("enqueue", "ask", "-a", "zone=UTC", "--wait")
            assert said.code == 0, said.err
        finally:
            log = worker.stop().err

        (started,) = (json.loads(x) for x in log.splitlines() if '"worker_started"' in x)
        assert started["pid"] == worker.process.pid, "it can be found on its machine"
        spans = {span.name: span for span in collector.spans}
        assert {span.trace for span in collector.spans} == {CALLER[3:35]}
        assert spans["enqueue ask"].parent == CALLER[36:52]
        assert spans["enqueue ask"].service == "millstream-cli"
        assert spans["take ask"].parent == spans["enqueue ask"].id
        assert spans["step time/get_current_time"].parent == spans["take ask"].id
        call = spans["call time/get_current_time"]
        assert call.parent == spans["step time/get_current_time"].id
        assert call.attributes["mcp.method.name"] == "tools/call"
        (line,) = [line for line in log.splitlines() if '"asking"' in line]
        assert f'"trace":"{CALLER[3:35]}"' in line
