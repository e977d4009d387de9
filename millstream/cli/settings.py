"""The page of all settings, printed from the configurations themselves, so it cannot grow stale."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Any

from millstream.config import FILE, Setting

_INTRODUCTION = f"""\
# Configuration

<!-- Printed by `python -m millstream.cli.settings`; do not edit. -->

A setting is looked for in this order: the flag, the environment, `{FILE}` in the working
directory, the default. It has one name in all of them: `--log-format` is
`MILLSTREAM_LOG_FORMAT` is `log_format`. Lists are separated by commas in the environment, and
are lists in the file. `REDIS_HOST`, `REDIS_PORT` and `REDIS_PASSWORD` together stand in for
`--redis` where it is not set otherwise. `MILLSTREAM_REDIS_FILE=/run/secrets/redis` reads the value
from a file, as does every variable with `_FILE` at its end: what the environment holds is handed on
to every program that a step starts, and shown to whoever describes a pod.

A name in the file that is no setting is refused, with exit code 2, and so is a variable that looks
like a misspelt one (`MILLSTREAM_LAESE`). Other variables that begin with `MILLSTREAM_` are somebody
else's and left alone: a program of yours may have some, and Kubernetes adds
`MILLSTREAM_PORT_8080_TCP` and its kin for a service that is called millstream.
`MILLSTREAM_DEBUG=1` shows where an error came from.
"""


def page() -> str:
    """Return the page as Markdown."""
    from millstream.cli.flags import EnqueueConfig
    from millstream_gateway.config import GatewayConfig
    from millstream_scheduler.config import SchedulerConfig
    from millstream_worker.config import WorkerConfig

    parts = [_INTRODUCTION]
    for title, cls in (
        ("Worker", WorkerConfig),
        ("Scheduler", SchedulerConfig),
        ("Gateway", GatewayConfig),
        ("Commands that talk to Redis, the last setting only of `enqueue`", EnqueueConfig),
    ):
        parts.append("\n".join([f"## {title}", "", *_table(cls), ""]))
    return "\n".join(parts)


def _table(cls: type[Any]) -> Iterator[str]:
    yield "| Flag | Default | Meaning |"
    yield "|---|---|---|"
    for each in fields(cls):
        yield f"| `--{each.name.replace('_', '-')}` | {_default(each)} | {_meaning(each)} |"


def _default(each: Field[Any]) -> str:
    value = each.default
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, tuple):
        value = ",".join(value)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _meaning(each: Field[Any]) -> str:
    setting: Setting = each.metadata["setting"]
    text = setting.help
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("at least", setting.lowest), ("at most", setting.highest))
        if bound is not None
    ]
    if bounds:
        text += f" ({', '.join(bounds)})"
    if setting.fallbacks:
        text += f"; else {', '.join(f'`{name}`' for name in setting.fallbacks)}"
    return text


if __name__ == "__main__":
    sys.stdout.write(page())
