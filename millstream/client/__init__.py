"""The client: enqueue runs, wait for them, look at them, stop them, start them again."""

from millstream.client.asynchronous import Client
from millstream.client.handles import Enqueue, Run, RunEvent
from millstream.client.synchronous import SyncClient, SyncRun

__all__ = ["Client", "Enqueue", "Run", "RunEvent", "SyncClient", "SyncRun"]
