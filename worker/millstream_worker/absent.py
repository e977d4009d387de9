"""What stands in the place of models and tools that nobody declared: whoever asks is told so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from millstream.errors import InferenceRejected, ToolRejected
from millstream.model.inference import CallOptions
from millstream.model.tool import ToolInfo, ToolResult


class NoModels:
    """Stands where no models were opened."""

    def attend(self, held: Callable[[], int]) -> None:
        """Nobody waits here."""

    async def infer(
        self, model: str, inputs: Sequence[Any], options: CallOptions, *, run: str
    ) -> list[Any]:
        """Refuse."""
        del inputs, options, run
        raise InferenceRejected(f"there is no model {model!r} here", cause="UnknownModel")


class NoTools:
    """Stands where no MCP server is declared."""

    async def prepare(
        self, server: str, tool: str, arguments: Mapping[str, Any], *, run_id: str
    ) -> Any:
        """Refuse."""
        del tool, arguments, run_id
        raise _undeclared(server)

    async def call(self, prepared: Any, arguments: Mapping[str, Any], **options: Any) -> ToolResult:
        """Never called: nothing can be prepared."""
        raise NotImplementedError

    async def offered(self, server: str, *, run_id: str) -> tuple[Sequence[ToolInfo], str]:
        """Refuse."""
        del run_id
        raise _undeclared(server)

    def release_run(self, run_id: str) -> None:
        """There is nothing to release."""


def _undeclared(server: str) -> ToolRejected:
    return ToolRejected(
        f"no MCP server {server!r} is declared; start the worker with --mcp FILE",
        cause="ToolRejected",
    )
