"""Scripts run as fakeredis runs them, but compiled once: a history calls them a thousand times."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fakeredis import _msgs as messages
from fakeredis._helpers import SimpleError
from fakeredis.commands_mixins import scripting_mixin

from tests.simulation.quick import Resolver

_word = scripting_mixin._convert_redis_arg
_PLAIN = frozenset({bytes, int})
_NOTHING: Mapping[bytes, Any] = {}


class Lua:
    """One interpreter for all servers of this process."""

    def __init__(self) -> None:
        self._runtime = scripting_mixin.LUA_MODULE.LuaRuntime(
            encoding=None, unpack_returned_tuples=True
        )
        self._compiled: dict[bytes, Callable[..., Any]] = {}
        self._shas: dict[bytes, bytes] = {}
        self._socket: Any = None
        self._key_tables: dict[tuple[bytes, ...], Any] = {}
        self._resolver = Resolver()
        install = self._runtime.eval(
            "function(call, pcall) redis = {call = call, pcall = pcall} end"
        )
        install(self._call, self._pcall)

    def run(self, socket: Any, script: bytes, keys: Sequence[bytes], args: Sequence[bytes]) -> Any:
        """Return the reply of a script, or raise what fakeredis would raise."""
        found = self._compiled.get(script)
        if found is None:
            found = self._runtime.compile(b"local KEYS, ARGV = ...\n" + script)
            self._compiled[script] = found
        self._socket = socket
        socket._script_resp = 2
        try:
            result = found(self._keys(tuple(keys)), self.table_from(args))
        except scripting_mixin.LUA_MODULE.LuaError as error:
            raise SimpleError(messages.SCRIPT_ERROR_MSG.format("", error)) from error
        finally:
            socket._script_resp = None

        return socket._convert_lua_result(result, nested=False)

    def sha(self, script: bytes) -> bytes:
        """Return the name of a script."""
        found = self._shas.get(script)
        if found is None:
            found = hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()
            self._shas[script] = found
        return found

    def _keys(self, keys: tuple[bytes, ...]) -> Any:
        found = self._key_tables.get(keys)
        if found is None:
            found = self._key_tables[keys] = self.table_from(keys)
        return found

    # -- what fakeredis asks of an interpreter -------------------------------------------------

    def table_from(self, value: Any) -> Any:
        """Return a Lua table."""
        return self._runtime.table_from(value)

    def globals(self) -> Mapping[bytes, Any]:
        """Return no globals: that scripts set none is checked on the real servers."""
        return _NOTHING

    def _call(self, name: bytes, *args: Any) -> Any:
        words = [arg if type(arg) is bytes else _word(arg) for arg in args]
        reply = self._resolver.run(self._socket, name, words)
        if type(reply) is list:
            return self._table(reply)
        return reply if type(reply) in _PLAIN else self._socket._convert_redis_result(self, reply)

    def _table(self, reply: list[Any]) -> Any:
        """Return a reply as a table; nearly everything in replies is bytes, a number or nothing."""
        items = [
            (False if item is None else item)
            if type(item) in _PLAIN or item is None
            else self._table(item)
            if type(item) is list
            else self._socket._convert_redis_result(self, item)
            for item in reply
        ]
        return self._runtime.table_from(items)

    def _pcall(self, name: bytes, *args: Any) -> Any:
        try:
            return self._call(name, *args)
        except SimpleError as error:
            return self.table_from({b"err": str(error)})


LUA = Lua()
