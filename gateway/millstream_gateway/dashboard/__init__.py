"""The pages: queues, runs and dead letters for people. No build step, no foreign script."""
