"""Fly resolved phases: one phase to its end, batches of 1,000 flights, whole chains."""
