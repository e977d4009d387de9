"""Dynamic batching beside its peers, on one model, in one process."""
