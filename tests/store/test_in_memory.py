"""The server in the process: scripts are compiled once, and do what they did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fakeredis
import pytest
from redis.exceptions import ResponseError

from millstream.store.in_memory import Interpreter, MemoryServer


@pytest.fixture
def server() -> MemoryServer:
    """A server that nobody has used."""
    return MemoryServer()


@pytest.fixture
def client(server: MemoryServer) -> Any:
    """A connection to it."""
    return fakeredis.FakeRedis(server=server, protocol=2)


def test_a_script_is_compiled_when_it_is_first_called(server: MemoryServer, client: Any) -> None:
    """`millstream dev` and most tests run on this store: compiling was the dearest that it did."""
    asked: list[bytes] = []

    class Watched:
        def compile(self, script: bytes) -> Callable[[], Any]:
            asked.append(script)
            return lambda: len(asked)

    interpreter = Interpreter(Watched())
    assert [interpreter.execute(text) for text in (b"a", b"b", b"a", b"a")] == [1, 2, 2, 2]
    assert asked == [b"a", b"b"]

    client.eval("return 1", 0)
    assert isinstance(server._lua_runtime, Interpreter), "fakeredis keeps it elsewhere now"


def test_a_compiled_script_sees_the_arguments_of_each_call(client: Any) -> None:
    """What was compiled must not remember what it was called with."""
    script = "local n = (n or 0) + #ARGV redis.call('SET', KEYS[1], ARGV[1]) return {KEYS[1], n}"

    assert client.eval(script, 1, "a", "1") == [b"a", 1]
    assert client.eval(script, 1, "b", "2", "3") == [b"b", 2]
    assert (client.get("a"), client.get("b")) == (b"1", b"2")


def test_a_script_that_sets_a_global_is_refused_and_the_next_one_is_not(client: Any) -> None:
    """Redis refuses it, so what is tried out without Redis must not get used to it."""
    for _ in range(2):
        with pytest.raises(ResponseError, match="global variables: oops"):
            client.eval("redis.call('SET', 'k', 'v') oops = 1 return 1", 0)
        assert client.eval("return 7", 0) == 7


def test_after_a_script_that_failed_globals_are_looked_for_again(client: Any) -> None:
    """An error in the middle of a script must not switch the check off."""
    with pytest.raises(ResponseError):
        client.eval("return redis.call('NOSUCH')", 0)
    with pytest.raises(ResponseError, match="oops"):
        client.eval("oops = 1 return 1", 0)
