"""Flight phases of a reusable booster for mission-engine."""
