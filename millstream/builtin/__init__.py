"""Workflows that every worker has: a pipeline of steps that is data, and an agent.

So a caller that has no Python can have work done. They use nothing that a workflow of one's own
could not: what they promise, the journal promises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millstream.builtin.agent import agent
from millstream.builtin.pipeline import pipeline
from millstream.errors import UsageError
from millstream.model.pipeline import read
from millstream.workflow import Workflows

PIPELINE, AGENT = "pipeline", "agent"


def builtin() -> Workflows:
    """Return the workflows that are built in."""
    app = Workflows()
    app.workflow(PIPELINE)(pipeline)
    app.workflow(AGENT)(agent)
    return app


def with_builtin(app: Workflows | None) -> Workflows:
    """Return an application's workflows and schedules, and the built-in workflows.

    Raises `UsageError` when the application has taken one of their names.
    """
    everything = builtin()
    if app is not None:
        for workflow in app:
            if workflow.name in {PIPELINE, AGENT}:
                raise UsageError(f"{workflow.name!r} is built in; give your workflow another name")
        everything.include(app)
    return everything


def check_pipeline(arguments: Any) -> None:
    """Raise `InvalidPipeline` for a pipeline that cannot run, before it is accepted."""
    if isinstance(arguments, Mapping):
        read(arguments.get("steps"), arguments.get("result"))
