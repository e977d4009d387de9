"""One client, a few workers and schedulers in one process, on virtual time, with seeded faults.

A seed decides everything: what is enqueued, what breaks and when, how long each message takes.
After a history the promises are checked; a seed that fails is run again and tells its story:

    python -m tests.simulation --seed 17 --trace

Nothing here waits for real time, opens a socket or starts a thread.
"""
