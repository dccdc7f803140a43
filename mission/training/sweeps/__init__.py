"""Sweeps of a chain: its phases train again, backwards and then forwards, from the hand-overs that they receive."""
