"""Soft Actor-Critic: all code that is specific to the algorithm; the engine uses it through `mission.learner`."""
