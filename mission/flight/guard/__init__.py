"""The guard of a phase: networks that predict when its guide should take over from its agent."""
