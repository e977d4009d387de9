"""The server that lives in the process: fakeredis, with scripts that are compiled once.

fakeredis compiles a script every time it is called, then collects all garbage of its interpreter,
and lists the script's globals around every command. Here a script is compiled when it is first
called, Lua collects garbage when it thinks best, and globals are looked for when a script ends.
What a script does is not touched.

Knows under which name fakeredis keeps the interpreter of a server. Should that change, everything
works as before, slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from millstream.errors import MissingExtra

try:
    import fakeredis
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise MissingExtra("memory", "fakeredis") from error

#: What fakeredis sends its interpreter after every script.
_COLLECT = "collectgarbage()"
_NONE: Mapping[Any, Any] = {}


class MemoryServer(fakeredis.FakeServer):
    """A server of fakeredis whose interpreter remembers what it compiled."""

    _interpreter: Interpreter

    def __init__(self) -> None:
        super().__init__(server_type="redis", version=(7, 0))

    @property
    def _lua_runtime(self) -> Interpreter:
        # No AttributeError is made up here: fakeredis asks whether there is an interpreter yet.
        return self._interpreter

    @_lua_runtime.setter
    def _lua_runtime(self, runtime: Any) -> None:
        self._interpreter = Interpreter(runtime)


class Interpreter:
    """Stands in for lupa's LuaRuntime, as far as fakeredis uses one."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._compiled: dict[bytes, Callable[[], Any]] = {}
        self._running = False

    def execute(self, script: bytes | str) -> Any:
        """Run a script."""
        if script == _COLLECT:
            return None
        assert isinstance(script, bytes)
        found = self._compiled.get(script)
        if found is None:
            found = self._compiled[script] = self._runtime.compile(script)
        self._running = True
        try:
            return found()
        finally:
            self._running = False

    def globals(self) -> Any:
        """Return the global names; none while a script runs, since they are read at its end."""
        return _NONE if self._running else self._runtime.globals()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)
