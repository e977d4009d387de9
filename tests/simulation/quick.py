"""The server of the simulation, quick: fakeredis without the detours of every single command.

A history sends some thousand commands, and its scripts a hundred thousand. What fakeredis does
around each of them (access lists, locks, old connections, keyspace events, the parsing of a
protocol that nobody looks at) is left out here; what a command *does* is fakeredis's own code.
`test_quick` holds that a history is the same with and without this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from fakeredis import _msgs as messages
from fakeredis._commands import COMMANDS_WITH_SUB, Key, Signature
from fakeredis._core import CommandItem
from fakeredis._helpers import NoResponse, SimpleError
from fakeredis._socket import AsyncFakeSocket
from fakeredis._socket._resp import convert_to_resp2, extract_command

#: What is done with the arguments of a command, in order: the missing keys that answer for it and
#: the values that are read, then the keys.
_Plan = tuple[list[tuple[int, Any, Any]], list[tuple[int, Key, bool]]]
_plans: dict[tuple[str, int], _Plan] = {}


class QuickSocket(AsyncFakeSocket):
    """The server's end of a connection, without transactions, access lists and keyspace events."""

    def execute(self, fields: list[bytes]) -> None:
        """Execute a command that needs no parsing."""
        if self._paused:
            # Another command of this connection blocks: it comes first.
            self.sendall(_packed(fields))
        else:
            self._process_command(fields)

    def _process_command(self, fields: list[bytes]) -> None:
        name, args = extract_command(fields)
        self._db.time = time.time()
        try:
            func, sig = self._name_to_func(name)
            result = self._run_command(func, sig, args, False)
        except SimpleError as error:
            result = error
        result = self._decode_result(result)
        if not isinstance(result, NoResponse):
            self.put_response(result)

    def _run_command(
        self, func: Callable[..., Any] | None, sig: Signature, args: list[Any], from_script: bool
    ) -> Any:
        items: list[CommandItem] = []
        try:
            found = _applied(sig, args, self._db, self.version)
            if type(found) is not tuple:
                return found[0]
            assert func is not None
            values, items = found
            result = func(*values)
            if messages.FLAG_SKIP_CONVERT_TO_RESP2 not in sig.flags:
                result = convert_to_resp2(result)
        except SimpleError as error:
            result = error
        for item in items:
            item.writeback(remove_empty_val=messages.FLAG_LEAVE_EMPTY_VAL not in sig.flags)
        self._subkey_events = []
        return result


class Resolver:
    """Finds the function of a command that a script calls; what was found is remembered."""

    def __init__(self) -> None:
        self._found: dict[bytes, tuple[str, Signature]] = {}

    def run(self, socket: Any, name: bytes, args: Sequence[Any]) -> Any:
        """Run a command for a script; its reply is still Redis's."""
        found = self._found.get(name)
        if found is None:
            word = name.decode().lower()
            if word in COMMANDS_WITH_SUB and args:
                sub = args[0].decode().lower()
                func, sig = socket._name_to_func(f"{word} {sub}")
                return socket._run_command(func, sig, list(args[1:]), True)
            func, sig = socket._name_to_func(word)
            self._found[name] = found = (sig.func_name, sig)
        return socket._run_command(getattr(socket, found[0]), found[1], list(args), True)


def _applied(sig: Signature, args: list[Any], db: Any, version: Any) -> Any:
    """Do what `Signature.apply` does; a list of one for a reply that a missing key gives."""
    plan = _plans.get((sig.name, len(args)))
    if plan is None:
        sig.check_arity(args, version)
        plan = _plans[sig.name, len(args)] = _planned(sig, len(args))
    reading, keys = plan
    values = list(args)
    for index, decode, missing in reading:
        if decode is not None:
            values[index] = decode(values[index])
        elif values[index] not in db:
            return [missing]

    items = []
    for index, key, makes in keys:
        item = db.get(values[index])
        kind: Any = key.type_
        if kind is not None and item is not None and type(item.value) is not kind:
            raise SimpleError(messages.WRONGTYPE_MSG)
        made = kind() if makes and item is None else None
        values[index] = CommandItem(values[index], db, item, default=made)
        items.append(values[index])

    return values, items


def _planned(sig: Signature, count: int) -> _Plan:
    types: list[Any] = list(sig.fixed)
    types += [sig.repeat[at % len(sig.repeat)] for at in range(count - len(types))]
    reading: list[tuple[int, Any, Any]] = []
    keys: list[tuple[int, Key, bool]] = []
    for index, kind in enumerate(types[:count]):
        if isinstance(kind, Key):
            if kind.missing_return is not Key.UNSPECIFIED:
                reading.append((index, None, kind.missing_return))
            creates = messages.FLAG_DO_NOT_CREATE not in sig.flags
            keys.append((index, kind, creates and kind.type_ not in {None, bytes}))
        elif kind is not bytes:
            reading.append((index, kind.decode, None))

    return reading, keys


def _packed(fields: list[bytes]) -> bytes:
    parts = [b"*%d\r\n" % len(fields)]
    parts += [b"$%d\r\n%s\r\n" % (len(field), field) for field in fields]
    return b"".join(parts)
