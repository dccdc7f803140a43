"""Training a mission: one phase after the other, each from the states in which the previous phase ended."""
