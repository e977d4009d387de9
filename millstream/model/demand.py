"""How many runs a queue wants to have running: the one number that a fleet is scaled by.

What is there is what waits, what is held and what is due; what is held counts, or a fleet would be
scaled in under its own running runs. What is expected is Little's law: runs that come in a second,
times the seconds each holds its slot. It is larger than what is there for as long as a rise has
not yet become a backlog, and that is when pods should start.
"""

from __future__ import annotations

#: No metric is larger. An autoscaler multiplies, and older ones overflow.
MOST = 1e9
#: What is expected counts for at most so many times what is there. The service time of runs that
#: hang grows without end; a fleet must not grow with it. In the simulation more buys nothing.
LEAD = 2


def demand(
    *,
    waiting: int,
    running: int,
    due: int,
    arrival_rate: float | None = None,
    service_s: float | None = None,
) -> float:
    """Return the demand of a queue; without a rate or a service time, what is there."""
    there = max(0, waiting) + max(0, running) + max(0, due)
    expected = 0.0
    if arrival_rate is not None and service_s is not None:
        expected = min(arrival_rate * service_s, LEAD * there)
    return min(max(there, expected), MOST)
