"""The names under which a queue lives in Redis.

A queue has lanes; all keys of a lane carry its hash tag ``{queue:n}``, so that a cluster keeps
them in one slot and one script may touch them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: The streams of a lane.
LEVELS = ("resume", "high", "normal", "low", "suspect", "canary")
#: The levels of what is new, which tenants share in turns: each has a backlog beside its stream.
FRESH = ("high", "normal", "low")
#: The level of runs that are suspected of killing their workers: one at a time in each worker.
SUSPECT = "suspect"
#: The level of runs of a version that is on trial: for workers that know the version.
CANARY = "canary"
#: The consumer group of every stream.
GROUP = "workers"
#: When a parked run is due that waits for no time: later than any clock.
NEVER_MS = 9_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Lane:
    """One partition of a queue."""

    queue: str
    number: int = 0
    prefix: str = field(init=False)
    #: What every script of the lane is given, in the order that ``lua/_lane.lua`` expects.
    keys: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        prefix = f"millstream:{{{self.queue}:{self.number}}}:"
        names = ("meta", "timers", "parked", "leases", "ended", "dead", "agents")
        # Scripts make the name of the last one themselves: hardly a call has to do with it.
        streams = [self.stream_under(prefix, level) for level in LEVELS if level != CANARY]
        keys = [*(prefix + name for name in names), *streams, prefix + "outbox"]
        object.__setattr__(self, "prefix", prefix)
        object.__setattr__(self, "keys", tuple(keys))

    def __str__(self) -> str:
        return f"{self.queue}:{self.number}"

    @staticmethod
    def stream_under(prefix: str, level: str) -> str:
        """Return the key of a level's stream."""
        return f"{prefix}stream:{level}"

    def stream(self, level: str) -> str:
        """Stream: deliveries of one level; field ``id`` names the run."""
        return self.stream_under(self.prefix, level)

    @property
    def meta(self) -> str:
        """Hash: lanes, epoch, past, next; swept, listed (when last), hold (reclaim nothing before).

        Also paused, while workers take nothing new; depth, the limit of the queue; sole:<level>,
        window and left, see ``lua/_backlog.lua``; trials, see ``lua/_trial.lua``; looked, how far a
        sweep has gone through what is on trial. The first four are the layout of the queue, see
        `millstream.store.layouts`.
        """
        return self.prefix + "meta"

    @property
    def timers(self) -> str:
        """Sorted set: scheduled run id -> due time in ms."""
        return self.prefix + "timers"

    @property
    def parked(self) -> str:
        """Sorted set: parked run id -> due time in ms."""
        return self.prefix + "parked"

    def backlog(self, level: str) -> str:
        """Sorted set: queued run in no stream -> its turn, see ``lua/_backlog.lua``."""
        return f"{self.prefix}backlog:{level}"

    @property
    def limited(self) -> str:
        """Sorted set: id of a queued run that waits for a permit -> its place in the line."""
        return self.prefix + "limited"

    @property
    def leases(self) -> str:
        """Sorted set: process token -> expiry in ms, by the clock of Redis."""
        return self.prefix + "leases"

    @property
    def ended(self) -> str:
        """Sorted set: id of an ended run -> when its record expires, in ms."""
        return self.prefix + "ended"

    @property
    def dead(self) -> str:
        """Sorted set: id of a run that failed for good -> when, in ms."""
        return self.prefix + "dead"

    @property
    def agents(self) -> str:
        """Hash: process token -> what the process says of itself."""
        return self.prefix + "agents"

    @property
    def outbox(self) -> str:
        """Stream: what is to be said elsewhere: start of a child, its end, cancel down a tree.

        And that tasks of other agents are left. Field ``kind`` says which. An entry leaves when it
        was heard, see `millstream.store.outbox`.
        """
        return self.prefix + "outbox"

    @property
    def trials(self) -> str:
        """Hash: workflow -> what is known of the trial of one of its versions."""
        return self.prefix + "trials"

    @property
    def tried(self) -> str:
        """Hash: ``workflow version state`` -> runs of a trial that ended so."""
        return self.prefix + "tried"

    def run(self, run_id: str) -> str:
        """Hash: the record of a run."""
        return f"{self.prefix}run:{run_id}"

    def journal(self, run_id: str) -> str:
        """Hash: step key -> record."""
        return f"{self.prefix}journal:{run_id}"

    def spilled(self, run_id: str) -> str:
        """Hash: name and number of a part -> what is in it; values too large for the journal."""
        return f"{self.prefix}spilled:{run_id}"

    def events(self, run_id: str) -> str:
        """Stream: what the run said to whoever watches it."""
        return f"{self.prefix}events:{run_id}"

    def received(self, run_id: str) -> str:
        """Hash: messages to the run that nobody has taken yet, see ``lua/signal.lua``."""
        return f"{self.prefix}received:{run_id}"

    def inbox(self, waiter: str) -> str:
        """Channel: ends of the runs that one client waits for; or messages to those of a worker."""
        return f"{self.prefix}inbox:{waiter}"
