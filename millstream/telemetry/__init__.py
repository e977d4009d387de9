"""What a process tells its operators: logs, metrics and probes, fed by events and never by logic.

The subscribers know `millstream.events` and nothing of workers, schedulers or Redis. This is the
only package that imports ``structlog``, ``prometheus_client`` and ``opentelemetry``.
"""
