"""``millstream audit``: who did what to which run, and the proof that nothing was taken out."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from millstream.cli.access import refuse_memory
from millstream.cli.flags import ClientConfig, command
from millstream.cli.groups import Group
from millstream.cli.output import Listing, Output, Row
from millstream.errors import BrokenTrail, UsageError
from millstream.model.audit import Chain, End, Entry, entry_of
from millstream.store import audit
from millstream.store.connection import Connection

_COLUMNS = ("SEQ", "AT", "ACTOR", "VERB", "QUEUE", "TARGET", "RESULT", "ORIGIN")

#: How often a trail is looked at that is trimmed meanwhile.
_LOOKS = 5

After = Annotated[
    int, typer.Option("--after", metavar="SEQ", min=0, help="Only what follows this entry.")
]
Anchor = Annotated[
    str | None,
    typer.Option(
        "--anchor",
        metavar="SEQ:HASH",
        help="An end that an earlier export or verification printed: it must still stand.",
    ),
]
File = Annotated[
    str | None,
    typer.Option("--file", "-f", metavar="FILE", help="An export instead of Redis; - is stdin."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(cls=Group, help="Show, export and verify who did what.")
    group.command("list")(list_acts)
    group.command("export")(export)
    group.command("verify")(verify)
    app.add_typer(group, name="audit")


@command(ClientConfig, without=("queue", "actor"))
async def list_acts(
    *,
    config: ClientConfig,
    out: Output,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=10_000, help="At most so many.")
    ] = 50,
) -> None:
    """List what was done last, the newest last."""
    async with _connected(config) as connection:
        _, end = await audit.bounds(connection)
        found = [line async for line in audit.lines(connection, max(0, end.seq - limit))]

    rows = []
    for line in found:
        entry = _read(line.text)
        at = datetime.fromtimestamp(entry.at / 1000, UTC).isoformat(timespec="seconds")
        cells = (str(entry.seq), at, entry.actor, entry.verb, entry.queue, entry.target,
                 entry.result, entry.origin)  # fmt: skip
        rows.append(Row(str(entry.seq), cells, entry))
    out.listing(Listing("acts", _COLUMNS, rows))


@command(ClientConfig, without=("queue", "actor"))
async def export(*, config: ClientConfig, out: Output, after: After = 0) -> None:
    """Write the trail to stdout, one entry a line, as it was hashed.

    The end is said on stderr: keep it elsewhere, for `audit verify --anchor`.
    """
    chain: Chain | None = None
    async with _connected(config) as connection:
        base, _ = await audit.bounds(connection)
        async for line in audit.lines(connection, max(after, base.seq)):
            entry = _read(line.text)
            chain = chain or Chain(End(entry.seq - 1, entry.prev))
            _whole(chain, line.text, line.hash)
            out.plain(line.text.decode())
    if chain is not None:
        out.note(f"the trail ends with {chain.end.seq}:{chain.end.hash}")


@command(ClientConfig, without=("queue", "actor"))
async def verify(
    *, config: ClientConfig, out: Output, file: File = None, anchor: Anchor = None
) -> None:
    """Prove that no entry was changed, taken out or put in; else name the first that was.

    Whoever can write to Redis can write a whole new trail: only an end that was kept elsewhere
    shows that (--anchor).
    """
    known = None if anchor is None else _anchor(anchor)
    if file is not None:
        chain = _verified_file(file, known)
    else:
        async with _connected(config) as connection:
            chain = await _verified(connection, known)

    first, end = chain.end.seq - chain.count + 1, chain.end
    if out.json:
        found = {"entries": chain.count, "first": first, "seq": end.seq, "hash": end.hash}
        out.document(found)
    else:
        out.say(
            f"{chain.count} entries hold, from {first} on; the trail ends with {end.seq}:{end.hash}"
        )


async def _verified(connection: Connection, anchor: End | None) -> Chain:
    """Verify the trail as it stands; once more when it was trimmed under the reader's hands."""
    for _ in range(_LOOKS):
        base, end = await audit.bounds(connection)
        try:
            return await _verified_between(connection, base, end, anchor)
        except BrokenTrail:
            if (await audit.bounds(connection))[0] == base:
                raise

    raise UsageError("the trail is trimmed faster than it can be read; verify an export (--file)")


async def _verified_between(
    connection: Connection, base: End, end: End, anchor: End | None
) -> Chain:
    chain = Chain(base)
    anchored = _Anchored(anchor, base)
    async for line in audit.lines(connection, base.seq):
        if (seq := _seq_of(line.text)) > end.seq:
            await _appended(connection, seq)
            break
        _whole(chain, line.text, line.hash)
        anchored.pass_by(chain.end)
    if chain.end != end:
        raise BrokenTrail(chain.end.seq + 1, f"the trail should end with entry {end.seq}")
    anchored.check()
    return chain


def _verified_file(file: str, anchor: End | None) -> Chain:
    chain: Chain | None = None
    anchored = _Anchored(anchor, End())
    for line in _lines_of(file):
        if chain is None:
            first = _read(line)
            chain = Chain(End(first.seq - 1, first.prev))
            anchored = _Anchored(anchor, chain.end)
        _whole(chain, line, None)
        anchored.pass_by(chain.end)
    anchored.check()
    return chain or Chain(End())


class _Anchored:
    """Whether an end that is known from elsewhere was met on the way."""

    def __init__(self, anchor: End | None, begin: End) -> None:
        self._anchor = anchor
        self._met = anchor is None or anchor == begin
        # What lies before the beginning was trimmed: nothing can be said of it.
        self._gone = anchor is not None and anchor.seq < begin.seq

    def pass_by(self, end: End) -> None:
        self._met = self._met or end == self._anchor

    def check(self) -> None:
        if self._anchor is not None and not self._met:
            why = "was trimmed, nothing tells whether it stood" if self._gone else "is another one"
            raise BrokenTrail(self._anchor.seq, f"the entry that is known from elsewhere {why}")


async def _appended(connection: Connection, seq: int) -> None:
    """Raise `BrokenTrail` unless an entry behind the end was written since the end was read."""
    _, end = await audit.bounds(connection)
    # Entry and end are written by one script: whoever sees the one can see the other.
    if end.seq < seq:
        raise BrokenTrail(seq, f"it stands behind the end of the trail, which is entry {end.seq}")


def _seq_of(line: bytes) -> int:
    """Return the number of an entry; 0 of what is none."""
    try:
        return entry_of(line).seq
    except msgspec.DecodeError:
        return 0


def _read(line: bytes) -> Entry:
    try:
        return entry_of(line)
    except msgspec.DecodeError:
        raise BrokenTrail(0, f"a line cannot be read: {line[:60]!r}") from None


def _whole(chain: Chain, line: bytes, written: str | None) -> None:
    found = chain.follow(line, written)
    if found is not None:
        raise BrokenTrail(found.seq, found.reason)


def _lines_of(file: str) -> Iterator[bytes]:
    try:
        if file == "-":
            yield from (line.rstrip(b"\n") for line in sys.stdin.buffer)
        else:
            with Path(file).open("rb") as lines:
                yield from (line.rstrip(b"\n") for line in lines)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error


def _anchor(text: str) -> End:
    seq, _, hash_ = text.partition(":")
    if not seq.isdigit() or not hash_:
        raise UsageError(f"--anchor {text!r} is not SEQ:HASH, as `audit verify` prints it")

    return End(int(seq), hash_)


@asynccontextmanager
async def _connected(config: ClientConfig) -> AsyncIterator[Connection]:
    refuse_memory(config.redis)
    connection = Connection(config.redis)
    try:
        yield connection
    finally:
        await connection.aclose()
