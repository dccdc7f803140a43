"""The probability that the rest of a mission succeeds, as networks on the first observation of each phase."""
