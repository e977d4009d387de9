"""The command line: the roof of the house, and the one room where flags are read and things drawn.

Promise: an error is one line on stderr that says what to do, never a traceback (unless
``MILLSTREAM_DEBUG=1``), and the exit code says who has to act. A command's module is imported
when it is called, so that ``--help`` is quick and nothing asks for an extra that it does not use.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from millstream.cli.exits import Exit

DEBUG = "MILLSTREAM_DEBUG"


def main() -> NoReturn:
    """Run the command that the process was started with, and end the process."""
    sys.exit(answer(sys.argv[1:]))


def answer(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    from millstream.cli import commands, failures

    try:
        code = commands.app()(args=list(arguments), prog_name="millstream", standalone_mode=False)
    except BaseException as error:
        if os.environ.get(DEBUG, "") not in {"", "0"} and isinstance(error, Exception):
            raise
        return failures.tell(error)

    return failures.interrupted() if code == Exit.INTERRUPTED else code or Exit.OK
