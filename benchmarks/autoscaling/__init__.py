"""What an autoscaler makes of a queue, tried on a simulated cluster before anybody ships it.

    arithmetic   how many replicas a metric asks for: the published rules, and nothing of ours
    behavior     what becomes of that: stabilization and policies
    controller   the loop around both, with metrics that may be missing
    loads        when runs come, and how long each holds its slot
    fleet        pods that take time to start and to drain, and one queue
    signals      what the fleet shows, with the age at which an autoscaler sees it
    policies     the ways of scaling that are compared
    trial        one load under one way of scaling
    report       tables and plots

`python -m benchmarks.autoscaling` does it all; `docs/scaling.md` shows what came of it.
"""
