"""The worker: takes runs, replays their journals, goes on from there, and writes down each step."""
