"""The guard of a phase: networks that foresee when its guide promises more than its agent, and when it is to take over."""
