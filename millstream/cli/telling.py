"""What a run says, while it says it: steps are lines, and the text of a model comes as it comes.

With ``--json`` each event is a document, from whose id whoever was cut off can go on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from millstream.cli.access import span
from millstream.cli.output import Output, clean
from millstream.client import Run, RunEvent
from millstream.model.progress import EventKind


async def told(run: Run, out: Output, after: str = "") -> None:
    """Write what a run says until it has ended."""
    lines = _Lines(replace(out, stream=True))
    async for event in run.events(after):
        if not event.final:
            lines.write(event)
    lines.close()


@dataclass(slots=True)
class _Lines:
    """Writes events; text goes on in its line as long as nobody else says anything."""

    out: Output
    #: Whose text the cursor stands behind: step, input, fence and try.
    _writer: tuple[Any, ...] | None = None

    def write(self, event: RunEvent) -> None:
        if self.out.json:
            document = {"id": event.id, "kind": event.kind, "name": event.name}
            self.out.document({**document, "data": event.data, "at": event.at})
        elif event.kind is EventKind.TEXT:
            self._text(event.data)
        else:
            self.close()
            self.out.plain(f"{_clock(event.at)}  {clean(_line(event))}")

    def close(self) -> None:
        """End the line of text that is open."""
        if self._writer is not None:
            self._writer = None
            self.out.plain("")

    def _text(self, data: dict[str, Any]) -> None:
        writer = tuple(data[name] for name in ("step", "input", "fence", "tries"))
        if writer != self._writer:
            self.close()
            self._writer = writer
        self.out.part(data["text"])


def _line(event: RunEvent) -> str:
    data = event.data
    match event.kind:
        case EventKind.STEP:
            words = [event.name.ljust(8), data["step"], data.get("status", "")]
            if "took_s" in data:
                words.append(f"after {span(data['took_s'])}")
            if "pause_s" in data:
                words.append(f"in {span(data['pause_s'])}")
            return " ".join([*words, data.get("error", "")])
        case EventKind.LEFT_OUT:
            return f"{data['events'] or 'some'} events before this are not kept any more"
        case _:
            return f"{event.name.ljust(8)} {msgspec.json.encode(data).decode()}"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
