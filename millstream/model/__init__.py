"""What a run is, as plain values: no Redis, no clock, no network. Standard library only."""
