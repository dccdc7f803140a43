"""Train a mission: one phase after the other, each from the end states of the previous phase."""
