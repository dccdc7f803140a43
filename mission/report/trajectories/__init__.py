"""Whole flights at every control step: flown again, with their events, and written in files of several formats."""
