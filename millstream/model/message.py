"""Messages to a run: what somebody outside says to it, kept until the run asks for it.

A message has a name, under which the run waits for it. What kind it is stands in front of the
name, so that a signal can never be taken for an approval of the same name.
"""

from __future__ import annotations

from enum import StrEnum

from millstream.errors import UsageError

#: The longest name of a signal.
LONGEST_NAME = 200


class MessageKind(StrEnum):
    """Who speaks to a run. The letters are stored; never change one."""

    SIGNAL = "s"  # a program
    APPROVAL = "a"  # a person who was asked
    CHILD = "c"  # a child run, whose end it is
    RESOLUTION = "o"  # an operator, about a step whose outcome nobody knows
    INPUT = "i"  # a person, whom a tool has asked for something

    def of(self, name: str) -> str:
        """Return the name of a message as it is stored."""
        return f"{self}:{name}"


#: All children together, where only the names of what is awaited count.
CHILDREN = MessageKind.CHILD.value

_AWAITED = {
    MessageKind.APPROVAL: "approval {!r}",
    MessageKind.SIGNAL: "signal {!r}",
    MessageKind.RESOLUTION: "an operator to resolve step {!r}",
    MessageKind.INPUT: "what tool call {!r} asks for",
}


def described(name: str) -> str:
    """Return in words what a run waits for, from the name as it is stored."""
    kind, _, rest = name.partition(":")
    if kind == CHILDREN:
        return "child runs"
    return _AWAITED[MessageKind(kind)].format(rest) if kind in set(MessageKind) else repr(name)


def check_name(name: str, what: str = "name") -> str:
    """Return the name of a signal, or raise `UsageError` when it has a form that is not allowed."""
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
        raise UsageError(
            f"a signal's {what} is 1 to {LONGEST_NAME} printable characters, not {name!r}"
        )
    return name
