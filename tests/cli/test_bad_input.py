"""What people get wrong: one line that says what to do, the right code, and nothing half done."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import Answer, Program
from tests.servers import RedisServer

UNREACHABLE = "redis://127.0.0.1:1/0"


@dataclass(frozen=True)
class Row:
    """One mistake."""

    name: str
    arguments: tuple[str, ...]
    code: int
    says: str
    stdin: str = ""


#: At a Redis whose queue `default` is served by a worker that knows the application.
AT_ENQUEUE = [
    Row("unknown workflow", ("nope",), 2, "no worker of this queue knows workflow 'nope'"),
    Row("unknown version", ("add", "--version", "9"), 2, "'add' version '9'"),
    Row("not JSON", ("add", "--json-args", "{a: 1}"), 2, "--json-args is not JSON"),
    Row("not a number of JSON", ("add", "--file", "-"), 2, "is not JSON", stdin='{"a": NaN}'),
    Row("not UTF-8", ("add", "--file", "latin.json"), 2, "is not JSON"),
    Row("not an object", ("add", "--json-args", "[1]"), 2, "by name, as a mapping"),
    Row("not NAME=VALUE", ("add", "--arg", "a"), 2, "--arg 'a' is not NAME=VALUE"),
    Row("two ways", ("add", "--arg", "a=1", "--json-args", "{}"), 2, "in one way"),
    Row("no such file", ("add", "--file", "nowhere.json"), 2, "cannot read --file nowhere.json"),
    Row("too large", ("add", "--file", "large.json"), 2, "the limit is 1,048,576"),
    Row("far too large", ("add", "--file", "huge.json"), 2, "the limit is"),
    Row("a bad id", ("add", "--id", "{tag}"), 2, "run id '{tag}' is not allowed"),
    Row("a bad queue", ("add", "--queue", "a:b"), 2, "queue name 'a:b' is not allowed"),
    Row("two queues", ("add", "-q", "a", "-q", "b"), 2, "several queues are set (a, b)"),
    Row("a bad priority", ("add", "--priority", "urgent"), 2, "'urgent' is not one of"),
    Row("a bad delay", ("add", "--delay", "-1"), 2, "delay must be seconds from 0"),
    Row("a delay in words", ("add", "--delay", "soon"), 2, "--delay"),
    Row("id of another workflow", ("slow", "--id", "taken"), 6, "run of workflow 'add'"),
    Row("id with other arguments", ("add", "-a", "a=9", "--id", "taken"), 6, "choose another id"),
    Row("unknown flag", ("add", "--colour"), 2, "No such option: --colour"),
    Row("no workflow", (), 2, "Missing argument"),
    Row("an empty address", ("add", "--redis", ""), 2, "the address of Redis must begin with"),
    Row("a wrong scheme", ("add", "--redis", "http://x"), 2, "the address of Redis must begin"),
    Row("memory", ("add", "--redis", "memory://"), 2, "millstream dev APP"),
    Row("unreachable", ("add", "--redis", UNREACHABLE), 3, "cannot reach Redis at 127.0.0.1:1"),
]

#: Runs that were accepted, and whose worker finds the mistake.
AT_RUN = [
    Row("arguments that do not fit", ("add", "-a", "a=one"), 1, "'a': Expected `int`, got `str`"),
    Row("an argument too few", ("add",), 1, "'a' is missing"),
    Row(
        "no such MCP server", ("calls", "-a", "server=no", "-a", "tool=x"), 1, "no such MCP server"
    ),
    Row(
        "no such tool",
        ("calls", "-a", "server=time", "-a", "tool=x"),
        1,
        "time/x: rejected: no such",
    ),
]

APPS = {
    "nowhere:app": "no module 'nowhere' here",
    "missing_import:app": "importing it raised ModuleNotFoundError: No module named 'not_there'",
    "syntax:app": "importing it raised SyntaxError",
    "raising:app": "importing it raised RuntimeError: no way",
    "leaving:app": "importing it ends the process",
    "flows:nothing": "flows has no attribute 'nothing'",
    "flows:number": "'number' is a int, not Workflows",
    "flows:empty": "it has no workflows",
    "flows": "say which of its Workflows is meant",
    "nowhere.py:app": "there is no file",
}


@pytest.mark.parametrize("row", AT_ENQUEUE, ids=lambda row: row.name)
def test_a_mistake_at_enqueue_leaves_nothing(row: Row, served: Program, taken: None) -> None:
    """Refused means refused: no key of Redis has changed."""
    before = _keys(served)

    said = served("enqueue", *row.arguments, stdin=row.stdin)

    _expect(said, row.code, row.says)
    assert said.out == ""
    assert _keys(served) == before


@pytest.mark.parametrize("row", AT_RUN, ids=lambda row: row.name)
def test_a_mistake_that_the_worker_finds_fails_the_run(row: Row, served: Program) -> None:
    """It stands in the dead letters with its reason, where it can be looked at."""
    said = served("enqueue", *row.arguments, "--wait", "--wait-timeout", "30")

    _expect(said, 1, row.says)


@pytest.mark.parametrize(("app", "reason"), APPS.items(), ids=APPS)
def test_an_application_that_cannot_be_loaded(app: str, reason: str, apps: Program) -> None:
    """The worker ends before it takes anything, and says which line of whose code to mend."""
    _expect(apps("worker", app), 2, reason)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--mcp", "nowhere.json"), "cannot read the MCP servers from nowhere.json"),
        (("--mcp", "broken.json"), "broken.json"),
        (("--lease", "soon"), "--lease: 'soon' is not allowed"),
        (("--lease", "0.1"), "--lease: lease must be at least 0.3"),
        (("--log-level", "loud"), "log level 'loud' is unknown"),
        (("--queue", "a:b"), "queue name 'a:b' is not allowed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_worker_with_wrong_settings_does_not_start(
    arguments: tuple[str, ...], says: str, apps: Program
) -> None:
    """A worker that starts with half of its settings would fail runs one by one."""
    (apps.directory / "broken.json").write_text("{", "utf-8")

    said = apps("worker", "flows:app", "--http", "-1", "--metrics", "-1", *arguments)

    _expect(said, 2, says)


def test_a_variable_is_named_when_it_is_wrong(apps: Program) -> None:
    """Nobody finds a bad setting that does not say where it came from."""
    wrong = replace(apps, environment={**apps.environment, "MILLSTREAM_CONCURRENCY": "0"})
    _expect(wrong("worker", "flows:app"), 2, "MILLSTREAM_CONCURRENCY: concurrency must be at least")

    (apps.directory / "millstream.toml").write_text("queue = [", "utf-8")
    _expect(apps("queues"), 2, "millstream.toml")


def test_a_setting_that_nobody_has_is_refused(apps: Program) -> None:
    """A lease that was misspelt would be the default, and nobody would know."""
    (apps.directory / "millstream.toml").write_text("laese = 1\n", "utf-8")
    for arguments in (("worker", "flows:app"), ("queues",)):
        _expect(apps(*arguments), 2, "millstream.toml: 'laese' is no setting; did you mean lease?")

    (apps.directory / "millstream.toml").write_text("lease = 1\n", "utf-8")
    assert apps("queues").code == 0, "a setting of another process"
    wrong = {**apps.environment, "MILLSTREAM_CONCURENCY": "1"}
    remedy = "MILLSTREAM_CONCURENCY is no setting; did you mean MILLSTREAM_CONCURRENCY?"
    _expect(replace(apps, environment=wrong)("queues"), 2, remedy)


def test_variables_of_others_are_left_alone(apps: Program) -> None:
    """Kubernetes adds some for a service of that name, and a program of the user may have some."""
    theirs = {
        "MILLSTREAM_SERVICE_HOST": "10.0.0.1",
        "MILLSTREAM_SERVICE_PORT_HTTP": "8080",
        "MILLSTREAM_PORT": "tcp://10.0.0.1:8080",
        "MILLSTREAM_HTTP_PORT": "tcp://10.0.0.1:8080",
        "MILLSTREAM_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "MILLSTREAM_PORT_8080_TCP_ADDR": "10.0.0.1",
        "MILLSTREAM_WORKER_SERVICE_PORT": "8080",
        "MILLSTREAM_CUSTOMER_TABLE": "tides",
        "MILLSTREAM_DEBUG": "0",
    }

    assert replace(apps, environment={**apps.environment, **theirs})("queues").code == 0


def test_a_port_that_is_taken_says_how_two_workers_live_on_one_machine(apps: Program) -> None:
    """The second worker is the first thing that a newcomer tries. A free port is not named."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        http, metrics = (str(taken.getsockname()[1]) for taken in (one, other))
        for ports, remedy in (
            (("--http", http, "--metrics", metrics), "with --http 0 --metrics 0 ("),
            (("--http", http, "--metrics", "0"), "with --http 0 ("),
            (("--http", "0", "--metrics", metrics), "with --metrics 0 ("),
        ):
            said = apps("worker", "flows:app", "--host", "127.0.0.1", *ports)
            _expect(said, 2, f"{remedy}0 picks a free port")


@pytest.mark.parametrize("arguments", [("enqueue", "add"), ("worker", "flows:app")])
def test_a_redis_that_evicts_is_refused(arguments: tuple[str, ...], evicting: Program) -> None:
    """It would throw runs away one day; better to hear it on the first."""
    said = evicting(*arguments, *(("--http", "-1", "--metrics", "-1") if len(arguments) > 1
                    and arguments[0] == "worker" else ()))  # fmt: skip

    _expect(said, 3, "set maxmemory-policy to noeviction")
    assert _keys(evicting) == {}


@pytest.mark.parametrize("user", ["blind", "elsewhere", "unknown"])
def test_a_user_without_permission_is_refused(
    user: str, guarded: RedisServer, apps: Program
) -> None:
    """`check the user, its password and its ACL` is what an operator can act on."""
    address = guarded.url_as(user, "secret")
    said = apps("enqueue", "add", "--redis", address)

    _expect(said, 3, "check the user, its password and its ACL")
    assert "secret" not in said.err
    with guarded.client() as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs", "list"),
        ("runs", "show", "x"),
        ("runs", "cancel", "x"),
        ("queues",),
        ("dead", "list"),
        ("dead", "replay", "--all"),
    ],
    ids=" ".join,
)
def test_every_command_says_that_redis_is_away(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """A wrong address is the most frequent mistake of all."""
    said = Program(tmp_path)(*arguments, "--redis", UNREACHABLE, "--patience", "0", "--json")

    _expect(said, 3, "cannot reach Redis at 127.0.0.1:1")
    assert said.out == ""


def test_a_bug_of_ours_is_one_line_and_a_traceback_on_request(program: Program) -> None:
    """Users should not have to read tracebacks; whoever reports a bug should be able to."""
    (program.directory / "sitecustomize.py").write_text(
        "import millstream.cli.access as a\ndef broken(config): raise ZeroDivisionError('oh')\n"
        "a.one_queue = broken\n",
        "utf-8",
    )
    ours = {**program.environment, "PYTHONPATH": "."}

    _expect(Program(program.directory, ours)("enqueue", "x"), 70, "ZeroDivisionError: oh")
    debugged = Program(program.directory, {**ours, "MILLSTREAM_DEBUG": "1"})("enqueue", "x")
    assert "Traceback" in debugged.err


# -- what the mistakes are made with -----------------------------------------------------------


@pytest.fixture(scope="module")
def taken(served: Program) -> None:
    """An id that is used, and files of arguments."""
    said = served("enqueue", "add", "--arg", "a=1", "--id", "taken", "--wait")
    assert said.code == 0, said.err
    (served.directory / "large.json").write_text('{"a": "' + "x" * 1_100_000 + '"}', "utf-8")
    (served.directory / "huge.json").write_text(" " * 9_000_000, "utf-8")
    (served.directory / "latin.json").write_bytes(b'{"a": "\xe9"}')


@pytest.fixture
def apps(program: Program) -> Program:
    """The command line beside applications that do not load."""
    sources = {
        "missing_import": "import not_there",
        "syntax": "def (:",
        "raising": "raise RuntimeError('no\\nway')",
        "leaving": "import sys; sys.exit(0)",
    }
    for name, source in sources.items():
        (program.directory / f"{name}.py").write_text(source + "\n", "utf-8")

    return program


@pytest.fixture
def evicting(program: Program) -> Iterator[Program]:
    """A Redis that throws keys away when it is full."""
    with RedisServer(config={"maxmemory-policy": "allkeys-lru"}) as server:
        yield replace(program, environment={"MILLSTREAM_REDIS": server.url})


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """A Redis with users who may not do what we do."""
    users = (
        "user default on nopass ~* &* +@all",
        "user blind on >secret ~* &* +@all -info",
        "user elsewhere on >secret ~other:* &* +@all",
    )
    with RedisServer(acl=users) as server:
        yield server


def _expect(said: Answer, code: int, text: str) -> None:
    assert said.code == code, said
    assert len(said.lines) == 1, said.err
    assert said.err.startswith("error: ")
    assert text in said.err


def _keys(program: Program) -> dict[bytes, Any]:
    """Every run, and what is waiting; leases and marks of the worker go on changing."""
    from redis import Redis

    with Redis.from_url(program.environment["MILLSTREAM_REDIS"]) as client:
        return {
            key: client.object("encoding", key)
            for key in client.scan_iter("*")
            if key.split(b":")[-1] not in {b"meta", b"leases", b"agents"}
        }
