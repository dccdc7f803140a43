"""Soft Actor-Critic: everything that knows the algorithm; the engine reaches it through `mission.learner`."""
