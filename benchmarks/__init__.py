"""How fast it is beside its peers: real processes, private servers, one run for all.

`python -m benchmarks --help` says what can be asked for; README.md says how it is measured.
"""
