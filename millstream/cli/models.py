"""``millstream models``: the models of all workers, on which devices, and within which budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import typer

from millstream.cli.access import refuse_memory
from millstream.cli.flags import ClientConfig, command
from millstream.cli.output import Listing, Output, Row
from millstream.cli.watching import Interval, Watch, watched
from millstream.store import boards
from millstream.store.connection import Connection

_COLUMNS = (
    "MODEL", "BACKEND", "HOST", "DEVICE", "STATE", "WAITING", "SIZE", "BATCHES", "LAW", "BUDGET",
    "HEADROOM", "OTHERS", "PREDICTED", "OBSERVED",
)  # fmt: skip
_GIB, _MIB = 1 << 30, 1 << 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("models")(models)


@command(ClientConfig, without=("queue",))
async def models(
    *, config: ClientConfig, out: Output, watch: Watch = False, interval: Interval = 2.0
) -> None:
    """Show the models that workers serve, by device.

    BUDGET is what may be in use on the device in all, HEADROOM what the next batch may take,
    OTHERS what neighbours hold or have announced. PREDICTED and OBSERVED are the peak bytes of
    the latest batch that was measured. LAW is what predictions go by: a guess, what was measured
    here, or what was kept of an earlier worker.
    """
    refuse_memory(config.redis)
    connection = Connection(config.redis)
    try:

        async def look() -> Listing:
            notes = await boards.read(connection, boards.MODELS)
            rows = [row for note in sorted(notes.values()) for row in _rows(note)]
            return Listing("models", _COLUMNS, rows)

        await watched(out, look, watch, interval)
    finally:
        await connection.aclose()


def _rows(note: bytes) -> Iterator[Row]:
    try:
        said = msgspec.json.decode(note)
        for model in said["models"]:
            for device in model.get("devices") or [{}]:
                yield _row(str(said["host"]), model, device)
    except (msgspec.DecodeError, KeyError, TypeError):
        return  # of a release that says it differently


def _row(host: str, model: dict[str, Any], device: dict[str, Any]) -> Row:
    state = str(model["state"])
    if device:
        state = "loaded" if device["loaded"] else "ready"
    if device.get("slots"):
        state = f"writes {device['slots']}"
    if "limit" in model:
        state = f"remote, {model['running']} of {model['limit']}"
    cells = {
        "MODEL": str(model["model"]),
        "BACKEND": str(model["backend"]),
        "HOST": host,
        "DEVICE": str(device.get("device", model.get("url", "-"))),
        "STATE": state,
        "WAITING": str(model.get("waiting", "-")),
        "SIZE": _size(device.get("bytes")),
        "BATCHES": str(device.get("batches", model.get("sent", "-"))),
        "LAW": str(device.get("law", "-")),
        "BUDGET": _size(device.get("ceiling")),
        "HEADROOM": _size(device.get("headroom")),
        "OTHERS": _size(device.get("others")),
        "PREDICTED": _size(device.get("predicted")),
        "OBSERVED": _size(device.get("observed")),
    }
    facts = {key: value for key, value in model.items() if key != "devices"}
    document = {"host": host, **facts, **device, "state": state}
    key = f"{cells['MODEL']} {host} {cells['DEVICE']}"
    return Row(key, [cells[column] for column in _COLUMNS], document)


def _size(value: Any) -> str:
    if not isinstance(value, int | float) or not value:
        return "-"
    if abs(value) >= _GIB:
        return f"{value / _GIB:.1f}Gi"
    return f"{value / _MIB:.0f}Mi" if abs(value) >= _MIB else f"{value / 1024:.0f}Ki"
