"""Ids of runs, queues and processes: what is allowed, and how a new one is made.

Randomness is handed in, so that a simulation can repeat itself.
"""

from __future__ import annotations

import itertools
import re
import zlib
from random import Random

from millstream.errors import UsageError

#: No braces, since they are the hash tag of a cluster; no spaces, since ids stand in log lines.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+=-]{0,199}")
_QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def new_run_id(random: Random) -> str:
    """Return an id of 16 characters, 80 random bits."""
    return _token(random)


def new_process_token(random: Random) -> str:
    """Return the name of a process: new at every start, so that a restart is another process."""
    return _token(random)


def check_run_id(run_id: str) -> str:
    """Return the id, or raise `UsageError` when it has a form that is not allowed."""
    if not isinstance(run_id, str) or not _ID.fullmatch(run_id):
        raise UsageError(
            f"run id {run_id!r} is not allowed: 1 to 200 of letters, digits and . _ : / @ + = -,"
            " beginning with a letter or digit"
        )
    return run_id


def check_queue(name: str) -> str:
    """Return the queue's name, or raise `UsageError` when it has a form that is not allowed."""
    if not isinstance(name, str) or not _QUEUE.fullmatch(name):
        raise UsageError(
            f"queue name {name!r} is not allowed: 1 to 64 of letters, digits and . _ -,"
            " beginning with a letter or digit"
        )
    return name


def lane_of(run_id: str, lanes: int) -> int:
    """Return the lane of a run: the same for every client, in every language."""
    return zlib.crc32(run_id.encode()) % lanes if lanes > 1 else 0


def in_lane(run_id: str, lane: int, lanes: int) -> str:
    """Return an id that begins with this one and belongs to a lane."""
    tries = itertools.chain([run_id], (f"{run_id}.{number}" for number in itertools.count(1)))
    return next(each for each in tries if lane_of(each, lanes) == lane)


#: What ten bits are written as, in the letters of base32: eight look-ups are a token, where
#: encoding bytes takes six times as long.
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = tuple(high + low for high in _LETTERS for low in _LETTERS)


def _token(random: Random) -> str:
    bits, pairs = random.getrandbits(80), _PAIRS
    return (
        f"{pairs[bits >> 70]}{pairs[bits >> 60 & 1023]}{pairs[bits >> 50 & 1023]}"
        f"{pairs[bits >> 40 & 1023]}{pairs[bits >> 30 & 1023]}{pairs[bits >> 20 & 1023]}"
        f"{pairs[bits >> 10 & 1023]}{pairs[bits & 1023]}"
    )
