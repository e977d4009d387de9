"""Has whoever waits for the interpreter get it soon, where a device computes in a thread.

Such a thread needs it between any two operations, for microseconds, and waits each time that the
event loop is busy. By itself the interpreter lets go after 5 ms: a batch of a hundred operations is
then answered many milliseconds late, while the device has nothing to do.

Promise: no thread of this process keeps it for longer than `TURN_S` while another one waits. It
cannot help where an extension does not let go.
"""

from __future__ import annotations

import sys

#: Longer than an operation takes to be begun, and so short that a device hardly stands still.
TURN_S = 0.0001


def take_turns() -> None:
    """Say so to the interpreter, for this process; one that lets go sooner is left as it is."""
    if sys.getswitchinterval() > TURN_S:
        sys.setswitchinterval(TURN_S)
