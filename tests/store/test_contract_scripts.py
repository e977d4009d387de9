"""What every script keeps to: its header, the keys it is given, and bounds on what it reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from itertools import pairwise

import pytest

from millstream.store import agents, deliveries, leases, results, runs
from millstream.store.keys import CANARY, LEVELS, Lane
from millstream.store.scripts import script
from tests.store.bench import Bench

LUA = resources.files("millstream.store").joinpath("lua")
SOURCES = {
    file.name.removesuffix(".lua"): file.read_text("utf-8")
    for file in LUA.iterdir()
    if file.name.endswith(".lua")
}
SCRIPTS = sorted(name for name in SOURCES if not name.startswith("_"))

#: Commands whose reply is as large as what they read, and cannot be bounded.
UNBOUNDED = {
    "KEYS", "SCAN", "HSCAN", "SSCAN", "ZSCAN", "HKEYS", "HVALS", "SORT", "LRANGE",
    "FLUSHALL", "FLUSHDB", "ZRANGEBYLEX", "XCLAIM", "XAUTOCLAIM", "EVAL", "FUNCTION",
}  # fmt: skip
#: Commands that read a range, and what bounds each.
BOUNDED_BY = {
    "ZRANGEBYSCORE": r"'LIMIT', 0, \d+",
    "ZREMRANGEBYRANK": r"math\.min\(",
    "ZRANGE": r", (0, 0|0, 999|#names, #names|0, count - 1)(, 'WITHSCORES')?$"
    r"|LIMITED, first, first \+ 19$|PLACING, 0, tonumber\(ARGV\[2\]\) - 1$",
    # What belongs to one run has bounds of its own: as much as whoever takes it loads.
    "HGETALL": r", (key|journal_key\(id\)|received_key\(id\))$",
    "XRANGE": r"'COUNT', (1\b|100\b|count|some|ARGV\[2\])|(\w+\[1\]|entry), (\w+\[1\]|entry)$"
    r"|events_key\(id\), '-', '\+'$",
    "XREADGROUP": r"'COUNT', count",
    "XPENDING": r"entry, entry, 1|'-', '\+', 1$|'\+', 1, TOKEN$|'-', '\+', (BATCH|1000), \w+",
    # As many as one process holds.
    "SMEMBERS": r"control$",
    # Some of what the processes of a fleet say of themselves, and of those who hold permits.
    "HRANDFIELD": r"((AGENTS|TURNS|permits_key\(limit\)), \d+|BOARD, \d+, 'WITHVALUES')$",
    # One group a stream; of a stream its counters and two entries, as long as it is not FULL;
    # consumers, once a lease: as many as the fleet has processes.
    "XINFO": r"'(GROUPS', stream|STREAM', stream|CONSUMERS', STREAM\[level\], GROUP)$",
}


def commands(source: str) -> Iterator[tuple[str, str]]:
    """Every (command, rest of its arguments) that a script sends."""
    for start in re.finditer(r"redis\.p?call\('(\w+)'", source):
        # Up to the bracket that closes the call; a bracket in quotes is none.
        depth, quoted, end = 1, False, start.end()
        while depth:
            quoted ^= source[end] == "'"
            depth += 0 if quoted else {"(": 1, ")": -1}.get(source[end], 0)
            end += 1
        yield start[1], source[start.end() : end - 1]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_script_reads_without_a_bound(name: str) -> None:
    """While a script runs nobody else is served: its time must not grow with what is stored."""
    sent = list(commands(SOURCES[name]))
    assert len(sent) == len(re.findall(r"redis\.p?call\(", SOURCES[name])), "a computed command"

    for command, rest in sent:
        assert command not in UNBOUNDED
        if command in BOUNDED_BY:
            assert re.search(BOUNDED_BY[command], rest), f"{command}{rest}"


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_header_lists_the_arguments_that_the_script_reads(name: str) -> None:
    """Calls are checked against the header: it must not say more or less than the body."""
    found = script(name)
    body = re.sub(r"--.*", "", SOURCES[name])
    fixed = {int(index) for index in re.findall(r"ARGV\[(\d+)\]", body)}
    starts = {int(at) for at in re.findall(r"(?:for \w+ =|local at =) (\d+)", body)}

    assert max(fixed, default=0) <= len(found.args)
    if found.open_ended:
        # What follows the fixed arguments is read from the next one on.
        assert len(found.args) + 1 in starts
        assert "#ARGV" in body
    else:
        assert fixed == set(range(1, len(found.args) + 1))
        assert "#ARGV" not in body


def test_the_items_of_a_commit_have_the_shape_that_the_header_says() -> None:
    """The header is what a reader believes; the table is what the script does."""
    source = SOURCES["commit"]
    lines = re.findall(r"^--   ([A-Z]) (.*?)(?: {2,}.*)?$", source, re.MULTILINE)
    shape = dict(re.findall(r"(\w) = (\d+)", re.search(r"SHAPE = \{(.*)\}", source)[1]))  # type: ignore[index]

    said = {}
    for operation, values in lines:
        words = values.split()
        said[operation] = str(words.index("n") + 1 if "n" in words else len(words))

    assert said == shape


def test_the_keys_stand_in_the_order_in_which_the_scripts_read_them() -> None:
    """Otherwise timers would be written among the dead letters."""
    source = SOURCES["_lane"]
    lane = Lane("q")
    names = re.search(r"local ([A-Z, ]+) =\s+KEYS\[1\]", source)
    assert names
    streams = dict(re.findall(r"([a-z]+) = KEYS\[(\d+)\]", source))

    fixed = [lane.prefix + name.lower() for name in names[1].split(", ")]
    # The name of one stream is made by the scripts.
    sent = [level for level in LEVELS if level != CANARY]
    assert list(lane.keys) == [*fixed, *map(lane.stream, sent), lane.outbox]
    assert {level: lane.keys[int(at) - 1] for level, at in streams.items()} == {
        level: lane.stream(level) for level in sent
    }
    assert f"STREAM.{CANARY} = PREFIX .. 'stream:{CANARY}'" in source
    assert lane.stream(CANARY) == f"{lane.prefix}stream:{CANARY}"
    levels = re.search(r"LEVELS = \{(.*)\}", source)
    assert levels
    assert tuple(re.findall(r"'(\w+)'", levels[1])) == LEVELS
    indexes = [int(at) for at in re.findall(r"KEYS\[(\d+)\]", source)]
    assert all(after == before + 1 for before, after in pairwise(indexes))


def test_every_key_of_a_lane_stands_in_one_slot() -> None:
    """A cluster runs a script only where all its keys are."""
    lane = Lane("q", 3)
    keys = [
        *lane.keys,
        lane.run("r"),
        lane.journal("r"),
        lane.events("r"),
        lane.received("r"),
        lane.inbox("c"),
    ]

    assert {re.search(r"\{(.*?)\}", key)[1] for key in keys} == {"q:3"}  # type: ignore[index]


async def test_a_server_that_has_forgotten_the_scripts_is_taught_them_again(bench: Bench) -> None:
    """It restarted, or somebody flushed them: the call that finds out teaches."""
    held = await bench.held("r1")

    async def forgetful() -> None:
        await bench.redis.script_flush()

    await forgetful()
    assert await bench.accept("r2") == [True]
    await forgetful()
    assert len((await bench.commit("w1")).verdicts) == 0
    await forgetful()
    assert await bench.cancel("r2") == ["cancelled"]
    await forgetful()
    assert await bench.revive("r2") == ["queued"]
    await forgetful()
    assert (await runs.depth(bench.store, bench.lane)).running == 1
    await forgetful()
    assert (await deliveries.holdings(bench.store, bench.lane, "w1", [held])).strays == ()
    await forgetful()
    assert len(await results.watch(bench.store, bench.lane, "c1", ["r1"])) == 1
    await forgetful()
    assert (await leases.renew(bench.store, [bench.lane], "w1", 60)).lapsed
    await forgetful()
    client = bench.store.new_threaded_client(1.0)
    assert not leases.renew_blocking(bench.store, client, [bench.lane], "w1", 60).lapsed
    client.close()
    await forgetful()
    assert (await bench.sweep()).reclaimed == 0
    assert await agents.living(bench.store, bench.lane) == []
