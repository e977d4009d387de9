"""The bounds that hold everywhere, in one table. At a bound the caller gets a named error."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes, counts in items. Checked where a value enters, and again in the scripts."""

    arguments: int = 1 * MIB
    result: int = 1 * MIB
    #: One record of a journal: a step's encoded value.
    record: int = 1 * MIB
    #: The record of a tool's answer, which may be 8 MiB before it is written as JSON.
    answer: int = 16 * MIB
    #: All records of a run.
    journal_bytes: int = 32 * MIB
    journal_records: int = 10_000
    #: Events kept for whoever watches a run; the oldest are dropped.
    events: int = 1_000
    event: int = 64 * KIB
    #: Failed runs that stand in the dead-letter index; the oldest leave it, their records stay.
    dead_letters: int = 10_000
    #: Items of one script call.
    batch: int = 500
    #: An error's message.
    error: int = 4 * KIB
    #: Lanes of a queue, and how many other numbers of lanes it may have had.
    lanes: int = 256
    past_layouts: int = 8
    #: Messages to one run that it has not asked for yet: one of them, how many, all together, and
    #: how many ids of messages a run remembers.
    message: int = 64 * KIB
    messages: int = 1_000
    message_bytes: int = 4 * MIB
    message_ids: int = 1_000
    #: How many schedules there may be, and how large one may be, its arguments included.
    schedules: int = 10_000
    schedule: int = 64 * KIB
    #: Attributes of a run, and characters of the value of one.
    attributes: int = 16
    attribute: int = 256
    #: Programs that wait for one run at the same time.
    waiters: int = 64


LIMITS = Limits()
