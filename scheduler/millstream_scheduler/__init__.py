"""The scheduler: one of its replicas leads, looks after the lanes, and measures the queues."""
