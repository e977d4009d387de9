"""Monitors: what a device's memory is, by whoever knows. Each has ``read``, and may block."""
