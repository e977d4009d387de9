"""One client, three workers and two schedulers in one process, on virtual time, with seeded faults.

A seed decides everything: what is enqueued, what breaks and when, how long each message takes.
The promises are checked at every command that Redis executes, and once more when everything has
settled. A seed that fails is run again and tells its story:

    python -m tests.simulation --seed 17 --trace

Nothing here waits for real time, opens a socket or starts a thread. Not simulated is a failover
that forgets what was acknowledged: another list of promises holds then (`docs/guarantees.md`).
"""
