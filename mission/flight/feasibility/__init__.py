"""The probability that the rest of a mission succeeds, as networks of what a phase first observes."""
