"""Training a mission: one phase after the other, each from where the phase before it really ended."""
