"""Many trainings of one mission: sweeps over seeds and settings, and the search for settings."""
